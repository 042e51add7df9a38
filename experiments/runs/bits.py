"""Bits per weight of what a run left, counted from shapes, shares and settings, never from files.

Three ways. `codes`: kept weights alone, each in the bits of its code or of the model's dtype, and the grids: a scale in
that dtype, and of an asymmetric grid a zero of as many bits as a code. `masked`: those, and which weights are kept: one
bit for each weight of a matrix that is pruned, log2(C(m, n)) / m where exactly n of every m are kept (2:4: 0.646).
`disk`: what saving writes. Symmetric grids can be packed: the codes of zeros too, rows of whole words of 32 bits, the
scales, and the shape in two words of 64; all else is saved in the model's dtype.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

WIDTHS = {"float32": 32, "float16": 16, "bfloat16": 16}
WORD, SHAPE = 32, 2 * 64  # bits of what codes are packed into, and of the shape beside them


@dataclass(frozen=True)
class Bits:
    """Bits of so many weights, counted three ways."""

    codes: float
    masked: float
    disk: float

    def over(self, weights: int, more: float = 0.0) -> "Bits":
        """The bits of one of so many weights; `more` is what others of them take."""
        return Bits(*((part + more) / weights for part in (self.codes, self.masked, self.disk)))


@dataclass(frozen=True)
class Count:
    """Bits per weight: of the pruned linears, and of the whole model, None where the run does not tell its size."""

    linears: Bits
    model: Bits | None
    weights: int  # of the whole model; 0 where that is not known

    @property
    def size(self) -> float | None:
        """Bytes of the whole model with masks."""
        return self.model and self.model.masked * self.weights / 8


def count(results: Mapping[str, Any], config: Mapping[str, Any]) -> Count | None:
    """What a run's results and settings tell; None where they do not tell its matrices, or in what dtype they are."""
    layers, stored = results.get("layers", []), results.get("stored")
    weights = sum(math.prod(layer["shape"]) for layer in layers)
    width = stored["linears"] * 8 / weights if stored and weights else _width(layers, config)
    if not layers or width is None:
        return None
    linears = [_linear(layer, width, config.get("pattern") or {}, _symmetric(config)) for layer in layers]
    total = Bits(*(sum(parts) for parts in zip(*(asdict(bits).values() for bits in linears), strict=True)))
    if stored is None:
        return Count(total.over(weights), None, 0)
    rest = 8 * (stored["bytes"] - stored["linears"])
    return Count(total.over(weights), total.over(stored["weights"], rest), stored["weights"])


def dense(results: Mapping[str, Any], config: Mapping[str, Any]) -> Count | None:
    """The same of the model that the run pruned, before that."""
    layers = [{"shape": layer["shape"], "dtype": layer.get("dtype")} for layer in results.get("layers", [])]
    return count({**results, "layers": [layer | {"sparsity": 0.0} for layer in layers]}, config)


def flat(results: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, float]:
    """The same under flat keys, and of a quantised run the shares of removed weights and of zeros."""
    layers, share, counted = results.get("layers", []), zeros(results), count(results, config)
    keys = {} if share is None else {"sparsity/mask": _mean(layers, "sparsity"), "sparsity/zeros": share}
    parts = {"linears": counted.linears, "model": counted.model} if counted else {}
    return keys | {f"bits/{of}/{how}": n for of, bits in parts.items() if bits for how, n in asdict(bits).items()}


def quantised(results: Mapping[str, Any]) -> bool:
    """Whether the kept weights lie on grids."""
    return any("bits" in layer for layer in results.get("layers", []))


def zeros(results: Mapping[str, Any]) -> float | None:
    """The share of weights of the pruned linears that are 0: removed, or with 0 as nearest value; None: no grids."""
    return _mean(results["layers"], "zeros") if quantised(results) else None


def _mean(layers: Iterable[Mapping[str, Any]], share: str) -> float:
    """The mean of a share by size; a matrix without grids has no zeros but the removed ones."""
    sizes = [(math.prod(layer["shape"]), layer.get(share, layer["sparsity"])) for layer in layers]
    return sum(size * part for size, part in sizes) / sum(size for size, _ in sizes)


def precision(results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What is equal of runs that may be held against each other: "4 bit", "4 bit g128 sym"; empty without grids."""
    layers = [layer for layer in results.get("layers", []) if "bits" in layer]
    if not layers:
        return ""
    widths = sorted({layer["bits"] for layer in layers})
    groups = sorted({layer["shape"][1] // layer["grids"] for layer in layers if layer["grids"] > 1})
    shown = f" g{'/'.join(map(str, groups))}" if groups else ""
    return f"{'/'.join(map(str, widths))} bit{shown}{' sym' if _symmetric(config) else ''}"


def _symmetric(config: Mapping[str, Any]) -> bool:
    return bool((config.get("quantizer") or {}).get("symmetric"))


def _width(layers: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> float | None:
    """Bits of a weight of the model's dtype, where all its matrices have one that is known."""
    names = {layer.get("dtype") for layer in layers} - {None} or {(config.get("model") or {}).get("dtype")}
    return WIDTHS.get(str(names.pop())) if len(names) == 1 else None


def _linear(layer: Mapping[str, Any], width: float, pattern: Mapping[str, Any], symmetric: bool) -> Bits:
    rows, columns = layer["shape"]
    weights = rows * columns
    kept = weights - round(layer["sparsity"] * weights)
    mask = weights * _mask(kept / weights, pattern)
    if "bits" not in layer:
        return Bits(kept * width, kept * width + mask, weights * width)
    bits, scales = layer["bits"], rows * layer["grids"] * width
    codes = kept * bits + scales + (0 if symmetric else rows * layer["grids"] * bits)
    disk = packed(rows, columns, bits, layer["grids"], width) if symmetric else weights * width
    return Bits(codes, codes + mask, disk)


def packed(rows: int, columns: int, bits: int, grids: int, width: float) -> float:
    """Bits of a matrix on symmetric grids, so many a row, as it is packed; width: bits of a scale."""
    return rows * math.ceil(columns * bits / WORD) * WORD + rows * grids * width + SHAPE


def _mask(kept: float, pattern: Mapping[str, Any]) -> float:
    """Bits per weight that say which are kept, of a share that is kept."""
    if kept == 1:
        return 0.0
    n, m = pattern.get("n"), pattern.get("m")
    return math.log2(math.comb(m, n)) / m if n and m and kept == n / m else 1.0
