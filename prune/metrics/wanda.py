"""|W| ||X||: keep the weights that carry large inputs (Sun et al., 2023, arXiv 2306.11695)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.inputs import Squares


@dataclass(frozen=True)
class Wanda(Metric):
    """A feature that is zero on every token gives the score 0: its weights go first."""

    needs: ClassVar[tuple[Statistic, ...]] = (Squares(),)

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij| sqrt(m_j), m_j the mean over sequences of sum_t x_tj^2."""
        return weight[:, columns].abs() * stats[Squares()][columns].sqrt()
