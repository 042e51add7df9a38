"""How far a weight is from the mean of its row: an example of a metric in a package of its own."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Stats


@dataclass(frozen=True)
class Centred(Metric):
    """`share` of the row's mean is taken off first: 0 is magnitude."""

    share: float = 1.0

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij - share * mean_j W_ij|, computed of whole rows before the columns are taken."""
        return (weight - self.share * weight.mean(1, keepdim=True)).abs()[:, columns]
