"""How long the 2:4 matrices of runs take on the present GPU beside dense ones."""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS

from experiments.console.errors import first_line
from experiments.console.grid import grid
from experiments.files.disk import replacing
from experiments.reporting import sizes
from experiments.runs.record import Record, read

METHOD = (
    "Median of 100 calls of torch.nn.functional.linear from Python, by CUDA events, after 10 that do not count; between"
    " two calls the GPU's cache is overwritten. Random weights of the runs' shapes, no bias. The error"
    " is the largest difference to the dense product of the same 2:4 weights, relative to its largest value."
)
HEADER = ("dtype", "out x in", "backend", "tokens", "dense (us)", "2:4 (us)", "dense / 2:4", "max error")
TOKENS = (1, 16, 2048)  # rows of the input: one sequence, a small batch, a prompt
CALLS, WARM_UP = 100, 10
CACHE = 2**29  # bytes: more than any GPU's last cache, and long enough to write that the next call is queued meanwhile
BACKENDS = {
    "cuSPARSELt": SparseSemiStructuredTensorCUSPARSELT,  # what to_sparse_semi_structured takes by itself
    "CUTLASS": SparseSemiStructuredTensorCUTLASS,
}
Shape = tuple[int, int, str]  # out, in, dtype


def measure(outputs: Sequence[Path], to: Path) -> str:
    """The table of the matrix shapes of all 2:4 runs below these folders, also written to <to>/latency-<gpu>.md.

    ValueError where there is no such run, or no GPU.
    """
    wanted = shapes(read(outputs))
    if not wanted:
        raise ValueError(f"no finished run in {', '.join(map(str, outputs))} has the pattern 2:4: nothing to time")
    if not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device: 2:4 layers are timed on a GPU alone")
    body, refused = [], []
    for shape in wanted:
        try:
            body += timed(shape)
        except RuntimeError as error:
            refused.append(f"not measured: {shape[0]} x {shape[1]} {shape[2]}: {first_line(error)}")
    gpu = torch.cuda.get_device_name(0)
    parts = [f"# {gpu}, torch {torch.__version__}", grid(HEADER, body, "lllr"), METHOD, *refused]
    file = to / f"latency-{re.sub(r'[^A-Za-z0-9]+', '-', gpu).strip('-')}.md"
    with replacing(file) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return "\n\n".join([*parts, f"wrote {file}"])


def shapes(records: Iterable[Record]) -> list[Shape]:
    """The distinct matrices of the finished 2:4 runs; float16 stands for a dtype that torch has no 2:4 kernel for."""
    known = set()
    for record in records:
        pattern = record.manifest.get("config", {}).get("pattern") or {}
        if record.status == "done" and (pattern.get("n"), pattern.get("m")) == (2, 4):
            kind = "bfloat16" if sizes.dtype(record) == "bfloat16" else "float16"
            known |= {(*layer["shape"], kind) for layer in record.results.get("layers", [])}
    return sorted(known)


def timed(shape: Shape) -> list[list[str]]:
    """A row for each of `TOKENS`, by the first backend that takes the shape; RuntimeError with every reason."""
    rows, columns, kind = shape
    draw = torch.Generator("cuda:0").manual_seed(0)
    new = lambda *size: torch.randn(*size, generator=draw, device="cuda:0").to(getattr(torch, kind))
    weight, inputs = two_of_four(new(rows, columns)), [new(tokens, columns) for tokens in TOKENS]
    reasons = []
    for name, packed in BACKENDS.items():
        try:
            with torch.inference_mode(), warnings.catch_warnings(action="ignore"):  # it says that it is a prototype
                sparse = packed.from_dense(weight)
                return [[kind, f"{rows} x {columns}", name, *_compared(weight, sparse, states)] for states in inputs]
        except RuntimeError as error:
            reasons.append(f"{name}: {first_line(error)}")
    raise RuntimeError("; ".join(reasons))


def two_of_four(weight: Tensor) -> Tensor:
    """The matrix with the two smaller weights of every four set to 0."""
    groups = weight.reshape(-1, 4)
    return groups.scatter(1, groups.abs().argsort(1)[:, :2], 0.0).reshape(weight.shape)


def _compared(weight: Tensor, sparse: Tensor, states: Tensor) -> list[str]:
    """Tokens, microseconds of both products, how many times faster 2:4 is, and how far its product is off."""
    exact, product = linear(states, weight).float(), linear(states, sparse).float()
    error = ((product - exact).abs().max() / exact.abs().max()).item()
    dense, packed = (_microseconds(lambda matrix=matrix: linear(states, matrix)) for matrix in (weight, sparse))
    return [str(len(states)), f"{dense:.1f}", f"{packed:.1f}", f"{dense / packed:.2f}", f"{error:.1e}"]


def _microseconds(call: Callable[[], Tensor]) -> float:
    """The median time between two events around a call. The weights come from memory, as in a model of many layers."""
    cache = torch.empty(CACHE, dtype=torch.int8, device="cuda:0")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(WARM_UP + CALLS)]
    for start, end in events:
        cache.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return 1000 * median(start.elapsed_time(end) for start, end in events[WARM_UP:])
