"""Solve layers for the dense model's output instead of that of the dense weights on the pruned stream.

min over W' of ||W Xd - W' X||^2, X the stream as it is and Xd the dense model's, is the old problem with W replaced by
T = W (I + alpha D H^-1), D = (Xd - X) X', H = X X'. For quantisation: GPTAQ (Li et al., 2025, ICML), at alpha 0.25.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from prune.method import Linear
from prune.statistic import Component, Statistic
from prune.statistics.inputs import Drift, Gram, InverseFactor


@dataclass(frozen=True)
class Correction(Component):
    """alpha: from 0, the dense weights, to 1, the least squares; damping of H, relative to its mean diagonal.

    ValueError for an alpha outside 0..1.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(), Drift())
    alpha: float
    damping: float = 0.01
    reference: Literal["pruned", "dense"] | None = "dense"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"correction: expected a share from 0 to 1, found {self.alpha}")

    def __call__(self, linear: Linear) -> Linear:
        """The same with T in place of the dense weight, for whatever solves it."""
        if not linear.stats.tokens:
            return linear
        upper = linear.stats[InverseFactor(self.damping)].upper
        moved = (linear.weight @ linear.stats[Drift()]) @ upper.T @ upper
        return replace(linear, weight=linear.weight.add(moved, alpha=self.alpha))
