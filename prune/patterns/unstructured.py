"""Prune the least important weights, wherever they are."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prune.method import Pattern


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

    def share(self, sparsity: Float[Tensor, "#o"], rows: int, start: int, stop: int) -> Float[Tensor, "#o"]:
        """Rounded sums, not sums of rounded counts: round(s x weights up to stop) less those up to start."""
        height = rows if self.scope == "matrix" else 1  # rows in one group
        first, last = ((sparsity.double() * height * columns).round() for columns in (start, stop))
        return (last - first) / (height * (stop - start))

    def select(self, scores: Float[Tensor, "o c"], sparsity: Float[Tensor, "#o"]) -> Bool[Tensor, "o c"]:
        """Exactly round(sparsity x group) weights of every group go; a half rounds to even."""
        grouped = scores.reshape(1, -1) if self.scope == "matrix" else scores
        share = sparsity.mean().reshape(1) if self.scope == "matrix" else sparsity
        dropped = (share.double() * grouped.shape[1]).round()[:, None]
        rank = torch.arange(grouped.shape[1], device=scores.device)
        order = grouped.argsort(dim=-1, stable=True)
        kept = (rank >= dropped).expand(grouped.shape)
        return torch.empty_like(grouped, dtype=torch.bool).scatter_(1, order, kept).reshape(scores.shape)
