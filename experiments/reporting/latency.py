"""How long 2:4 layers take on the present GPU beside dense ones, measured; and what serving engines do with 2:4.

torch is imported only where there is something to measure.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from experiments.console.errors import first_line
from experiments.files.disk import seal, sealed
from experiments.reporting import sizes
from experiments.runs.record import Record

SERVING = (
    "Serving engines, as of November 2026: we know of no maintained one that runs 2:4 weights faster than dense ones."
    " vLLM removed its 2:4 kernels and the loading of such models in 2026-03 (vllm-project/vllm#36799),"
    " compressed-tensors its sparse compressors on 2026-03-17 (#610), llm-compressor its 2:4 examples and tests on"
    " 2026-03-24 (#2452, #2504), TensorRT-LLM the engine backend with --weight_sparsity in mid-2026 (#15763, #15918),"
    " torchao torchao.sparsity on 2026-08-11 (pytorch/ao#4728; its release 0.18.0 still has it). What is left is"
    " torch.sparse.to_sparse_semi_structured, a prototype, and plain TensorRT with --sparsity. For unstructured zeros"
    " there are research kernels only, such as MACKO-SpMV (arXiv 2511.13061)."
)
METHOD = (
    "Median of 100 calls of torch.nn.functional.linear from Python, by CUDA events, after 10 that do not count; between"
    " two calls the GPU's cache is overwritten. Random weights of the runs' shapes, no bias. The error"
    " is the largest difference to the dense product of the same 2:4 weights, relative to its largest value."
)
HEADER = (
    "GPU",
    "torch",
    "dtype",
    "out x in",
    "tokens",
    "dense (us)",
    "2:4 (us)",
    "dense / 2:4",
    "max error",
    "backend",
)
TOKENS = (1, 16, 2048)  # rows of the input: one sequence, a small batch, a prompt
CALLS, WARM_UP = 100, 10
CACHE = 2**29  # bytes: more than any GPU's last cache, and long enough to write that the next call is queued meanwhile
Shape = tuple[int, int, str]  # out, in, dtype


@dataclass(frozen=True)
class Latency:
    """Cells in the order of `HEADER`, measured now or earlier; `reason` says what was not measured now, and why."""

    rows: list[list[str]]
    reason: str


def shapes(records: Iterable[Record]) -> list[Shape]:
    """The distinct matrices of the finished 2:4 runs; float16 stands for a dtype that torch has no 2:4 kernel for."""
    found = set()
    for record in records:
        pattern = record.manifest.get("config", {}).get("pattern") or {}
        if record.status == "done" and (pattern.get("n"), pattern.get("m")) == (2, 4):
            kind = "bfloat16" if sizes.dtype(record) == "bfloat16" else "float16"
            found |= {(*layer["shape"], kind) for layer in record.results.get("layers", [])}
    return sorted(found)


def measure(records: Iterable[Record], to: Path) -> Latency:
    """Times every matrix shape of the 2:4 runs on the first GPU, once: kept in <to>/latency-<gpu>.json.

    Rows are all that such files hold of these shapes, of other GPUs too; one that is not as it was written does not
    count, and is said in one line.
    """
    wanted = shapes(records)
    if not wanted:
        return Latency([], "not measured: no finished run has the pattern 2:4")
    reason = _fill(wanted, to)
    rows = []
    for file in sorted(to.glob("latency-*.json")):
        if (kept := sealed(file)) is not None:
            rows += [_cells(kept, entry) for entry in kept["layers"] if _shape(entry) in wanted]
    return Latency(rows, reason)


def _fill(wanted: list[Shape], to: Path) -> str:
    """Measure what the present GPU's file does not have; what could not be measured, and why."""
    import torch  # noqa: PLC0415 - seconds

    if not torch.cuda.is_available():
        return "not measured: torch finds no CUDA device"
    gpu = torch.cuda.get_device_name(0)
    file = to / f"latency-{re.sub(r'[^A-Za-z0-9]+', '-', gpu).strip('-')}.json"
    kept = sealed(file) or {}
    entries = list(kept["layers"]) if kept.get("torch") == torch.__version__ else []  # other kernels, other times
    known, refused = {_shape(entry) for entry in entries}, []
    for shape in wanted:
        if shape not in known:
            try:
                entries += _measured(shape)
            except RuntimeError as error:
                refused.append(f"{shape[0]} x {shape[1]} {shape[2]}: {first_line(error)}")
    entries = sorted(entries, key=lambda entry: (*_shape(entry), entry["tokens"]))
    if (found := {"gpu": gpu, "torch": torch.__version__, "layers": entries}) != kept:
        seal(file, found)
    return "not measured: " * bool(refused) + "; ".join(refused)


def _measured(shape: Shape) -> list[dict[str, Any]]:
    """An entry for each of `TOKENS`, by the first backend that takes the shape; RuntimeError with every reason."""
    import torch  # noqa: PLC0415
    from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS  # noqa: PLC0415

    rows, columns, kind = shape
    draw = torch.Generator("cuda:0").manual_seed(0)
    new = lambda *size: torch.randn(*size, generator=draw, device="cuda:0").to(getattr(torch, kind))
    weight, inputs = _two_of_four(new(rows, columns)), [new(tokens, columns) for tokens in TOKENS]
    reasons = []
    for name, packed in (
        ("cuSPARSELt", SparseSemiStructuredTensorCUSPARSELT),  # what to_sparse_semi_structured takes by itself
        ("CUTLASS", SparseSemiStructuredTensorCUTLASS),
    ):
        try:
            with torch.inference_mode(), warnings.catch_warnings(action="ignore"):  # it says that it is a prototype
                sparse = packed.from_dense(weight)
                times = [_compared(weight, sparse, states) for states in inputs]
        except RuntimeError as error:
            reasons.append(f"{name}: {first_line(error)}")
        else:
            return [{"out": rows, "in": columns, "dtype": kind, "backend": name, **each} for each in times]
    raise RuntimeError("; ".join(reasons))


def _two_of_four(weight: Any) -> Any:
    """The matrix with the two smaller weights of every four set to 0."""
    groups = weight.reshape(-1, 4)
    return groups.scatter(1, groups.abs().argsort(1)[:, :2], 0.0).reshape(weight.shape)


def _compared(weight: Any, sparse: Any, states: Any) -> dict[str, Any]:
    from torch.nn.functional import linear  # noqa: PLC0415

    exact, found = linear(states, weight).float(), linear(states, sparse).float()
    error = ((found - exact).abs().max() / exact.abs().max()).item()
    dense, packed = (_microseconds(lambda which=which: linear(states, which)) for which in (weight, sparse))
    return {"tokens": states.shape[0], "dense": dense, "packed": packed, "error": error}


def _microseconds(call: Callable[[], Any]) -> float:
    """The median time between two events around a call. The weights come from memory, as in a model of many layers."""
    import torch  # noqa: PLC0415

    cache = torch.empty(CACHE, dtype=torch.int8, device="cuda:0")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(WARM_UP + CALLS)]
    for start, end in events:
        cache.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return 1000 * median(start.elapsed_time(end) for start, end in events[WARM_UP:])


def _shape(entry: dict[str, Any]) -> Shape:
    return entry["out"], entry["in"], entry["dtype"]


def _cells(kept: dict[str, Any], entry: dict[str, Any]) -> list[str]:
    what = [kept["gpu"], kept["torch"], entry["dtype"], f"{entry['out']} x {entry['in']}", str(entry["tokens"])]
    times = [f"{entry['dense']:.1f}", f"{entry['packed']:.1f}", f"{entry['dense'] / entry['packed']:.2f}"]
    return [*what, *times, f"{entry['error']:.1e}", entry["backend"]]
