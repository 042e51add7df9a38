"""Prune the least important weights, wherever they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from prune.lowest import lowest
from prune.pattern import Pattern

EPSILON = 1e-9  # weights: what float64 sums of shares may be off


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Weights compete inside their output row (`row`, as in Wanda) or with all that are scored together (`matrix`)."""

    scope: str = "row"

    def __post_init__(self) -> None:
        if self.scope not in ("row", "matrix"):
            raise ValueError(f"scope: expected row or matrix, found {self.scope!r}")

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Any share from 0 to 1 can be removed, from any shape."""
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsity: expected the share to remove, 0 to 1, found {sparsity}")

    @property
    def per_row(self) -> bool:
        """Rows do not compete with each other in scope row."""
        return self.scope == "row"

    def share(
        self, sparsity: Float[Tensor, "#o"], shape: tuple[int, int], start: int, stop: int
    ) -> Float[Tensor, "#o"]:
        """Rounded sums, not sums of rounded counts: what is due up to stop less what was due up to start."""
        rows, width = shape
        whole = self._dropped(sparsity, rows, width).double()  # [o] or [1]
        first, last = ((whole * columns / width + 0.5 + EPSILON).floor() for columns in (start, stop))
        return (last - first) / ((1 if self.per_row else rows) * (stop - start))

    def select(self, scores: Float[Tensor, "o c"], sparsity: Float[Tensor, "#o"]) -> Bool[Tensor, "o c"]:
        """In all exactly round(sparsity x weights) go; where a row's share is no whole number, rows differ by one."""
        grouped = scores if self.per_row else scores.reshape(1, -1)
        return ~lowest(grouped, self._dropped(sparsity, *scores.shape)).reshape(scores.shape)

    def _dropped(self, sparsity: Float[Tensor, "#o"], rows: int, width: int) -> Shaped[Tensor, "g"]:
        """How many weights of each group go: differences of the rounded running sum over the rows, or one number."""
        due = (sparsity.double() * width).expand(rows).cumsum(0)
        if not self.per_row:
            due = due[-1:]
        edges = (due + 0.5 + EPSILON).floor()
        return edges.diff(prepend=edges.new_zeros(1)).clamp(0, width if self.per_row else rows * width).long()
