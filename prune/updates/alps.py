"""Alternate between mask and weights under a penalty that grows until the mask stays; then solve on that mask.

ALPS: ADMM for min |(A - W) X|^2 over masked A, and conjugate gradients (Meng et al., 2024, arXiv 2406.07831).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram
from prune.statistics.scaled import Spectral, Spectrum

GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # if a larger share of the mask changed than this, the penalty grows so
STIFF = 0.005  # until more than this share changes at once, the penalty was too large to leave the first mask
RETREAT = 5.0  # and is divided by this
LEAST, MOST = 1e-6, 1e6  # of the penalty


@dataclass(frozen=True)
class ALPS(Update):
    """At most `iterations` of ADMM; at every `check_every`-th the penalty follows how much of the mask has changed, and
    an unchanged mask ends it. `refit` steps of conjugate gradients on that mask come last.

    `damping` is added to the diagonal of H, relative to its mean; `penalty` is the first rho. The metric chooses the
    masks, on the current weights: with wanda as in the paper, whose column norms contain the damping, though.
    With given masks (Linear.given) only the last stage is left. ValueError for fields out of range.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    iterations: int = 300
    check_every: int = 3
    refit: int = 10
    damping: float = 0.01
    penalty: float = 0.1

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.check_every < 1 or self.refit < 0:
            raise ValueError(f"alps: expected iterations and check_every >= 1 and refit >= 0, found {self}")
        if not (self.damping > 0 and LEAST <= self.penalty <= MOST):
            raise ValueError(f"alps: expected damping > 0 and penalty from {LEAST:g} to {MOST:g}, found {self}")

    def linear(self, linear: Linear) -> Pruned:
        """In scaled weights (prune.statistics.scaled), in which the penalty is the same for all."""
        spectral = linear.stats[Spectrum(self.damping)]
        problem = spectral.problem
        dense = linear.weight * problem.norm
        if linear.given is None:
            mask, start, settled = self.alternate(linear, dense, spectral)
        else:
            mask, start, settled = linear.select(), linear.given.weight * problem.norm, True
        found, _ = problem.solve(dense, mask, start, torch.finfo(dense.dtype).eps, self.refit)
        weight = (found / problem.norm).masked_fill_(~mask, 0.0)
        return Pruned(weight, mask, notes={} if settled else {"unsettled_masks": 1})

    def alternate(
        self, linear: Linear, dense: Float[Tensor, "o i"], spectral: Spectral
    ) -> tuple[Bool[Tensor, "o i"], Float[Tensor, "o i"], bool]:
        """Mask, scaled weights that are 0 off it, and whether the mask had come to stay."""
        norm, penalty, loose = spectral.problem.norm, self.penalty, False
        old = first = linear.select(linear.weight)
        target, dual = dense * first, torch.zeros_like(dense)
        for step in range(1, self.iterations + 1):
            pull = (target - dense).mul_(penalty).sub_(dual)
            total = spectral.towards(dense, pull, penalty).add_(dual, alpha=1 / penalty)
            mask = linear.select(total / norm)
            target = total * mask
            dual = total.sub_(target).mul_(penalty)  # 0 where the mask keeps
            if step % self.check_every == 0:
                moved = int((mask ^ old).count_nonzero()) / max(int(mask.count_nonzero()), 1)
                loose = loose or moved > STIFF
                if moved == 0 and (loose or penalty == LEAST):
                    return mask, target, True
                if loose:
                    penalty, old = min(penalty * next(by for share, by in GROWTH if moved > share), MOST), mask
                else:
                    penalty, old = max(penalty / RETREAT, LEAST), first
                    target, dual = dense * first, torch.zeros_like(dense)
        return mask, target, False
