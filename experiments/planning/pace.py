"""How fast this machine is at what a run does: measured in about a second, and as if nothing else ran on it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from statistics import median
from time import perf_counter, process_time

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from prune.precision import as_fine_as

PATIENCE = 0.15  # seconds for each measurement
MOST = {"cpu": 2 * 10**9, "cuda": 2 * 10**12}  # operations that are measured at once
LARGEST = 2**24  # numbers of a tensor that is measured with
CALLS = 1000  # of a small module
HEAD = 64  # width of the head that attention is measured with


@dataclass(frozen=True)
class Pace:
    """What is done in a second: floating-point operations of matrix products in the model's dtype (`rate`), in float32
    (`wide`), in float32 as blocks are run by methods (`running`) and of inputs into float32 (`summing`), and of
    attention that keeps no scores; bytes that other operations read and write (`traffic`); calls of small modules.
    """

    rate: float
    wide: float
    running: float
    summing: float
    attention: float
    traffic: float
    calls: float


@cache
def pace(shapes: tuple[tuple[int, int], ...], sequences: int, length: int, dtype: torch.dtype, device: str) -> Pace:
    """This device's, with the threads that torch has now, for matrices [o, i] of these shapes and so many tokens.

    Medians, for a run is as seldom undisturbed by its own doings as the median is.
    """
    kind, tokens = torch.device(device).type, sequences * length
    products = lambda dtype: _products(shapes, tokens, dtype, device)
    wide = products(torch.float32)
    rate = wide if dtype == torch.float32 else products(dtype)
    with as_fine_as([torch.empty(0, dtype=dtype)], torch.device(device)):
        running = wide if kind == "cpu" or dtype == torch.float32 else products(torch.float32)
    width = max(i for _, i in shapes)
    state = torch.rand(max(min(tokens, LARGEST // width), 1), width, device=device).to(dtype)
    traffic = 5 * state.nbytes / _median([lambda: silu(state) * state], device)
    heads = max(min(MOST[kind] // (4 * length**2 * HEAD), 64), 1)
    q = torch.rand(1, heads, length, HEAD, device=device).to(dtype)
    attend = lambda: scaled_dot_product_attention(q, q, q, is_causal=True)
    attention = 4 * q.numel() * length / _median([attend], device)
    small = torch.nn.Linear(8, 8, device=device)
    calls = CALLS / _median([lambda: small(small.weight)] * CALLS, device)
    return Pace(rate, wide, running, wide if kind == "cpu" else rate, attention, traffic, calls)


def _products(shapes: Iterable[tuple[int, int]], tokens: int, dtype: torch.dtype, device: str) -> float:
    """Operations in a second, over all shapes together."""
    calls, operations = [], 0
    for o, i in shapes:
        outputs = min(o, max(LARGEST // i, 1))
        rows = max(min(tokens, MOST[torch.device(device).type] // (2 * outputs * i)), 1)
        x, weight = (torch.rand(n, i, device=device).to(dtype) for n in (rows, outputs))
        calls.append(lambda x=x, weight=weight: linear(x, weight))
        operations += 2 * rows * outputs * i
    return operations / _median(calls, device)


@torch.no_grad()
def _median(calls: list[Callable[[], object]], device: str) -> float:
    """Seconds of all of these calls, one after the other, once they are warm."""
    times: list[float] = []
    while sum(times) < PATIENCE or len(times) < 3:
        times.append(alone(lambda: [call() for call in calls], device))
    return median(times[1:])


def alone(run: Callable[[], object], device: str) -> float:
    """Seconds that a call takes with nothing else running on the machine, or a little more; on a GPU until it is done.

    On a CPU the lesser of the time that passes and of what all threads together compute: neither is less than that, the
    first is it on an idle machine, and the second with a single thread, whoever else computes.
    """
    start, computed = perf_counter(), process_time()
    run()
    if device != "cpu":
        torch.cuda.synchronize(device)
    passed = perf_counter() - start
    return passed if device != "cpu" else min(passed, process_time() - computed)
