"""A grid that is shrunk until the rounded weights are nearest to the true ones (GPTQ's released search)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prune.grid import between, extremes
from prune.rounding import Rounding


@dataclass(frozen=True)
class MSE(Rounding):
    """The ends of min-max times the factor 1, 1 - 1/steps ... that has the least sum of |rounded - weight|^norm.

    shrink: the factors end before 1 - shrink. One factor for each group; of equal ones the largest.
    """

    norm: float = 2.4
    steps: int = 100
    shrink: float = 0.8

    def __post_init__(self) -> None:
        """ValueError for settings out of range."""
        super().__post_init__()
        if not (self.norm > 0 and self.steps >= 1 and 0 < self.shrink <= 1):
            raise ValueError(f"quantizer: expected norm > 0, steps >= 1 and shrink in 0..1, found {self}")

    def ends(self, values: Float[Tensor, "o g c"]) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
        """A pass over the weights for each factor, all groups at once."""
        low, high = extremes(values)
        least, best = torch.full_like(low, torch.inf), torch.ones_like(low)
        for factor in (1 - k / self.steps for k in range(round(self.shrink * self.steps))):
            error = self.error(values, factor * low, factor * high)
            best = torch.where(error < least, factor, best)
            least = torch.minimum(error, least)
        return best * low, best * high

    def error(
        self, values: Float[Tensor, "o g c"], low: Float[Tensor, "o g"], high: Float[Tensor, "o g"]
    ) -> Float[Tensor, "o g"]:
        """Of every group on the grid between these ends."""
        grid = between(low, high, self.bits, self.symmetric, values.dtype)
        rounded = grid.nearest(values.flatten(1)).view_as(values)
        return (rounded - values).abs_().pow_(self.norm).sum(2)
