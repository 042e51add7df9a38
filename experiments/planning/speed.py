"""How fast this machine is, measured in at most five seconds: matrix products, memory, small calls."""

from collections.abc import Callable
from dataclasses import dataclass
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


def measure(device: str, dtype: torch.dtype) -> Speed:
    """The best of a few tries of each, on this device."""
    one, other = (torch.randn(WIDTH, WIDTH, device=device) for _ in range(2))
    half, rest = one.to(dtype), other.to(dtype)
    source = torch.zeros(BYTES, dtype=torch.uint8, device=device)
    target, small = torch.empty_like(source), torch.zeros(8, device=device)
    products = 2 * WIDTH**3
    wide = products / _best(lambda: one @ other, device)
    rate = wide if dtype == torch.float32 else products / _best(lambda: half @ rest, device)
    bandwidth = 2 * BYTES / _best(lambda: target.copy_(source), device)
    call = _best(lambda: [small.add_(1.0) for _ in range(100)], device) / 100
    return Speed(rate, wide, bandwidth, call)


def _best(run: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of at most ten runs, after one that warms up."""
    start, best = perf_counter(), float("inf")
    for k in range(11):
        begin = perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        end = perf_counter()
        best = min(best, end - begin) if k else best
        if end - start > PATIENCE and k:
            break
    return best if best < float("inf") else end - begin
