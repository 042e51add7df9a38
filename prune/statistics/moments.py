"""First and second moments of every input feature: T tokens of i features, X = [T, i]."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prune.statistic import InputStatistic


@dataclass(frozen=True)
class Moments(InputStatistic):
    """Tokens, signed sum and squared norm per calibration sequence; variance() makes them a variance per token."""

    def of(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "3 i"]:
        """T, sum_t x_tj, sum_t x_tj^2."""
        return torch.stack([torch.full_like(x[0], len(x)), x.sum(0), x.square().sum(0)])


def variance(moments: Float[Tensor, "3 i"]) -> Float[Tensor, "i"]:
    """mean_t x_tj^2 - (mean_t x_tj)^2, over all tokens; where rounding makes it negative, 0."""
    tokens, total, squares = moments
    return (squares / tokens - (total / tokens).square()).clamp(min=0)
