"""Freeze a matrix column by column, and let the columns that are left absorb the error.

With H^-1 = U'U, what column j loses, e_j = w_j - frozen w_j, adds -e_j U_jk / U_jj to every column k > j: what a mask
removes (SparseGPT; Frantar & Alistarh, 2023, arXiv 2301.00774, algorithm 1), what a grid rounds off (GPTQ; Frantar et
al., 2022, arXiv 2210.17323), or both at once (SparseGPT, equation 7).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prune.grid import Grid
from prune.method import Linear, Pruned
from prune.statistics.inputs import Factor

STEP = 16  # columns that are solved one by one; what lies beyond them gets their errors in one product


@dataclass(frozen=True)
class Ends:
    """What rounds a column, [g, o] each: the scale, and the least and largest multiple of it that there is."""

    scale: Float[Tensor, "g o"]
    least: Float[Tensor, "g o"]
    most: Float[Tensor, "g o"]
    group: Int[Tensor, "i"]  # of each column, in the order of the sweep

    @classmethod
    def of(cls, grid: Grid, columns: int, order: Int[Tensor, "i"] | None) -> "Ends":
        """Of a grid over so many columns, which are frozen in this order."""
        groups, zero = grid.groups(columns), grid.zero.T
        return cls(grid.scale.T, -zero, 2**grid.bits - 1 - zero, groups if order is None else groups[order])

    def at(self, part: slice) -> "Ends":
        """Those of these columns, one by one."""
        group = self.group[part]
        return Ends(self.scale[group], self.least[group], self.most[group], group)


def sweep(linear: Linear, weight: Float[Tensor, "o i"], factor: Factor, size: int, grid: Grid | None = None) -> Pruned:
    """The weight frozen from left to right; each block of `size` columns (a group of m for n:m) has its mask chosen on
    weights that the columns before have changed, rounding included.

    A factor with an `order` freezes columns in that one, and the mask is chosen before. The work is on the transposed
    weight, where a column is one piece of memory.
    """
    order, width = factor.order, linear.pattern.width
    columns = (weight.T if order is None else weight.T[order]).clone(memory_format=torch.contiguous_format)
    kept = torch.ones_like(columns, dtype=torch.bool) if order is None else linear.select(weight).T[order]
    ends = None if grid is None else Ends.of(grid, len(columns), order)
    size = max(size // width, 1) * width  # a block never cuts a group of n:m
    for block in pieces(0, len(columns), size):
        rows = factor.upper[block] / factor.upper.diagonal()[block, None]
        lost = torch.empty_like(columns[block])
        for part in pieces(block.start, block.stop, STEP if width == 1 else width):
            if order is None and (width > 1 or part.start == block.start):
                competing = part if width > 1 else block
                kept[competing] = linear.select(columns.T, competing).T
            mine, rest = slice(part.start - block.start, part.stop - block.start), slice(part.stop, block.stop)
            if ends is None:
                freeze(columns[part], kept[part], rows[mine, part], lost[mine])
            else:
                freeze_on(ends.at(part), columns[part], kept[part], rows[mine, part], lost[mine])
            columns[rest].addmm_(rows[mine, rest].T, lost[mine], alpha=-1)
        columns[block.stop :].addmm_(rows[:, block.stop :].T, lost, alpha=-1)
    columns.masked_fill_(~kept, 0.0).add_(0.0)  # -0.0 + 0.0 = +0.0
    if order is not None:
        columns, kept = columns[order.argsort()], kept[order.argsort()]
    return Pruned(columns.T.contiguous(), kept.T.contiguous(), grid=grid)


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


def freeze_on(
    ends: Ends,
    columns: Float[Tensor, "c o"],
    kept: Bool[Tensor, "c o"],
    rows: Float[Tensor, "c c"],
    lost: Float[Tensor, "c o"],
) -> None:
    """The same on a grid: a column becomes its nearest values where its mask is, and `lost` what that takes away."""
    frozen = torch.empty_like(columns)
    each = (columns, lost, frozen, ends.scale, ends.least, ends.most, ends.scale * kept)
    for j, (column, mine, value, scale, least, most, held) in enumerate(zip(*each, strict=True)):
        column.addmv_(lost[:j].T, rows[:j, j], alpha=-1)
        torch.div(column, scale, out=value).round_().clamp_(least, most).mul_(held)
        torch.sub(column, value, out=mine)
    columns.copy_(frozen)
