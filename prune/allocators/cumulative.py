"""Every row gives up the same share of its total score: the variant of Wanda (Sun et al., 2023, arXiv 2306.11695)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prune.budget import meet, part_of
from prune.lowest import lowest
from prune.method import Allocator, Linear, Unit
from prune.survey import Allotted, Survey


@dataclass(frozen=True)
class Cumulative(Allocator):
    """`sparsity` is the share removed from every matrix; rows with a few dominant scores lose more than others.

    Released code (`--use_variant`) bisects the share of the score in [0, 0.8] until the sparsity is within 0.001 of its
    target; here it is found exactly, so that sparsities beyond that interval are reached too.
    """

    per_row = True
    sparsity: float

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """Row sparsities [o] of each matrix, which as a whole keeps the target, up to the rounding of the model."""
        found = {}
        for name, linear in block.linears.items():
            target = part_of([linear.name], survey.sizes, self.sparsity)
            wanted = row_sparsities(linear, target)
            found[name] = meet({name: wanted}, {name: linear.weight.numel()}, target)[name]
        return found


def row_sparsities(linear: Linear, sparsity: float) -> Float[Tensor, "#o"]:
    """Share of each row that sums up to at most alpha of the row's score; alpha is where the matrix has `sparsity`.

    Scores are not negative. Experts that no token reached have none: [1], the same share for all rows.
    """
    if linear.stats.tokens == 0:
        return torch.tensor([sparsity], dtype=torch.float64)
    lost = linear.score().sort(dim=1).values.double().cumsum(1)
    lost /= lost[:, -1:].clone().clamp(min=torch.finfo(lost.dtype).tiny)  # a row of zeros loses nothing: it goes first
    dropped = torch.tensor([round(sparsity * lost.numel())], device=lost.device)
    return lowest(lost.reshape(1, -1), dropped).reshape(lost.shape).double().mean(1)
