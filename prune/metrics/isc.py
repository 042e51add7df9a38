"""W^2 (H_mm + 1 / [H^-1]_mm): the saliencies of OBD and OBS added up (Shao et al., 2024, arXiv 2310.09499, eq. 4)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from prune.method import ALL, Metric
from prune.statistic import Statistic, Stats
from prune.statistics.inputs import Gram, InverseFactor

# Released H = 2 X'X per sequence, twice our Gram matrix. It matters to `factor`, whose two terms differ in unit.
SCALE = 2.0
SECOND = ("factor", "inverse", "sequential")


@dataclass(frozen=True)
class ISC(Metric):
    """H is the damped Hessian 2 X'X, a mean over sequences; `damping` is relative to its mean diagonal.

    `second_term`, with H^-1 = U'U: factor 1 / U_mm (released code), inverse 1 / [H^-1]_mm (eq. 4), or
    sequential 1 / U_mm^2, the cost of a removal that later columns alone make up for (SparseGPT's own).
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    second_term: str = "factor"
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.second_term not in SECOND or self.damping < 0:
            raise ValueError(f"isc: expected second_term of {', '.join(SECOND)} and damping >= 0, found {self}")

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """Equation 4 on the weights as they are now; 0 for a feature that is zero on every token."""
        factor = stats[InverseFactor(self.damping)]
        diagonal = stats[Gram()].diagonal()
        level = diagonal.sum() / (~factor.dead).sum()
        first = SCALE * (diagonal + self.damping * 10**factor.raises * level)  # H_mm as it was factorised
        cost = (first + self._second(factor.upper)).masked_fill(factor.dead, 0.0)
        return weight[:, columns].square() * cost[columns]

    def _second(self, upper: Float[Tensor, "i i"]) -> Float[Tensor, "i"]:
        if self.second_term == "inverse":
            return SCALE / upper.square().sum(0)  # H = 2 X'X makes U smaller by the root of 2
        return (SCALE**0.5 / upper.diagonal()).pow(2 if self.second_term == "sequential" else 1)
