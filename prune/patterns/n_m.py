"""Keep n of every m consecutive weights of a row (2:4 is the form that sparse tensor cores take)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from prune.lowest import lowest
from prune.pattern import Pattern


@dataclass(frozen=True)
class NM(Pattern):
    """n is the number KEPT of every m: 1:4 keeps one weight in four and prunes 75 %."""

    fixed: ClassVar[bool] = True
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"pattern: expected 0 < n < m (n kept of every m), found n={self.n} m={self.m}")

    @property
    def width(self) -> int:
        """The m columns of a group are decided together."""
        return self.m

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """The sparsity must be 1 - n/m, or 0 (dense), and m must divide the input width of every matrix."""
        only = 1 - self.n / self.m
        if sparsity != 0 and not abs(sparsity - only) <= 1e-6:
            raise ValueError(
                f"{self.n}:{self.m} removes exactly {only:g} of the weights, found sparsity={sparsity:g}; "
                f"set sparsity={only:g}"
            )
        for name, (_, width) in shapes.items():
            if width % self.m:
                raise ValueError(
                    f"{name}: {self.n}:{self.m} needs an input width that {self.m} divides, found {width}: "
                    "choose a pattern that fits, or unstructured"
                )

    def select(self, scores: Float[Tensor, "o c"], sparsity: Float[Tensor, "#o"]) -> Bool[Tensor, "o c"]:
        """The m - n lowest scores of every group go, of equal scores the leftmost.

        Below 1 - n/m (on the way there: ADMM's schedule) the n highest of every group are safe, and of the others
        the lowest of the whole matrix go, in all floor(sparsity x weights), as in ADMM's released code.
        """
        only = 1 - self.n / self.m
        if sparsity.max() > only + 1e-6:
            self.check(sparsity.max().item(), {})
        self.check(0.0, {"a matrix": tuple(scores.shape)})
        safe = (ranked(scores.reshape(-1, self.m)) >= self.m - self.n).reshape(scores.shape)
        if sparsity.min() > only - 1e-6:
            return safe
        dropped = (sparsity.double().mean() * scores.numel() + 1e-9).long().reshape(1)
        unsafe = scores.masked_fill(safe, torch.inf).reshape(1, -1)
        return ~lowest(unsafe, dropped).reshape(scores.shape)

    def violations(self, mask: Bool[Tensor, "o i"]) -> int:
        """Groups with more than n kept weights."""
        return int((mask.reshape(-1, self.m).sum(-1) > self.n).sum())


def ranked(groups: Float[Tensor, "g m"]) -> Int8[Tensor, "g m"]:
    """How many of its group come before each value in a stable sort: every pair is compared once.

    For m = 4 that is six comparisons of whole columns, and many times faster than sorting groups of four.
    """
    columns = groups.T.contiguous()
    ranks = torch.zeros_like(columns, dtype=torch.int8)
    for k in range(len(columns)):
        for j in range(k + 1, len(columns)):
            first = columns[k] <= columns[j]
            ranks[j] += first
            ranks[k] += ~first
    return ranks.T
