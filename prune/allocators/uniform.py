"""Every layer gets the target sparsity."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import Allocator, Survey, Unit


@dataclass(frozen=True)
class Uniform(Allocator):
    """`sparsity` is the share removed from every matrix, 0 to 1."""

    sparsity: float

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Float[Tensor, "#o"]]:
        """The same number for all."""
        return {name: torch.tensor([self.sparsity], dtype=torch.float64) for name in block.linears}
