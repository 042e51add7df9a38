"""Swap weights of each row until its expected output is the dense one (DSnoT, Zhang et al., 2024, arXiv 2310.08915).

c_ij = W_ij x (sum of x_j over a sequence, on average) is what a weight is expected to contribute; the error of a row is
e_i = sum of c_ij over its pruned weights. The best c_ij / var(x_j) regrows for the least |W_ij| ||x_j|| that helps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.moments import Moments, variance


@dataclass(frozen=True)
class DSnoT(Update):
    """Starts from the given mask (run key `given`) or the metric's; weights stay dense, counts per row stay.

    cycles: swaps per row at most. threshold: a row with |e| at or below it is left alone; e is a sum over the tokens of
    a sequence, as released, so longer windows want a larger one.
    skip: matrices with this in their name keep their start mask (noted as "skipped"); released: mlp. Null skips none.
    accept: `improving` ends a row at the first swap that does not lower |e|. `released` takes every swap while |e|
    exceeds the threshold; for n:m it drops a group's least weight whether that helps or not, until e would change sign.
    A weight is swapped once at most. The variance is that of all tokens; released: inside a sequence, on average.
    Sound on wide rows: 50 swaps are most of a row of 64. ValueError for fields out of range.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Moments(),)
    refits: ClassVar[bool] = False
    cycles: int = 50
    threshold: float = 0.1
    skip: str | None = "mlp"
    accept: str = "released"

    def __post_init__(self) -> None:
        if self.cycles < 0 or not self.threshold >= 0:
            raise ValueError(f"dsnot: expected cycles >= 0 and threshold >= 0, found {self}")
        if self.accept not in ("released", "improving"):
            raise ValueError(f"dsnot: expected accept released | improving, found {self.accept!r}")

    def linear(self, linear: Linear) -> Pruned:
        """Dense values on the refined mask; notes count its regrown weights ("swapped")."""
        mask = linear.select()
        if self.skip and self.skip in linear.name:
            return Pruned(linear.weight.masked_fill(~mask, 0.0), mask, notes={"skipped": 1})
        moments = linear.stats[Moments()]
        expected = linear.weight * moments[1]
        importance = linear.weight.abs() * moments[2].sqrt()
        spread = variance(moments)
        growth = expected / spread.clamp(min=torch.finfo(spread.dtype).tiny)  # a constant input regrows first
        refined = self.refine(mask, expected, growth, importance, linear.pattern.width)
        swapped = int((refined & ~mask).count_nonzero())
        return Pruned(linear.weight.masked_fill(~refined, 0.0), refined, notes={"swapped": swapped})

    def refine(
        self,
        mask: Bool[Tensor, "o i"],
        expected: Float[Tensor, "o i"],
        growth: Float[Tensor, "o i"],
        importance: Float[Tensor, "o i"],
        width: int = 1,
    ) -> Bool[Tensor, "o i"]:
        """The mask after at most `cycles` swaps in every row, all rows at once; `width` is m for n:m.

        A row ends where no swap is left: the grown weight must lower |e|, its partner, in its group of m, too.
        """
        loose = self.accept == "released" and width > 1
        grown, dropped = torch.zeros_like(mask), torch.zeros_like(mask)
        error = expected.masked_fill(mask, 0.0).sum(1)
        going = torch.ones_like(error, dtype=torch.bool)
        for _ in range(self.cycles):
            helps = expected * error.sign()[:, None]  # > 0: |e| falls when it is kept; < 0: when it is not
            droppable = mask & ~dropped & ((helps < 0) | loose)
            growable = ~mask & ~grown & (helps > 0) & in_group(droppable, width)
            grow = (growth * error.sign()[:, None]).masked_fill(~growable, -torch.inf).argmax(1, keepdim=True)
            droppable &= same_group(grow, mask.shape[1], width)
            drop = importance.masked_fill(~droppable, torch.inf).argmin(1, keepdim=True)
            after = error + (expected.gather(1, drop) - expected.gather(1, grow))[:, 0]
            possible = growable.gather(1, grow)[:, 0] & (error.abs() > self.threshold)
            going &= possible & self._accepted(error, after, width)
            if not going.any():
                break
            grown.scatter_(1, grow, going[:, None] | grown.gather(1, grow))
            dropped.scatter_(1, drop, going[:, None] | dropped.gather(1, drop))
            error = torch.where(going, after, error)
        return (mask | grown) & ~dropped

    def _accepted(self, error: Float[Tensor, "o"], after: Float[Tensor, "o"], width: int) -> Bool[Tensor, "o"]:
        if self.accept == "improving":
            return after.abs() < error.abs()
        return (error.sign() == after.sign()) | (width == 1)


def in_group(chosen: Bool[Tensor, "o i"], width: int) -> Bool[Tensor, "o i"]:
    """Whether a weight's group of `width` (1: its row) has any of these."""
    size = width if width > 1 else chosen.shape[1]
    groups = chosen.unflatten(1, (-1, size))
    return groups.any(-1, keepdim=True).expand(groups.shape).flatten(1)


def same_group(index: Int[Tensor, "o 1"], columns: int, width: int) -> Bool[Tensor, "o c"]:
    """Which columns are in the group of `width` (1: the row) that holds this one."""
    size = width if width > 1 else columns
    return torch.arange(columns, device=index.device) // size == index // size
