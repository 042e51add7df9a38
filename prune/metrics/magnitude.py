"""|W|: keep the large weights (Han et al., 2015, arXiv 1506.02626)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Stats


@dataclass(frozen=True)
class Magnitude(Metric):
    """Needs no calibration data: a run with it makes no pass over them."""

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij|."""
        return weight[:, columns].abs()
