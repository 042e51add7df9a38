"""Random scores: every mask of the pattern is as likely as any other, the baseline that a method must beat."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Stats


@dataclass(frozen=True)
class Random(Metric):
    """Needs no calibration data. The scores depend on `seed` and on the matrix's name and shape only."""

    seed: int = 0

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """Uniform in [0, 1), drawn on the CPU for the whole matrix, so that devices and slices agree."""
        return draw(f"{self.seed} {stats.name}", weight.shape)[:, columns].to(weight.device)


@lru_cache(maxsize=1)  # updates ask slice by slice
def draw(key: str, shape: tuple[int, int]) -> Float[Tensor, "o i"]:
    """Uniform in [0, 1), the same for the same key."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))  # it ignores all but 32 bits
    return torch.rand(shape, generator=generator)
