"""Choose the mask a block of columns at a time, and let later columns absorb the error.

SparseGPT (Frantar & Alistarh, 2023, arXiv 2301.00774, algorithm 1): with H^-1 = U'U, removing w_j adds
-w_j U_jk / U_jj to every w_k, k > j.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram, InverseFactor


@dataclass(frozen=True)
class SparseGPT(Update):
    """`block_size` columns share one mask decision (a group of m for n:m); `damping` is relative to mean(diag H)."""

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.damping < 0:
            raise ValueError(f"sparsegpt: expected block_size >= 1 and damping >= 0, found {self}")

    def linear(self, linear: Linear) -> Pruned:
        """Columns are frozen from left to right; each block's mask is chosen on its already compensated weights."""
        upper = linear.stats[InverseFactor(self.damping)].upper
        weight, mask = linear.weight.clone(), torch.ones_like(linear.weight, dtype=torch.bool)
        width = linear.pattern.width
        size = max(self.block_size // width, 1) * width  # a block never cuts a group of n:m
        ahead = size if width == 1 else width
        for start in range(0, weight.shape[1], size):
            stop = min(start + size, weight.shape[1])
            errors = torch.zeros_like(weight[:, start:stop])
            for j in range(start, stop):
                if (j - start) % ahead == 0:
                    columns = slice(j, min(j + ahead, stop))
                    mask[:, columns] = linear.select(weight, columns)
                errors[:, j - start] = compensate(weight[:, j:stop], mask[:, j], upper[j, j:stop])
            weight[:, stop:] -= errors @ upper[start:stop, stop:]  # the rest of the row, one product per block
        return Pruned(weight.masked_fill_(~mask, 0.0), mask)


def compensate(
    weight: Float[Tensor, "o c"], kept: Float[Tensor, "o"] | Tensor, row: Float[Tensor, "c"]
) -> Float[Tensor, "o"]:
    """Freeze the first of these columns at its kept entries: the others take up its error, in place; returns it."""
    error = weight[:, 0].masked_fill(kept, 0.0) / row[0]
    weight[:, 1:] -= error[:, None] * row[1:]
    return error
