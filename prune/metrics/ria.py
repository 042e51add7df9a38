"""|W| relative to its row and its column, times a power of the input norm: RIA (Zhang et al., ICLR 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.inputs import Squares


@dataclass(frozen=True)
class RIA(Metric):
    """A weight counts by its share of its row and its column in the current weight; `power` is the exponent a."""

    needs: ClassVar[tuple[Statistic, ...]] = (Squares(),)
    power: float = 0.5

    def __post_init__(self) -> None:
        if not self.power >= 0:
            raise ValueError(f"ria: expected power >= 0, found {self.power}")

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """(|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) sqrt(m_j)^a; 0 where a whole row or column is 0."""
        size = weight.abs()
        tiny = torch.finfo(size.dtype).tiny
        by_column = size.sum(0).clamp(min=tiny)[columns]
        by_row = size.sum(1, keepdim=True).clamp(min=tiny)
        size = size[:, columns]
        return (size / by_column + size / by_row) * stats[Squares()][columns].sqrt().pow(self.power)
