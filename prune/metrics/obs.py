"""W^2 / u^2: the error each removal would cause after compensation (Frantar & Alistarh, 2023, arXiv 2301.00774)."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.inputs import Gram, InverseFactor


@dataclass(frozen=True)
class OBS(Metric):
    """u_j is the diagonal of the inverse Hessian's factor; `damping` is relative to the Hessian's mean diagonal."""

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    damping: float = 0.01

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """w_ij^2 / u_j^2; 0 for a feature that is zero on every token, so that its weights go first."""
        factor = stats[InverseFactor(self.damping)]
        return (weight[:, columns] / factor.upper.diagonal().masked_fill(factor.dead, inf)[columns]).square()
