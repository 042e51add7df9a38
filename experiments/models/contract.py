"""What a checkpoint's stored weights say of themselves, and whether that is what was promised: counts and comparisons.

A weight is kept where it is not 0. A kept weight that became 0 in half precision counts as removed: only what is stored
can be checked again.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy
import torch
from torch import Tensor

from prune.patterns.n_m import NM

CHUNK = 2**20  # weights that are counted at once: they fit in a processor's cache, and 8 divides it
N_M = re.compile(r"(\d+)(?:of|:)(\d+)")
UNSIGNED = {2: torch.uint16, 4: torch.uint32, 8: torch.uint64}  # the bits of a number: its sign is the highest


@dataclass
class Matrix:
    """One stored matrix: what was counted in it, and what is wrong with it."""

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    negative_zeros: int
    nonfinite: int
    mask_sha256: str  # of the bits of its non-zeros, packed as in store.pack
    violations: dict[str, int]  # groups of a pattern with too many non-zeros; a pattern that its width allows
    faults: list[str] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / max(self.weights, 1)


@dataclass(frozen=True)
class Promise:
    """What must hold. pattern: `2of4` and the like, or unstructured; sparsity: the least share of zeros over all
    matrices; matrices: sparsity and mask hash of each, by stored name, as a manifest has them.
    """

    pattern: str = "unstructured"
    sparsity: float | None = None
    matrices: Mapping[str, tuple[float, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_m(self.pattern)
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise ValueError(f"sparsity: expected a share, 0 to 1, found {self.sparsity:g}")

    @property
    def zeros(self) -> bool:
        """Whether there must be zeros at all: a dense model has none to keep."""
        return bool(self.sparsity) or self.pattern != "unstructured"


def n_m(pattern: str) -> NM | None:
    """The pattern of a name such as 2of4 (2 kept of every 4), None for unstructured; ValueError for another name."""
    if pattern == "unstructured":
        return None
    numbers = N_M.fullmatch(pattern)
    if not numbers:
        raise ValueError(f"pattern: expected unstructured or n kept of every m, such as 2of4, found {pattern}")
    return NM(*map(int, numbers.groups()))


def count(name: str, tensor: Tensor, patterns: Iterable[str]) -> Matrix:
    """Counts of a stored matrix [o, i], or of a stack of them [e, o, i], against these patterns."""
    sha, histogram, negative, odd = hashlib.sha256(), numpy.zeros(256, dtype=numpy.int64), 0, 0
    for piece in tensor.reshape(-1).split(CHUNK):
        kept, minus = _kept(piece)
        bits = numpy.packbits(kept)
        sha.update(bits)
        histogram += numpy.bincount(bits, minlength=256)
        negative += minus
        odd += nonfinite(piece)
    kept = int(histogram @ _bytes().sum(1))
    fitting = {name: rule for name in patterns if (rule := n_m(name)) and tensor.shape[-1] % rule.m == 0}
    violations = {name: _violations(rule, histogram, tensor) for name, rule in fitting.items()}
    shape, weights = tuple(tensor.shape), tensor.numel()
    return Matrix(name, shape, weights, weights - kept, negative, odd, sha.hexdigest(), violations)


def nonfinite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return 0
    odd = 0
    for piece in tensor.reshape(-1).split(CHUNK):
        values = piece if piece.element_size() in UNSIGNED else piece.float()
        low, high = values.aminmax()  # both are NaN where one value is
        if not (low.isfinite() and high.isfinite()):
            odd += int((~values.isfinite()).sum())
    return odd


def _kept(piece: Tensor) -> tuple[numpy.ndarray, int]:
    """Where values are not 0, and how many are -0.0: told by their bits, which is several times faster."""
    if not piece.is_floating_point() or piece.element_size() not in UNSIGNED:
        piece = piece.float()
    bits = piece.view(UNSIGNED[piece.element_size()]).numpy()
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return (bits << 1) != 0, int(numpy.count_nonzero(bits == sign))


@cache
def _bytes() -> numpy.ndarray:
    """The bits of every byte, [256, 8]."""
    return numpy.unpackbits(numpy.arange(256, dtype=numpy.uint8)[:, None], axis=1)


def _violations(rule: NM, histogram: numpy.ndarray, tensor: Tensor) -> int:
    """The rule's own violations; where 8 is a multiple of m, from how often each byte of the packed mask occurs."""
    if 8 % rule.m:
        return rule.violations(tensor != 0)
    return int(histogram @ _violations_of_bytes(rule))


@cache
def _violations_of_bytes(rule: NM) -> numpy.ndarray:
    return numpy.array([rule.violations(torch.from_numpy(byte[None].astype(bool))) for byte in _bytes()])


def judge(matrices: list[Matrix], promise: Promise) -> list[str]:
    """Notes in each matrix what breaks the promise; returns what breaks it in the model as a whole."""
    for matrix in matrices:
        matrix.faults += _faults(matrix, promise)
    names = {matrix.name for matrix in matrices}
    faults = [f"{name} is in the manifest, but no matrix of the checkpoint" for name in promise.matrices.keys() - names]
    if promise.matrices:
        faults += [f"{name} is not in the manifest" for name in names - promise.matrices.keys()]
    weights, zeros = sum(m.weights for m in matrices), sum(m.zeros for m in matrices)
    least = int((promise.sparsity or 0) * weights + 0.5)  # allocators meet the budget to the weight
    if zeros < least:
        faults.append(f"{zeros} of {weights} weights are zero, a share of {zeros / weights:.6f}; promised are {least}")
    return sorted(faults)


def _faults(matrix: Matrix, promise: Promise) -> list[str]:
    counts = {"NaN or infinite values": matrix.nonfinite}
    if promise.zeros:
        counts["negative zeros"] = matrix.negative_zeros
    if rule := n_m(promise.pattern):
        if promise.pattern not in matrix.violations:
            return [f"{promise.pattern} needs a width that {rule.m} divides, found {matrix.shape[-1]}"]
        counts[f"groups with more than {rule.n} non-zeros"] = matrix.violations[promise.pattern]
    faults = [f"{number} {what}" for what, number in counts.items() if number]
    if matrix.name in promise.matrices:
        sparsity, sha256 = promise.matrices[matrix.name]
        before = round(sparsity * matrix.weights)
        if matrix.zeros != before:
            faults.append(f"sparsity {sparsity:.6f} became {matrix.sparsity:.6f} ({matrix.zeros - before:+d} zeros)")
        elif matrix.mask_sha256 != sha256:
            faults.append("other weights are zero than were, as many as before")
    return faults


def certificate(matrices: list[Matrix]) -> dict[str, Any]:
    """What pruning_manifest.json keeps of the stored weights: sparsity and mask hash by matrix, one hash over all."""
    hashes = {matrix.name: matrix.mask_sha256 for matrix in matrices}
    sparsities = {matrix.name: matrix.sparsity for matrix in matrices}
    return {"sparsity_by_matrix": sparsities, "mask_sha256_by_matrix": hashes, "mask_sha256": over(hashes)}


def over(hashes: Mapping[str, str]) -> str:
    """One sha256 over the hashes of all matrices and their names."""
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def promised(manifest: Any, pattern: str | None, sparsity: float | None) -> tuple[Promise, list[str]]:
    """What a pruning_manifest.json promises, and notes; a pattern or sparsity given beside it counts instead."""
    notes = []
    try:
        hashes = {str(name): str(sha256) for name, sha256 in (manifest.get("mask_sha256_by_matrix") or {}).items()}
        matrices = {name: (float(manifest["sparsity_by_matrix"][name]), hashes[name]) for name in hashes}
        zeros, own = float(manifest.get("sparsity") or 0), str(manifest.get("pattern", "unstructured"))
    except (AttributeError, TypeError, KeyError, ValueError):
        raise ValueError("pruning_manifest.json: not as this project writes it; save the model again") from None
    if not hashes:
        notes.append("pruning_manifest.json has no hashes of masks: an earlier version wrote it; masks are not checked")
    elif over(hashes) != manifest.get("mask_sha256"):
        raise ValueError("pruning_manifest.json: its mask hashes are not as they were written; save the model again")
    if not zeros:
        own = "unstructured"  # a dense model has no pattern to keep
    elif own != "unstructured" and not N_M.fullmatch(own):
        if not pattern:
            notes.append(f"pattern {own} is not n kept of every m; it is not checked")
        own = "unstructured"
    return Promise(pattern or own, zeros if sparsity is None else sparsity, matrices), notes


def model_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The run's settings of the model, as far as the manifest has them."""
    config = manifest.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}
