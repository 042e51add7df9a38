"""The few values that the weights of a quantised row, or of a group of its columns, may take."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """scale x (code - zero), codes 0 to 2^bits - 1; g groups of neighbouring columns, 1 for the whole row.

    Zero is on it: `zero` is a whole number from 0 to 2^bits - 1.
    """

    scale: Float[Tensor, "o g"]
    zero: Float[Tensor, "o g"]
    bits: int

    def groups(self, columns: int) -> Int[Tensor, "i"]:
        """The group of each of so many columns."""
        return torch.arange(columns, device=self.scale.device) // (columns // self.scale.shape[1])

    def codes(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The codes of the nearest values, whole numbers; halves go to the even multiple of the scale."""
        scale, zero = self._wide(weight)
        return (weight / scale).round_().add_(zero).clamp_(0, 2**self.bits - 1)

    def nearest(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The nearest values themselves; a zero stays +0.0."""
        scale, zero = self._wide(weight)
        return self.codes(weight).sub_(zero).mul_(scale)

    def straight(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The nearest values, differentiable in weight and scale as if rounding were the identity.

        A weight inside the grid has the gradient 1 to itself and round(w / h) - w / h to the scale h; a clipped one has
        0, and its distance from zero in codes.
        """
        scale, zero = self._wide(weight)
        code = weight / scale
        code = code + (code.round() - code).detach()
        return torch.clamp(code, -zero, 2**self.bits - 1 - zero) * scale

    def to(self, device: torch.device | str) -> "Grid":
        """The same there."""
        return Grid(self.scale.to(device), self.zero.to(device), self.bits)

    def _wide(self, weight: Float[Tensor, "o i"]) -> tuple[Float[Tensor, "o i"], Float[Tensor, "o i"]]:
        groups = self.groups(weight.shape[1])
        return self.scale[:, groups], self.zero[:, groups]


class Unclipped:
    """What an allocator may learn of a grid beside its own (prune.quantizers.learned): here nothing."""

    def rounded(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The weight on the grid as it is now, differentiable."""
        return weight

    def step(self) -> None:
        """As an optimizer has it."""

    def zero_grad(self) -> None:
        """As an optimizer has it."""

    def grid(self) -> Grid | None:
        """What was learned."""
        return None


def extremes(values: Float[Tensor, "o g c"]) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
    """The least value of every group, or 0, and the largest, or 0: there is room for zero on the grid between them."""
    return values.amin(2).clamp(max=0), values.amax(2).clamp(min=0)


def between(
    low: Float[Tensor, "o g"], high: Float[Tensor, "o g"], bits: int, symmetric: bool, stored: torch.dtype
) -> Grid:
    """The grid from `low` <= 0 to `high` >= 0; where both are 0 one from -1 to 1.

    symmetric: from -max(-low, high) to as much above zero, less a step at the upper end. The scale is rounded to the
    dtype in which it will be stored before the zero is found, so that what is evaluated is what is stored.
    """
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = low == high
    low, high = torch.where(empty, -1.0, low), torch.where(empty, 1.0, high)
    last = 2**bits - 1
    scale = ((high - low) / last).to(stored).clamp(min=torch.finfo(stored).tiny).to(low.dtype)
    zero = torch.full_like(scale, (last + 1) / 2) if symmetric else (-low / scale).round().clamp(0, last)
    return Grid(scale, zero, bits)
