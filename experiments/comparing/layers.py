"""The matrices of two runs side by side: how much each run removed, and how much of it is the same.

Masks are read block by block and stay packed, eight weights to a byte, with numpy alone.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from experiments.files.tensors import intact
from experiments.runs import schema
from experiments.runs.record import Record, seals


@dataclass(frozen=True)
class Layer:
    """One matrix, or several taken together. removed: weights that each run removed, None where it has no such matrix.

    both: weights that both runs removed. chance: as many as they would on average, had each drawn its mask at random
    with as many removed in each matrix. None where masks are not compared.
    """

    name: str
    block: str
    weights: int
    removed: tuple[float | None, float | None]
    both: float | None = None
    chance: float | None = None

    @property
    def matrix(self) -> str:
        """What the matrix is in its block; numbered siblings (experts) have one name."""
        return re.sub(r"\.\d+(?=\.|$)", ".*", self.name.removeprefix(self.block)).removeprefix(".")

    @property
    def sparsities(self) -> tuple[float | None, float | None]:
        """The share of its weights that each run removed."""
        first, second = (None if removed is None else removed / self.weights for removed in self.removed)
        return first, second

    @property
    def shares(self) -> tuple[float, float, float] | None:
        """Shares of the weights kept by both, by the first run alone, by the second alone."""
        if self.both is None or None in self.removed:
            return None
        first, second = (removed or 0.0 for removed in self.removed)
        kept = self.weights - first - second + self.both, second - self.both, first - self.both
        return kept[0] / self.weights, kept[1] / self.weights, kept[2] / self.weights

    @property
    def common(self) -> float | None:
        """Of the weights that a run removed, the share that both did (Jaccard); None where neither removed one."""
        return self._jaccard(self.both)

    @property
    def random(self) -> float | None:
        """The same share of masks drawn at random and apart from each other."""
        return self._jaccard(self.chance)

    def _jaccard(self, both: float | None) -> float | None:
        either = sum(removed or 0.0 for removed in self.removed) - (both or 0.0)
        return None if both is None or not either else both / either


def total(name: str, layers: Iterable[Layer]) -> Layer:
    """Several matrices as one; what is not known of one of them is not known of all."""
    layers = list(layers)
    add = lambda values: None if None in (known := list(values)) else sum(known)
    removed = add(layer.removed[0] for layer in layers), add(layer.removed[1] for layer in layers)
    counts = add(layer.both for layer in layers), add(layer.chance for layer in layers)
    return Layer(name, name, sum(layer.weights for layer in layers), removed, *counts)


def grouped(layers: Iterable[Layer], by: Callable[[Layer], str]) -> dict[str, Layer]:
    """The matrices that have one name by this rule taken together, in the order in which they come."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(by(layer), []).append(layer)
    return {name: total(name, members) for name, members in groups.items()}


def layers(first: Record, second: Record) -> tuple[list[Layer], list[str]]:
    """Every matrix of either run in the order of the model, and a line for what cannot be compared, and why."""
    found = [{layer["name"]: layer for layer in record.results.get("layers", [])} for record in (first, second)]
    if absent := [name for name, entries in zip("AB", found, strict=True) if not entries]:
        return [], [f"{' and '.join(absent)}: no matrices in the results; layers are not compared"]
    if not (common := found[0].keys() & found[1].keys()):
        return [], [f"not the same model: no matrix has the name of one of the other ({next(iter(found[1]))})"]
    for name in (name for name in found[0] if name in common):
        shapes = [" x ".join(map(str, entries[name]["shape"])) for entries in found]
        if shapes[0] != shapes[1]:
            return [], [f"not the same model: {name} is {shapes[0]} in A and {shapes[1]} in B"]
    alone = len(found[0] | found[1]) - len(common)
    notes = [f"{alone} matrices are in one of the runs only; masks are compared where both have them"] * (alone > 0)
    if len({record.manifest.get("model_content") for record in (first, second)}) > 1:
        notes.append("not the same weights were pruned: masks are compared place by place")
    side = [_side(name, *(entries.get(name) for entries in found)) for name in found[0] | found[1]]
    for name, entries in zip("AB", found, strict=True):
        if not any(entry["sparsity"] for entry in entries.values()):
            return side, [*notes, f"{name} removed nothing; masks are not compared"]
    counts, missing = masks((first, second), sorted({found[0][name]["block"] for name in common}))
    return [replace(layer, **counts.get(layer.name, {})) for layer in side], notes + missing


def _side(name: str, first: dict[str, Any] | None, second: dict[str, Any] | None) -> Layer:
    entry = first or second or {}
    weights = entry["shape"][0] * entry["shape"][1]
    removed = [None if one is None else one["sparsity"] * weights for one in (first, second)]
    return Layer(name, entry["block"], weights, (removed[0], removed[1]))


def masks(pair: tuple[Record, Record], blocks: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Counts of every matrix by name, as fields of `Layer`, and a line for the blocks whose masks cannot be read."""
    found: dict[str, dict[str, Any]] = {}
    lost: list[Path] = []
    for block in blocks:
        files = [record.folder / "masks" / f"{block}.safetensors" for record in pair]
        sides = [packed(file, seals(record.manifest)) for file, record in zip(files, pair, strict=True)]
        lost += [file for file, side in zip(files, sides, strict=True) if side is None]
        for name, (bits, shape) in (sides[0] or {}).items():
            other, other_shape = (sides[1] or {}).get(name, (None, None))
            if other is not None and other_shape == shape:
                found[f"{block}.{name}"] = counts(bits, other, shape[0] * shape[1])
    more = f" and {len(lost) - 1} more" * (len(lost) > 1)
    return found, [f"not there, or not as it was written: {file}{more}" for file in lost[:1]]


def packed(file: Path, sealed: bool) -> dict[str, tuple[numpy.ndarray, list[int]]] | None:
    """The masks of one block as bits, and their shapes, by name; None if the file is not there or was altered.

    Without `sealed` a file that has no seal is taken as it is.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(file, "np") as opened:
            facts = opened.metadata() or {}
            schema.SHAPES(shapes := json.loads(facts["shapes"]))
            bits = {name: opened.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError):
        return None
    lengths = {name: -(-rows * columns // 8) for name, (rows, columns) in shapes.items()}
    if any((bits[name].dtype, bits[name].shape) != (numpy.uint8, (length,)) for name, length in lengths.items()):
        return None
    if (sealed or "sha256" in facts) and not intact(file):
        return None
    return {name: (bits[name], shape) for name, shape in shapes.items()}


def counts(first: numpy.ndarray, second: numpy.ndarray, weights: int) -> dict[str, Any]:
    """Fields of `Layer` from two packed masks (`store.pack`: a set bit is kept, padding bits are 0)."""
    kept = [int(numpy.bitwise_count(bits).sum(dtype=numpy.int64)) for bits in (first, second, first & second)]
    removed = weights - kept[0], weights - kept[1]
    both = weights - kept[0] - kept[1] + kept[2]
    return {"removed": removed, "both": both, "chance": removed[0] * removed[1] / weights}
