"""What a checkpoint's stored weights say of themselves, tensor by tensor, and whether that is what was promised: counts
for its certificate, and what verify holds against them.

A weight is kept where it is not 0. A kept weight that became 0 in half precision counts as removed: only what is stored
can be checked again.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.files.disk import read_json, write_json
from experiments.models import stored
from experiments.models.location import CERTIFICATE, hashes
from experiments.models.packed import packed
from experiments.models.skeleton import becomes, explained, judged
from experiments.models.stored import Stored, some
from prune.network import Network
from prune.patterns.n_m import NM

CHUNK = 2**20  # weights that are counted at once: they fit in a processor's cache, and 8 divides it
N_M = re.compile(r"(\d+)(?:of|:)(\d+)")
UNSIGNED = {2: torch.uint16, 4: torch.uint32, 8: torch.uint64}  # the bits of a number: its sign is the highest
STACKING = {"MergeModulelist", "SplitModulelist", "Concatenate", "Chunk", "Split"}  # conversions that keep rows rows
Places = Mapping[str, tuple[str, Any]]  # as `skeleton.becomes` tells them


@dataclass
class Matrix:
    """One stored matrix: what was counted in it, and what is wrong with it."""

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    negative_zeros: int
    nonfinite: int
    mask_sha256: str  # of the bits of its non-zeros, packed as in runs.stores.pack
    violations: dict[str, int]  # groups of a pattern with too many non-zeros; a pattern that its width allows
    crowded: int = 0  # groups of columns with more values than their codes can tell apart
    revived: int = 0  # weights that are not 0 where a mask removed them
    masked: bool = False  # whether it was held against a mask, all of it
    faults: list[str] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / max(self.weights, 1)


@dataclass(frozen=True)
class Measured:
    """A checkpoint as its weights are: the model's class, its matrices in order, what is wrong, what is not checked."""

    kind: str
    matrices: list[Matrix]
    faults: list[str]
    notes: list[str]
    bytes: int
    seconds: float  # of reading
    packed: dict[str, Any] = field(default_factory=dict)  # how its codes lie, where it is one of codes (`packed`)


@dataclass(frozen=True)
class Count:
    """What is counted in matrices: groups that break patterns (2of4), groups of columns (rows where group is None) with
    more than 2^bits values, weights other than 0 where the mask, by full name of the matrix, removed them.
    """

    patterns: tuple[str, ...] = ()
    bits: int | None = None
    group: int | None = None
    mask: Callable[[str], Tensor | None] | None = None

    def __call__(self, name: str, rows: Tensor, full: Mapping[int, str]) -> Matrix:
        """A stored matrix [o, i], or a stack of them; full: what the model calls each, where it has them as stored."""
        matrix = count(name, rows, self.patterns)
        if self.bits is not None:
            matrix.crowded = crowded(rows, self.bits, self.group)
        if self.mask:
            masks = {place: self.mask(own) for place, own in full.items()}
            matrix.masked = bool(masks) and None not in masks.values()
            stack = rows if rows.dim() > 2 else rows[None]
            matrix.revived = sum(
                _revived(name, stack[k : k + 1], mask[None]) for k, mask in masks.items() if mask is not None
            )
        return matrix


def _revived(name: str, rows: Tensor, mask: Tensor) -> int:
    """Weights other than 0 where the mask removed them; ValueError where it is of another shape."""
    if rows.shape != mask.shape:
        shapes = f"the mask is {list(mask.shape[1:])}, the matrix {list(rows.shape[1:])}"
        raise ValueError(f"{name}: {shapes}; give the run of this model")
    return int(((rows != 0) & ~mask).sum())


def measure(
    folder: Path,
    counts: Count = Count(),
    blocks: str | None = None,
    trust_remote_code: bool = False,
    routers: bool = False,
    skipped: Iterable[str] = (),
) -> Measured:
    """Reads every tensor once. `blocks`, `routers`: as in model.blocks and model.routers; `skipped`: matrices that were
    not to be pruned, by full name.

    ValueError or OSError in one line for what cannot be read, and for a config.json that makes no causal LM.
    """
    codes = packed(folder)
    tensors = stored.sound(str(folder), folder) if codes is None else codes.tensors
    with explained(str(folder)):
        model, wrong = judged(folder, tensors, trust_remote_code)
        places = becomes(model, tensors)
    turned, notes, full = {}, [], {}
    try:
        network = Network(model, blocks=blocks, routers=routers)
        network.unheard = dict.fromkeys(skipped, "")
        turned, rearranged = _matrices(network, tensors, places)
        full = _called(network, turned, places)
    except ValueError as error:
        notes.append(f"no matrices: {error}")
    else:
        if rearranged:
            notes.append(f"not checked, as loading rearranges them: {some(rearranged)}")
    start = time.perf_counter()
    values = stored.read(tensors.values()) if codes is None else codes.read()
    matrices, odd, size = _read(tensors, values, turned, lambda name, rows: counts(name, rows, full.get(name, {})))
    seconds = time.perf_counter() - start
    form = {} if codes is None else codes.form
    size = size if codes is None else codes.bytes
    return Measured(type(model).__name__, matrices, [*wrong, *odd], notes, size, seconds, form)


def _matrices(network: Network, tensors: Mapping[str, Stored], places: Places) -> tuple[dict[str, bool], list[str]]:
    """The stored matrices that can be pruned, in the model's order, and whether each lies as [.., i, o]; and the names
    of those whose axes are not the model's.
    """
    prunable = {matrix.parameter: matrix.turned for matrix in network.matrices().values()}
    order = {key: number for number, key in enumerate(network.model.state_dict())}
    names = [name for name, (key, _) in places.items() if key in prunable and len(tensors[name].shape) > 1]
    names.sort(key=lambda name: (order[places[name][0]], name))
    rearranged = [name for name in names if not _keeps_rows(network.model, tensors[name], *places[name])]
    return {name: prunable[places[name][0]] for name in names if name not in rearranged}, rearranged


def _called(network: Network, names: Iterable[str], places: Places) -> dict[str, dict[int, str]]:
    """What the model calls each matrix of these stored ones, by its place in the stack; none of what loading fuses."""
    own: dict[str, dict[int, str]] = {}
    for name, matrix in network.matrices().items():
        own.setdefault(matrix.parameter, {})[matrix.expert or 0] = name
    return {name: own[places[name][0]] for name in names if places[name][1] is None}


def _keeps_rows(model: Any, tensor: Stored, key: str, rule: Any) -> bool:
    """Whether the axes of the stored tensor are those of the model's."""
    known = rule is None or {type(step).__name__ for step in rule.operations} <= STACKING
    return known and tensor.shape[-1] == model.get_parameter(key).shape[-1]


def _read(
    tensors: Mapping[str, Stored],
    read: Iterable[tuple[Stored, Tensor]],
    turned: Mapping[str, bool],
    counted: Callable[[str, Tensor], Matrix],
) -> tuple[list[Matrix], list[str], int]:
    """What was counted in the matrices, the faults of all other tensors, and the bytes that were read."""
    matrices: dict[str, Matrix] = {}
    odd, size = [], 0
    whole = sum(file.stat().st_size for file in {tensor.file for tensor in tensors.values()})
    with tqdm(total=whole, unit="B", unit_scale=True, desc="verify", leave=False, disable=None) as bar:
        for tensor, values in read:
            if tensor.name in turned:
                rows = values.mT if turned[tensor.name] else values
                matrices[tensor.name] = counted(tensor.name, rows)
            elif number := nonfinite(values):
                odd.append(f"{tensor.name}: {number} NaN or infinite values")
            size += values.nbytes
            bar.update(values.nbytes)
    return [matrices[name] for name in turned], odd, size


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


def crowded(rows: Tensor, bits: int, group: int | None) -> int:
    """How many groups of so many columns, or rows, have more than 2^bits values; all, where they divide no row."""
    width = group or rows.shape[-1]
    if rows.shape[-1] % width:
        return -(-rows.numel() // width)
    groups, found = rows.reshape(-1, width), 0
    for piece in groups.split(max(1, CHUNK // width)):
        steps = piece.float().sort(1).values.diff(dim=1)
        found += int(((steps != 0).sum(1) >= 2**bits).sum())
    return found


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


@dataclass(frozen=True)
class Promise:
    """What must hold. pattern: `2of4` and the like, or unstructured; sparsity: the least share of zeros over all
    matrices; matrices: sparsity and mask hash of each, by stored name, as a manifest has them.
    """

    pattern: str = "unstructured"
    sparsity: float | None = None
    matrices: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    bits: int | None = None
    group: int | None = None
    loose: bool = False

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
    counts = {"NaN or infinite values": matrix.nonfinite, "weights that its run removed": matrix.revived}
    if promise.bits is not None:
        counts[f"{'groups' if promise.group else 'rows'} with more than {2**promise.bits} values"] = matrix.crowded
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
        if matrix.zeros > before and promise.loose:
            return faults
        if matrix.zeros != before:
            faults.append(f"sparsity {sparsity:.6f} became {matrix.sparsity:.6f} ({matrix.zeros - before:+d} zeros)")
        elif matrix.mask_sha256 != sha256:
            faults.append("other weights are zero than were, as many as before")
    return faults


def certify(folder: Path, manifest: dict[str, Any], results: dict[str, Any]) -> None:
    """Put into the folder what was done to the model: the run's manifest, its metrics, sparsity and mask by matrix.

    Sparsities and masks are read from the saved weights, once: a later command must not certify what was changed since.
    """
    place = folder / CERTIFICATE
    earlier, skipped = read_json(place, {}), sorted(results.get("skipped", {}))
    if "mask_sha256" in earlier:
        masks = {name: earlier[name] for name in ("sparsity_by_matrix", "mask_sha256_by_matrix", "mask_sha256")}
    else:
        model = manifest["config"]["model"]
        options = (model["blocks"], model["trust_remote_code"], model.get("routers", False), skipped)
        masks = sparsities_and_masks(measure(folder, Count(), *options).matrices)
    files = earlier.get("sha256_by_file") or hashes(folder)
    outcome = {"status": "done", "stage": None, "metrics": results["metrics"], "skipped": skipped}
    outcome["sha256_by_file"] = files
    write_json(place, manifest | masks | outcome)


def sparsities_and_masks(matrices: list[Matrix]) -> dict[str, Any]:
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
        bits, group = grid_of(manifest)
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
    return Promise(pattern or own, zeros if sparsity is None else sparsity, matrices, bits, group), notes


def grid_of(manifest: dict[str, Any]) -> tuple[int | None, int | None]:
    """Bits of a code and columns that share a grid, as the run quantised; None and None where it did not."""
    config = manifest.get("config")
    quantizer = config.get("quantizer") if isinstance(config, dict) else None
    told = quantizer if isinstance(quantizer, dict) else {}
    bits, group = told.get("bits"), told.get("group")
    return None if bits is None else int(bits), None if group is None else int(group)
