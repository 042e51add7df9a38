"""|W| ||X|| + alpha |W| ||G||: Wanda and a gradient of the whole model's loss (Das et al., 2023, arXiv 2311.04902)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.gradient import LossGradient, Target
from prune.statistics.inputs import Squares


@dataclass(frozen=True)
class GBLM(Metric):
    """`order` of the norm over samples: 1 is the paper's headline row, 2 its other one; 0 sums with signs.

    `target` of the loss: label | argmax | sampled, see LossGradient; the paper does not say which its images had.
    The inputs are those of the model pruned so far, the gradients those of the dense model, as released.
    """

    alpha: float = 100.0
    order: int = 1
    target: Target = "label"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"gblm: expected a finite alpha of at least 0, found {self.alpha}")
        LossGradient(self.order, self.target)  # refuses others

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """Both terms."""
        return (Squares(), LossGradient(self.order, self.target))

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """|W_ij| sqrt(m_j) + alpha |W_ij| G_ij: m_j as in Wanda, G_ij the norm of g_ij over 128 samples."""
        size, gradient = weight[:, columns].abs(), LossGradient(self.order, self.target)
        slope = gradient.norm(stats[gradient][:, columns], stats.name)
        return size * stats[Squares()][columns].sqrt() + size * (self.alpha * slope)
