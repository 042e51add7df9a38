"""A grid whose ends are learned: clip what costs the block's output least (OmniQuant's learnable weight clipping).

Shao et al., 2023, arXiv 2308.13137, equation 2: the ends of min-max, each times the sigmoid of a parameter of its own.
"""

from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

from prune.grid import Grid, Unclipped, between, extremes
from prune.method import Linear, Pruned, Unit
from prune.rounding import Rounding


@dataclass(frozen=True)
class Learned(Rounding):
    """Each unit's clipping is learned behind its masks by AdamW, one step of `rate` for each calibration sequence.

    The loss is the squared error of the unit's output relative to that of its dense weights on the same input, the
    gradient of rounding that of the identity. start: the parameter at first, whose sigmoid is the share of min-max that
    is left (4: 0.982). An allocator that learns (besa) learns the clipping beside its own rates, with its own loss and
    passes; `epochs` are those of all others. Sweeps are as in every quantizer, but off by default.
    """

    runs_block: ClassVar[bool] = True
    sweep: bool = False
    epochs: int = 20
    rate: float = 5e-3
    start: float = 4.0

    def __post_init__(self) -> None:
        """ValueError for settings out of range."""
        super().__post_init__()
        if self.epochs < 0 or not self.rate >= 0:
            raise ValueError(f"quantizer: expected epochs >= 0 and rate >= 0, found {self}")
        if self.order == "before":
            raise ValueError("quantizer=learned learns its grids behind the masks; use order=after, or minmax")

    @property
    def joint(self) -> bool:
        """Never: the grid is not known before the mask."""
        return False

    def ends(self, values: Float[Tensor, "o g c"]) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
        """Those of min-max, for what no token reaches."""
        return extremes(values)

    def clipping(self, linear: Linear, weight: Float[Tensor, "o i"] | None = None) -> "Clipping":
        """What is learned of a matrix, before the first step: of the grids of `weight` (default: the dense one)."""
        return Clipping(self, linear.weight if weight is None else weight, linear.stored)

    def __call__(self, unit: Unit, found: dict[str, Pruned]) -> dict[str, Pruned]:
        """The update's answers on grids that are learned here, where no allocator has learned them."""
        blank = {name: linear for name, linear in unit.linears.items() if linear.grid is None and linear.stats.tokens}
        if blank:
            self.learn(unit, blank, found)
        return super().__call__(unit, found)

    def learn(self, unit: Unit, linears: dict[str, Linear], found: dict[str, Pruned]) -> None:
        """Settles the grids of these linears."""
        dense = {name: linear.weight for name, linear in linears.items()}
        sources = {name: found[name].weight if self.source == "pruned" else None for name in linears}
        learned = {name: self.clipping(linear, sources[name]) for name, linear in linears.items()}
        for call in chain.from_iterable(unit.calls() for _ in range(self.epochs)):
            with torch.no_grad():
                target = unit.forward(call, dense)
            output = unit.forward(call, {name: each.rounded(found[name].weight) for name, each in learned.items()})
            loss = (output - target).square().sum() / target.square().sum()
            if loss.requires_grad:  # not by an expert with a module of its own that this sequence does not reach
                loss.backward()
                for each in learned.values():
                    each.step()
                    each.zero_grad()
        for name, each in learned.items():
            linears[name].grid = each.grid()


class Clipping(Unclipped):
    """The ends of a matrix's grids, [o, g] each, as shares of its least and largest weights, and what learns them."""

    def __init__(self, quantizer: Learned, weight: Float[Tensor, "o i"], stored: torch.dtype) -> None:
        self.bits, self.symmetric, self.stored = quantizer.bits, quantizer.symmetric, stored
        self.ends = torch.stack(extremes(quantizer.grouped(weight)))
        self.parameters = torch.full_like(self.ends, quantizer.start, requires_grad=True)
        self.optimizer = AdamW([self.parameters], lr=quantizer.rate, weight_decay=0.0)

    def rounded(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The weight on the grids as they are now, with gradients to the parameters and to the weight."""
        return self._grid().straight(weight)

    def step(self) -> None:
        """Go against the gradient."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad()

    @torch.no_grad()
    def grid(self) -> Grid:
        """The grids as they are now."""
        return self._grid()

    def _grid(self) -> Grid:
        low, high = self.parameters.sigmoid() * self.ends
        return between(low, high, self.bits, self.symmetric, self.stored)
