"""Every layer gets the target sparsity."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from prune.budget import of_model
from prune.method import Allocator, Unit
from prune.survey import Allotted, Survey


@dataclass(frozen=True)
class Uniform(Allocator):
    """`sparsity` is the share removed from every matrix, 0 to 1."""

    uneven: ClassVar[bool] = False
    sparsity: float

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """The same number for all, up to the one weight that makes the model's total exact."""
        share = torch.tensor([self.sparsity], dtype=torch.float64)
        return of_model(block.linears, dict.fromkeys(survey.sizes, share), survey, self.sparsity)
