"""How fast this machine is, measured in at most four seconds: matrix products and memory."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from time import perf_counter

import torch

from prune.precision import as_fine_as

PATIENCE, TRIES = 1.0, 10  # seconds and tries for each of the four at most
WIDTH, BYTES = {"cpu": 1024, "cuda": 8192}, {"cpu": 2**26, "cuda": 2**30}  # a GPU is full and its cache too small


@dataclass(frozen=True)
class Speed:
    """rate, wide: floating-point operations per second in the model's dtype and in float32; running: in float32 as
    blocks are run by methods (prune.precision); summing: of inputs in the model's dtype into float32 (Gram.add);
    bandwidth: bytes read and written per second.
    """

    rate: float
    wide: float
    running: float
    summing: float
    bandwidth: float


def measure(device: str, dtype: torch.dtype) -> Speed:
    """The best of some tries of each, on this device."""
    kind = torch.device(device).type
    width, size = WIDTH[kind], BYTES[kind]
    one, other = (torch.randn(width, width, device=device) for _ in range(2))
    best = partial(_best, device=device)
    half, rest = one.to(dtype), other.to(dtype)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    products = 2 * width**3
    wide = products / best(lambda: one @ other)
    rate = wide if dtype == torch.float32 else products / best(lambda: half @ rest)
    with as_fine_as([half], one.device):
        running = wide if kind == "cpu" or dtype == torch.float32 else products / best(lambda: one @ other)
    bandwidth = 2 * size / best(lambda: target.copy_(source))
    return Speed(rate, wide, running, wide if kind == "cpu" else rate, bandwidth)


def faster(one: Speed, other: Speed) -> Speed:
    """The better of each of two measurements; machines are shared, and a floor takes them at their best."""
    return Speed(*map(max, astuple(one), astuple(other)))


def _best(run: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some runs, after one that warms up."""
    start, best = perf_counter(), float("inf")
    for k in range(TRIES + 1):
        begin = perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        end = perf_counter()
        best = min(best, end - begin) if k else best
        if end - start > PATIENCE and k:
            break
    return best if best < float("inf") else end - begin
