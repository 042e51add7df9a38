"""|W| ||G||: how much the loss would change, to first order (the gradient rows of GBLM, arXiv 2311.04902)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.gradient import LossGradient


@dataclass(frozen=True)
class Gradient(Metric):
    """`order` of the norm over sequences: 1, 2, or 0 for the sum with signs, where opposite gradients cancel."""

    order: int = 1

    def __post_init__(self) -> None:
        LossGradient(self.order)  # refuses other orders

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """The gradient in that order."""
        return (LossGradient(self.order),)

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij| G_ij, G_ij the norm of g_ij over 128 sequences."""
        gradient = LossGradient(self.order)
        return weight[:, columns].abs() * gradient.norm(stats[gradient][:, columns], stats.name)
