"""Choose the mask a block of columns at a time, and let later columns absorb the error.

SparseGPT (Frantar & Alistarh, 2023, arXiv 2301.00774, algorithm 1): with H^-1 = U'U, removing w_j adds
-w_j U_jk / U_jj to every w_k, k > j.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram, InverseFactor

STEP = 16  # columns that are solved one by one; what lies beyond them gets their errors in one product


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
        """Columns are frozen from left to right; each block's mask is chosen on its already compensated weights.

        The work is on the transposed weight, where a column is one piece of memory.
        """
        upper = linear.stats[InverseFactor(self.damping)].upper
        columns = linear.weight.T.clone(memory_format=torch.contiguous_format)
        kept = torch.ones_like(columns, dtype=torch.bool)
        width = linear.pattern.width
        size = max(self.block_size // width, 1) * width  # a block never cuts a group of n:m
        for block in pieces(0, len(columns), size):
            rows = upper[block] / upper.diagonal()[block, None]
            lost = torch.empty_like(columns[block])
            for part in pieces(block.start, block.stop, STEP if width == 1 else width):
                if width > 1 or part.start == block.start:
                    chosen = part if width > 1 else block
                    kept[chosen] = linear.select(columns.T, chosen).T
                mine, rest = slice(part.start - block.start, part.stop - block.start), slice(part.stop, block.stop)
                freeze(columns[part], kept[part], rows[mine, part], lost[mine])
                columns[rest].addmm_(rows[mine, rest].T, lost[mine], alpha=-1)
            columns[block.stop :].addmm_(rows[:, block.stop :].T, lost, alpha=-1)
        return Pruned(columns.masked_fill_(~kept, 0.0).T.contiguous(), kept.T.contiguous())


def pieces(start: int, stop: int, size: int) -> Iterator[slice]:
    """From start to stop, `size` at a time."""
    return (slice(k, min(k + size, stop)) for k in range(start, stop, size))


def freeze(
    columns: Float[Tensor, "c o"], kept: Bool[Tensor, "c o"], rows: Float[Tensor, "c c"], lost: Float[Tensor, "c o"]
) -> None:
    """Let each of these columns take up the errors of those before it; `lost` becomes what its mask then removes."""
    dropped = (~kept).to(columns.dtype)
    for j, (column, gone, mine) in enumerate(zip(columns, dropped, lost, strict=True)):
        column.addmv_(lost[:j].T, rows[:j, j], alpha=-1)
        torch.mul(column, gone, out=mine)
