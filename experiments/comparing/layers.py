"""The matrices of two runs side by side: how much each run removed, and how much of it is the same.

Masks are read block by block and stay packed, eight weights to a byte, with numpy alone.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy
from safetensors import SafetensorError, safe_open

from experiments.files.disk import intact
from experiments.runs import schema
from experiments.runs.record import Record, kind, seals


@dataclass(frozen=True)
class Layer:
    """One matrix, or several taken together; `kind` is what it is in its block, one name for numbered experts.

    removed: weights that each run removed, NaN where it has no such matrix. both: weights that both runs removed.
    chance: as many as they would on average, had each drawn its mask at random with as many removed in each matrix.
    NaN where masks are not compared, as in all that follows from it.
    """

    name: str
    block: str
    kind: str
    weights: int
    removed: tuple[float, float]
    both: float = nan
    chance: float = nan

    @property
    def sparsities(self) -> tuple[float, float]:
        """The share of its weights that each run removed."""
        return self.removed[0] / self.weights, self.removed[1] / self.weights

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the weights kept by both, by the first run alone, by the second alone."""
        first, second = self.removed
        kept = self.weights - first - second + self.both
        return kept / self.weights, (second - self.both) / self.weights, (first - self.both) / self.weights

    @property
    def common(self) -> float:
        """Of the weights that a run removed, the share that both did (Jaccard); NaN where neither removed one."""
        return self._jaccard(self.both)

    @property
    def random(self) -> float:
        """The same share of masks drawn at random and apart from each other."""
        return self._jaccard(self.chance)

    def _jaccard(self, both: float) -> float:
        either = sum(self.removed) - both
        return both / either if either else nan


def total(name: str, layers: Sequence[Layer]) -> Layer:
    """Several matrices as one; what is not known of one of them is not known of all."""
    removed = sum(layer.removed[0] for layer in layers), sum(layer.removed[1] for layer in layers)
    both, chance = sum(layer.both for layer in layers), sum(layer.chance for layer in layers)
    return Layer(name, name, name, sum(layer.weights for layer in layers), removed, both, chance)


def grouped(layers: Iterable[Layer], by: Callable[[Layer], str]) -> dict[str, Layer]:
    """The matrices that have one name by this rule taken together, in the order in which they come."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(by(layer), []).append(layer)
    return {name: total(name, members) for name, members in groups.items()}


def layers(first: Record, second: Record) -> tuple[list[Layer], list[str]]:
    """Every matrix of either run in the order of the model, and a line for what cannot be compared, and why."""
    sides = [{layer["name"]: layer for layer in record.results.get("layers", [])} for record in (first, second)]
    if absent := [name for name, side in zip("AB", sides, strict=True) if not side]:
        return [], [f"{' and '.join(absent)}: no matrices in the results; layers are not compared"]
    if unlike := _unlike(*sides):
        return [], [f"not the same model: {unlike}"]
    names, notes = sides[0] | sides[1], []
    common = sides[0].keys() & sides[1].keys()
    if alone := len(names) - len(common):
        notes.append(f"{alone} matrices are in one of the runs only; masks are compared where both have them")
    if first.manifest.get("model_content") != second.manifest.get("model_content"):
        notes.append("not the same weights were pruned: masks are compared place by place")
    matrices = [_layer(*(side.get(name) for side in sides)) for name in names]
    for name, side in zip("AB", sides, strict=True):
        if not any(entry["sparsity"] for entry in side.values()):
            return matrices, [*notes, f"{name} removed nothing; masks are not compared"]
    counts, missing = _masks((first, second), sorted({sides[0][name]["block"] for name in common}))
    return [replace(layer, **counts.get(layer.name, {})) for layer in matrices], notes + missing


def _unlike(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What shows that these are the matrices of two models: no name in common, or another shape."""
    common = [name for name in first if name in second]
    if not common:
        return f"no matrix has the name of one of the other ({next(iter(second))})"
    for name in common:
        shapes = [" x ".join(map(str, side[name]["shape"])) for side in (first, second)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} in A and {shapes[1]} in B"
    return ""


def _layer(first: dict[str, Any] | None, second: dict[str, Any] | None) -> Layer:
    entry = first or second or {}
    weights = entry["shape"][0] * entry["shape"][1]
    removed = [nan if side is None else side["sparsity"] * weights for side in (first, second)]
    return Layer(entry["name"], entry["block"], kind(entry), weights, (removed[0], removed[1]))


def _masks(pair: tuple[Record, Record], blocks: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Counts of every matrix by name, as fields of `Layer`, and a line for the blocks whose masks cannot be read."""
    matrices: dict[str, dict[str, Any]] = {}
    lost: list[Path] = []
    for block in blocks:
        files = [record.folder / "masks" / f"{block}.safetensors" for record in pair]
        sides = [_packed(file, seals(record.manifest)) for file, record in zip(files, pair, strict=True)]
        lost += [file for file, side in zip(files, sides, strict=True) if side is None]
        first, second = (side or {} for side in sides)
        for name in first.keys() & second.keys():
            (bits, shape), (other, other_shape) = first[name], second[name]
            if shape == other_shape:
                matrices[f"{block}.{name}"] = counts(bits, other, shape[0] * shape[1])
    if not lost:
        return matrices, []
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return matrices, [f"not there, or not as it was written: {lost[0]}{more}"]


def _packed(file: Path, sealed: bool) -> dict[str, tuple[numpy.ndarray, list[int]]] | None:
    """The masks of one block as bits, and their shapes, by name; None if the file is not there or was altered.

    Without `sealed` a file that has no seal is taken as it is.
    """
    try:
        with safe_open(file, "np") as opened:
            facts = opened.metadata() or {}
            schema.refuse(shapes := json.loads(facts["shapes"]), schema.SHAPES)
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
    """Fields of `Layer` from two packed masks (`stores.pack`: a set bit is kept, padding bits are 0)."""
    kept = [int(numpy.bitwise_count(bits).sum(dtype=numpy.int64)) for bits in (first, second, first & second)]
    removed = weights - kept[0], weights - kept[1]
    both = weights - kept[0] - kept[1] + kept[2]
    return {"removed": removed, "both": both, "chance": removed[0] * removed[1] / weights}
