"""Bytes of a run's pruned matrices as formats would store them, and bits per weight where runs are quantised.

Counted from shapes and shares, never from weights.
"""

import math
from collections import Counter
from dataclasses import astuple
from typing import Any

from experiments.console.text import fraction
from experiments.runs.bits import WIDTHS, Bits, quantised
from experiments.runs.record import Record
from experiments.summary.rows import Row, Table

ITEM = {name: width // 8 for name, width in WIDTHS.items()}  # bytes of a weight
FORMATS = {"bitmask": "bitmask", "n:m": "n:m packed", "csr": "CSR"}  # key -> title, each with its share of dense
HEADER = ["model", "pattern", "sparsity", "dtype", "runs", "dense bytes"]
BITS = ["model", "method", "pattern", "sparsity", "zeros"]
BITS += [f"{of}: {how}" for of in ("linears", "model") for how in ("codes", "with mask", "on disk")]
BITS += ["model with mask, bytes"]
HEADER += [title for name in FORMATS.values() for title in (f"{name} bytes", "of dense")]


def dtype(record: Record) -> str | None:
    """What the model holds its pruned matrices in: float32, float16 or bfloat16; None where the run does not say.

    Results of older code do not name it, and `model.dtype: auto` in the settings leaves it to the checkpoint.
    """
    names = {layer.get("dtype") for layer in record.results.get("layers", [])} - {None}
    names = names or {record.manifest["config"].get("model", {}).get("dtype")}
    name = names.pop() if len(names) == 1 else None
    return name if name in ITEM else None


def size(record: Record) -> dict[str, int] | None:
    """Bytes by format: dense, bitmask, csr, and an n:m that every matrix obeys. The page says how they are counted.

    None for a run that pruned nothing or whose weights are codes, and where the dtype is not known.
    """
    item, layers = ITEM.get(dtype(record) or ""), record.results.get("layers", [])
    if quantised(record.results):
        return None
    if item is None or not any(layer["sparsity"] for layer in layers):
        return None
    counts = [(*layer["shape"], _left(layer)) for layer in layers]
    sizes = {
        "dense": sum(rows * columns * item for rows, columns, _ in counts),
        "bitmask": sum(math.ceil(rows * columns / 8) + left * item for rows, columns, left in counts),
        "csr": sum(left * (item + 4) + (rows + 1) * 4 for rows, _, left in counts),
    }
    if obeyed := _obeyed(record):
        n, m = obeyed
        places = [rows * columns * n // m for rows, columns, _ in counts]
        sizes["n:m"] = sum(item * each + math.ceil(each * (m - 1).bit_length() / 8) for each in places)
    return sizes


def _left(layer: dict[str, Any]) -> int:
    """How many weights are kept, exactly: the share of a mask is a double, and no matrix has 2^52 weights."""
    weights = math.prod(layer["shape"])
    return weights - round(layer["sparsity"] * weights)


def _obeyed(record: Record) -> tuple[int, int] | None:
    """The n:m of the run if every matrix keeps it: by its pattern, by the audit of the weights, and by the counts."""
    pattern = record.manifest["config"].get("pattern") or {}
    if record.results.get("metrics", {}).get("audit/violations") != 0 or not {"n", "m"} <= pattern.keys():
        return None
    n, m = pattern["n"], pattern["m"]
    fits = all(_left(layer) * m <= math.prod(layer["shape"]) * n for layer in record.results["layers"])
    return (n, m) if fits else None


def bits(table: Table) -> list[list[str]]:
    """Cells under `BITS` for each row of a table with quantised runs; none for another."""
    return [_bits(row) for row in table.rows if row.bits] if table.quantised else []


def _bits(row: Row) -> list[str]:
    counted = row.bits
    assert counted is not None, "rows without a count are left out"
    whole = [""] * 4 if counted.model is None else [*_three(counted.model), f"{counted.size:,.0f}"]
    names = [
        row.model,
        row.method,
        row.pattern,
        fraction(row.sparsity),
        "" if row.zeros is None else fraction(row.zeros),
    ]
    return [*names, *_three(counted.linears), *whole]


def _three(of: Bits) -> list[str]:
    return [f"{number:.3f}" for number in astuple(of)]


def rows(table: Table) -> list[list[str]]:
    """Cells under `HEADER` for each model, pattern and size, which methods may share; empty for what is not possible.

    `runs` counts the runs of this size.
    """
    runs: Counter[tuple[str, ...]] = Counter()
    for row in table.rows:
        if row.method != "dense" and (sizes := size(row.record)):
            left = sum(map(_left, row.record.results["layers"]))
            kind, dense = dtype(row.record) or "", sizes["dense"]
            cells = [f"{dense:,}"]
            for name in FORMATS:
                cells += [f"{sizes[name]:,}", f"{sizes[name] / dense:.3f}"] if name in sizes else ["", ""]
            runs[row.model, row.pattern, fraction(1 - left * ITEM[kind] / dense), kind, *cells] += 1
    return [[*cells[:4], str(count), *cells[4:]] for cells, count in runs.items()]
