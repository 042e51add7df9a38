"""Random scores: every mask of the pattern is as likely as any other, the baseline that a method must beat."""

import zlib
from dataclasses import dataclass

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
        key = zlib.crc32(f"{self.seed} {stats.name}".encode())  # 32 bits: the generator ignores higher ones
        generator = torch.Generator().manual_seed(key)
        return torch.rand(weight.shape, generator=generator)[:, columns].to(weight.device)
