"""Put weights on a grid, before pruning, in the update's own sweep over columns, or after it.

A quantizer says where a group's grid ends (`Rounding.ends`); all else is here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from prune.grid import Grid, between
from prune.method import Linear, Pruned, Quantizer, Unit, Update
from prune.pattern import Pattern
from prune.statistic import Statistic
from prune.statistics.inputs import Gram, InverseFactor
from prune.sweep import sweep

CHOICES = {"source": ("dense", "pruned"), "order": ("joint", "after", "before")}
BITS = 2, 8  # the fewest and the most


@dataclass(frozen=True)
class Rounding(Quantizer):
    """Codes of so many `bits` for every weight; a pruned one is the code of zero.

    group: neighbouring columns of a row that share a grid; None: the whole row. symmetric: zero in the middle.
    source: the grid is that of the dense weight, or of the pruned one, which is rounded as with order=after then.
    order: joint rounds a column when the update's sweep freezes it (sparsegpt; other updates: as after); after rounds
    what the update has made; before rounds the dense weight, which is pruned then. sweep: rounding errors go into later
    columns (GPTQ, the mask held), with `damping` and `block_size` as in update=sparsegpt; else each weight goes to its
    nearest value. act_order: that sweep starts with the columns of the largest input.
    """

    bits: int = 4
    group: int | None = None
    symmetric: bool = False
    source: str = "dense"
    order: str = "joint"
    sweep: bool = True
    act_order: bool = False
    damping: float = 0.01
    block_size: int = 128

    def __post_init__(self) -> None:
        """ValueError for settings out of range, or that contradict each other."""
        few, many = BITS
        if type(self.bits) is not int or not few <= self.bits <= many:
            raise ValueError(f"quantizer.bits: expected a whole number from {few} to {many}, found {self.bits}")
        if self.group is not None and (type(self.group) is not int or self.group < 1):
            raise ValueError(
                f"quantizer.group: expected a whole number of columns, or null for the row, found {self.group}"
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"quantizer.{name}: expected one of {', '.join(choices)}, found {getattr(self, name)}")
        if self.source == "pruned" and self.order == "before":
            raise ValueError("quantizer.source=pruned: with order=before nothing is pruned yet; use source=dense")
        if self.act_order and not self.sweep:
            raise ValueError("quantizer.act_order is the order of a sweep; set quantizer.sweep=true, or leave it out")
        if self.damping < 0 or self.block_size < 1:
            raise ValueError(f"quantizer: expected damping >= 0 and block_size >= 1, found {self}")

    def check(self, pattern: Pattern, update: Update, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where this makes no sense with these, or its groups do not divide a matrix of `shapes`."""
        if self.act_order and pattern.width > 1:
            raise ValueError(f"quantizer.act_order takes columns out of order, {pattern} has groups of neighbours")
        if self.order == "before" and update.refits:
            who = type(update).__name__
            raise ValueError(f"update {who} leaves the grid that order=before puts weights on; use order=after")
        for name, (_, columns) in shapes.items():
            if self.group and columns % self.group:
                raise ValueError(f"quantizer.group={self.group} does not divide the {columns} columns of {name}")

    @property
    def joint(self) -> bool:
        """Whether an update that sweeps over columns rounds each as it freezes it."""
        return self.order == "joint" and self.sweep and self.source == "dense"

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """What a sweep solves with."""
        return (Gram(),) if self.sweep else ()

    def ends(self, values: Float[Tensor, "o g c"]) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
        """The least value of every group's grid, at most 0, and the largest, at least 0."""
        raise NotImplementedError

    def fit(self, weight: Float[Tensor, "o i"], stored: torch.dtype) -> Grid:
        """The grids of a weight, their scales rounded to the dtype `stored`."""
        return between(*self.ends(self.grouped(weight)), self.bits, self.symmetric, stored)

    def grouped(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o g c"]:
        """The weight by the groups of columns that share a grid."""
        return weight.unflatten(1, (-1, self.group or weight.shape[1]))

    def grid(self, linear: Linear, weight: Float[Tensor, "o i"] | None = None) -> Grid:
        """That of `weight` (default: the dense one), or the one that is settled already.

        A sweep's grid has no room for the weights of features that are zero on every token.
        """
        if linear.grid is not None:
            return linear.grid
        weight = linear.weight if weight is None else weight
        if self.sweep and linear.stats.tokens:
            weight = weight.masked_fill(linear.stats[Gram()].diagonal() == 0, 0.0)
        return self.fit(weight, linear.stored)

    def swept(self, linear: Linear) -> tuple[Grid | None, bool]:
        """The grid and the order of a joint sweep."""
        return (self.grid(linear), self.act_order) if self.joint else (None, False)

    def before(self, linear: Linear) -> Linear:
        """With order=before the dense weight on its grid."""
        if self.order != "before":
            return linear
        everything = torch.ones_like(linear.weight, dtype=torch.bool)
        rounded = self.rounded(linear, Pruned(linear.weight, everything))
        return replace(linear, weight=rounded.weight, grid=rounded.grid)

    def __call__(self, unit: Unit, found: dict[str, Pruned]) -> dict[str, Pruned]:
        """The update's answers on their grids."""
        return {name: self.after(linear, found[name]) for name, linear in unit.linears.items()}

    def after(self, linear: Linear, answer: Pruned) -> Pruned:
        """One answer on its grid; as it is where it lies there already."""
        if answer.grid is not None:
            return answer
        return replace(answer, grid=linear.grid) if self.order == "before" else self.rounded(linear, answer)

    def rounded(self, linear: Linear, answer: Pruned) -> Pruned:
        """An answer on the grid, its mask held; where no token came, each weight at its nearest value."""
        grid = self.grid(linear, answer.weight if self.source == "pruned" else None)
        if not (self.sweep and linear.stats.tokens):
            return replace(answer, weight=grid.nearest(answer.weight).masked_fill_(~answer.mask, 0.0), grid=grid)
        factor = linear.stats[InverseFactor(self.damping, self.act_order)]
        swept = sweep(replace(linear, given=answer), answer.weight, factor, self.block_size, grid)
        return replace(answer, weight=swept.weight, grid=grid)
