"""The first question of a method: which masks are allowed, and which weights compete?

Shapes: o = out_features, i = in_features, c = some columns of it. A mask is True where the weight is kept.
"""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor


class Pattern:
    """Which masks are allowed, and which weights compete with each other."""

    fixed: ClassVar[bool] = False  # whether it admits one sparsity only, as n:m does

    @property
    def per_row(self) -> bool:
        """Whether every row can have a sparsity of its own."""
        return False

    @property
    def width(self) -> int:
        """Columns that are decided together: m for n:m."""
        return 1

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if this pattern cannot reach `sparsity`, or does not fit a matrix of `shapes` (name -> (o, i))."""

    def share(
        self, sparsity: Float[Tensor, "#o"], shape: tuple[int, int], start: int, stop: int
    ) -> Float[Tensor, "#o"]:
        """The sparsity of columns start to stop that keeps the count of a matrix [o, i] solved in slices exact."""
        return sparsity

    def select(self, scores: Float[Tensor, "o c"], sparsity: Float[Tensor, "#o"]) -> Bool[Tensor, "o c"]:
        """Drop the lowest of every group, of equal ones the leftmost; in all exactly round(sparsity x weights)."""
        raise NotImplementedError

    def violations(self, mask: Bool[Tensor, "o i"]) -> int:
        """How many groups of a whole matrix keep more weights than this pattern allows, whatever the sparsity."""
        return 0
