"""Bytes of a run's pruned matrices as formats would store them, counted from shapes and shares, never from weights."""

import math
from collections.abc import Iterable
from typing import Any

from experiments.runs.record import Record
from experiments.summary.rows import Table

ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes of a weight
FORMULAS = (
    "Bytes of the pruned matrices alone, counted and not measured; b is the bytes of one weight in the model's dtype."
    " dense: b per weight."
    " bitmask: b per kept weight, and one bit per weight, each matrix's bits rounded up to a byte."
    " n:m packed: b for each of n places in every m weights, and ceil(log2 m) bits for which weight stands there (for"
    " 2:4 that is what torch's semi-structured tensors store); only where the audit found no violation in any matrix."
    " CSR: b and an int32 column index per kept weight, and int32 row pointers, one per row and one more."
    " torch makes int64 indices unless it is told otherwise, and has no 2:4 kernel for float32."
)
SERVING = (
    "Serving engines, as of November 2026: we know of no maintained one that runs 2:4 weights faster than dense ones."
    " vLLM removed its 2:4 kernels and the loading of such models in 2026-03 (vllm-project/vllm#36799),"
    " compressed-tensors its sparse compressors on 2026-03-17 (#610), llm-compressor its 2:4 examples and tests on"
    " 2026-03-24 (#2452, #2504), TensorRT-LLM the engine backend with --weight_sparsity in mid-2026 (#15763, #15918),"
    " torchao torchao.sparsity on 2026-08-11 (pytorch/ao#4728; its release 0.18.0 still has it). What is left is"
    " torch.sparse.to_sparse_semi_structured, a prototype, and plain TensorRT with --sparsity. For unstructured zeros"
    " there are research kernels only, such as MACKO-SpMV (arXiv 2511.13061). What torch's kernels take on a GPU for"
    " the matrices of these runs: python -m experiments.bench latency."
)
HEADER = ("model", "pattern", "sparsity", "dtype", "runs", "dense bytes")
FORMATS = {"bitmask": "bitmask", "n:m": "n:m packed", "csr": "CSR"}  # key -> title, each with its share of dense


def dtype(record: Record) -> str | None:
    """What the model holds its pruned matrices in: float32, float16 or bfloat16; None where the run does not say.

    Results of older code do not name it, and `model.dtype: auto` in the settings leaves it to the checkpoint.
    """
    found = {layer.get("dtype") for layer in record.results.get("layers", [])} - {None}
    found = found or {record.manifest["config"].get("model", {}).get("dtype")}
    name = found.pop() if len(found) == 1 else None
    return name if name in ITEM else None


def size(record: Record) -> dict[str, int] | None:
    """Bytes by format: dense, bitmask, csr, and under its own name (2:4) an n:m that every matrix obeys.

    None for a run that pruned nothing, and where the dtype is not known. How they are counted is in `FORMULAS`.
    """
    item, layers = ITEM.get(dtype(record) or ""), record.results.get("layers", [])
    if item is None or not any(layer["sparsity"] for layer in layers):
        return None
    counts = [(*layer["shape"], _kept(layer)) for layer in layers]
    found = {
        "dense": sum(rows * columns * item for rows, columns, _ in counts),
        "bitmask": sum(math.ceil(rows * columns / 8) + kept * item for rows, columns, kept in counts),
        "csr": sum(kept * (item + 4) + (rows + 1) * 4 for rows, _, kept in counts),
    }
    if (grouped := _obeyed(record)) is not None:
        n, m = grouped
        places = [rows * columns * n // m for rows, columns, _ in counts]
        found[f"{n}:{m}"] = sum(item * each + math.ceil(each * (m - 1).bit_length() / 8) for each in places)
    return found


def _kept(layer: dict[str, Any]) -> int:
    """Exactly: the share of a mask is a double, and no matrix has 2^52 weights."""
    weights = math.prod(layer["shape"])
    return weights - round(layer["sparsity"] * weights)


def _obeyed(record: Record) -> tuple[int, int] | None:
    """The n:m of the run if every matrix keeps it: by its pattern, by the audit of the weights, and by the counts."""
    pattern = record.manifest["config"].get("pattern") or {}
    if record.results.get("metrics", {}).get("audit/violations") != 0 or not {"n", "m"} <= pattern.keys():
        return None
    n, m = pattern["n"], pattern["m"]
    fits = all(_kept(layer) * m <= math.prod(layer["shape"]) * n for layer in record.results["layers"])
    return (n, m) if fits else None


def rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the section on sizes: a row for each model, pattern and size, which methods may share.

    `runs` counts the runs of this size. Cells of what is not possible are empty.
    """
    header = [*HEADER, *(title for name in FORMATS.values() for title in (f"{name} bytes", "of dense"))]
    groups: dict[tuple[Any, ...], int] = {}
    for row in table.rows:
        found = size(row.record) if row.method != "dense" else None
        if found is not None:
            kept = sum(map(_kept, row.record.results["layers"]))
            key = row.model, row.pattern, dtype(row.record), kept, tuple(sorted(found.items()))
            groups[key] = groups.get(key, 0) + 1
    return header, [_cells(key, runs) for key, runs in groups.items()]


def _cells(key: tuple[Any, ...], runs: int) -> list[str]:
    model, pattern, kind, kept, found = key
    by_format = dict(found)
    by_format["n:m"] = next((count for name, count in found if ":" in name), None)
    dense = by_format["dense"]
    pairs = [_pair(by_format[name], dense) for name in FORMATS]
    sparsity = f"{1 - kept * ITEM[kind] / dense:.4f}"
    return [model, pattern, sparsity, kind, str(runs), f"{dense:,}", *(cell for pair in pairs for cell in pair)]


def _pair(count: int | None, dense: int) -> tuple[str, str]:
    return ("", "") if count is None else (f"{count:,}", f"{count / dense:.3f}")


def missing(records: Iterable[Record]) -> str:
    """What a reader must know of finished, pruned runs that have no size, in a line; empty where all have one."""
    pruned = [r for r in records if r.status == "done" and any(x["sparsity"] for x in r.results.get("layers", []))]
    unknown = sum(dtype(record) is None for record in pruned)
    why = "their results do not name the dtype of their matrices, and model.dtype=auto leaves it to the checkpoint"
    return f"{unknown} of {len(pruned)} pruned runs have no size: {why}" if unknown else ""
