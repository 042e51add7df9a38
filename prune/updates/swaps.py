"""Swap a kept weight of each row for a pruned one as long as that lowers the row's squared output error.

SparseSwaps (2025, arXiv 2512.10922). With H = X'X, e the pruned weights of a row and c = H e, keeping p in place of u
changes e'He by 2 w_u c_u + w_u^2 H_uu - 2 w_p c_p + w_p^2 H_pp - 2 w_u w_p H_up.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram

PAIRS = 2**22  # that are weighed at once
NOISE = 16  # roundings of its terms by which a change has to be below 0


@dataclass(frozen=True)
class Swaps(Update):
    """Starts from the given mask (Linear.given) or the metric's; weights stay dense, counts per row stay, and so do
    those of every group for n:m. The best pair of a row is swapped first; at most `cycles` of them.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    refits: ClassVar[bool] = False
    cycles: int = 100

    def __post_init__(self) -> None:
        if self.cycles < 0:
            raise ValueError(f"swaps: expected cycles >= 0, found {self}")

    def linear(self, linear: Linear) -> Pruned:
        """Dense values on the mended mask; notes count its swaps ("swapped")."""
        width = linear.pattern.width if linear.pattern.width > 1 else linear.weight.shape[1]
        mask, swapped = self.mend(linear.select(), linear.weight, linear.stats[Gram()], width)
        return Pruned(linear.weight.masked_fill(~mask, 0.0), mask, notes={"swapped": swapped})

    def mend(
        self, mask: Bool[Tensor, "o i"], weight: Float[Tensor, "o i"], gram: Float[Tensor, "i i"], width: int
    ) -> tuple[Bool[Tensor, "o i"], int]:
        """The mask when no row gains by another swap inside its groups of `width`, and how many were made."""
        mask, swapped = mask.clone(), 0
        kept = mask.unflatten(1, (-1, width)).sum(2)
        most = int(kept.max()), width - int(kept.min())  # kept and pruned in a group, which no swap changes
        lost = weight.masked_fill(mask, 0.0) @ gram
        going = torch.arange(len(weight), device=weight.device)
        size = max(PAIRS // max(kept.shape[1] * most[0] * most[1], 1), 1)
        for _ in range(self.cycles if min(most) else 0):
            found = [best(mask[rows], weight[rows], lost[rows], gram, width, most) for rows in going.split(size)]
            gains, drop, grow = (torch.cat(each) for each in zip(*found, strict=True))
            going, drop, grow = going[gains], drop[gains], grow[gains]
            if not len(going):
                break
            mask[going, drop], mask[going, grow] = False, True
            lost[going] += weight[going, drop, None] * gram[drop] - weight[going, grow, None] * gram[grow]
            swapped += len(going)
        return mask, swapped


def best(
    mask: Bool[Tensor, "r i"],
    weight: Float[Tensor, "r i"],
    lost: Float[Tensor, "r i"],
    gram: Float[Tensor, "i i"],
    width: int,
    most: tuple[int, int],
) -> tuple[Bool[Tensor, "r"], Int[Tensor, "r"], Int[Tensor, "r"]]:
    """Whether a swap lowers the error of a row, and the kept and the pruned column of the one that lowers it most.

    Of each group of `width` the kept columns [r g k] are paired with the pruned ones [r g p]; `most` are k and p.
    """
    own, shared = weight.square() * gram.diagonal(), 2 * weight * lost
    order = mask.unflatten(1, (-1, width)).byte().argsort(dim=2, descending=True, stable=True)
    order += torch.arange(0, mask.shape[1], width, device=mask.device)[:, None]
    kept, pruned = order[..., : most[0]], order[..., width - most[1] :]  # where a group has fewer: infinite
    of = lambda values, columns: values.gather(1, columns.flatten(1)).view(columns.shape)
    change = gram[kept[..., None], pruned[..., None, :]].mul_(-2 * of(weight, kept)[..., None])
    change.mul_(of(weight, pruned)[..., None, :])
    change.add_(of((own + shared).masked_fill(~mask, torch.inf), kept)[..., None])
    change.add_(of((own - shared).masked_fill(mask, torch.inf), pruned)[..., None, :])
    least, pair = change.flatten(1).min(1, keepdim=True)
    drop = kept.flatten(1).gather(1, pair // most[1])
    grow = pruned.flatten(1).gather(1, pair // (most[0] * most[1]) * most[1] + pair % most[1])
    noise = NOISE * torch.finfo(weight.dtype).eps * sum(of(own + shared.abs(), each) for each in (drop, grow))
    return (least < -noise)[:, 0], drop[:, 0], grow[:, 0]
