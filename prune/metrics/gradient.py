"""|W| ||G||: how much the loss would change, to first order (the gradient rows of GBLM, arXiv 2311.04902)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.gradient import LossGradient, Target


@dataclass(frozen=True)
class Gradient(Metric):
    """`order` of the norm over samples: 1, 2, or 0 for the sum with signs, where opposite gradients cancel.

    `target` of the loss: label | argmax | sampled, see LossGradient.
    """

    order: int = 1
    target: Target = "label"

    def __post_init__(self) -> None:
        LossGradient(self.order, self.target)  # refuses others

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """The gradient in that order."""
        return (LossGradient(self.order, self.target),)

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij| G_ij, G_ij the norm of g_ij over 128 samples."""
        gradient = LossGradient(self.order, self.target)
        return weight[:, columns].abs() * gradient.norm(stats[gradient][:, columns], stats.name)
