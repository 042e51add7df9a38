"""How fast this machine is, measured in at most five seconds: matrix products, memory, small calls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch

PATIENCE = 1.0  # seconds for each of the four
WIDTH, BYTES = 1024, 2**26


@dataclass(frozen=True)
class Speed:
    """rate, wide: floating-point operations per second in the model's dtype and in float32; bandwidth: bytes read and
    written per second; call: seconds that a small operation takes.
    """

    rate: float
    wide: float
    bandwidth: float
    call: float


def measure(device: str, dtype: torch.dtype, tries: int = 10) -> Speed:
    """The best of at most so many tries of each, on this device."""
    one, other = (torch.randn(WIDTH, WIDTH, device=device) for _ in range(2))
    best = partial(_best, device=device, tries=tries)
    half, rest = one.to(dtype), other.to(dtype)
    source = torch.zeros(BYTES, dtype=torch.uint8, device=device)
    target, small = torch.empty_like(source), torch.zeros(8, device=device)
    products = 2 * WIDTH**3
    wide = products / best(lambda: one @ other)
    rate = wide if dtype == torch.float32 else products / best(lambda: half @ rest)
    bandwidth = 2 * BYTES / best(lambda: target.copy_(source))
    call = best(lambda: [small.add_(1.0) for _ in range(100)]) / 100
    return Speed(rate, wide, bandwidth, call)


def _best(run: Callable[[], object], device: str, tries: int) -> float:
    """Seconds of the fastest of at most so many runs, after one that warms up."""
    start, best = perf_counter(), float("inf")
    for k in range(tries + 1):
        begin = perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        end = perf_counter()
        best = min(best, end - begin) if k else best
        if end - start > PATIENCE and k:
            break
    return best if best < float("inf") else end - begin
