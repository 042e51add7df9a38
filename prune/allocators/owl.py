"""Keep more in blocks where more scores stand out: OWL (Yin et al., 2023, arXiv 2310.05175)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prune.budget import of_model
from prune.method import Allocator, Unit
from prune.statistic import ModelStatistic, Statistic
from prune.statistics.inputs import Squares
from prune.survey import Allotted, Survey


@dataclass(frozen=True)
class Outliers(ModelStatistic):
    """The share of outliers among the Wanda scores of a whole block, on the dense stream: [1] float64 per matrix."""

    threshold: float

    def empty(self, matrix: tuple[int, int]) -> Tensor:
        """[1]."""
        return torch.empty(1, dtype=torch.float64, device="meta")

    def of(self, network: Any, samples: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """All matrices of a block get the same number."""
        for block in network.walk(samples):
            block.refuse_damaged(block.weights)
            found = block.collect([Squares()], block.weights)
            squares = {name: one.values[Squares()] for name, one in found.items() if one.tokens}
            share = torch.tensor([outlier_share(block.weights, squares, self.threshold)], dtype=torch.float64)
            yield block.path, {block.full_name(name): share.clone() for name in block.weights}


def outlier_share(
    weights: Mapping[str, Float[Tensor, "_ _"]], squares: Mapping[str, Float[Tensor, "_"]], threshold: float
) -> float:
    """The share of |W_ij| sqrt(m_j) above `threshold` times their mean, over all weights [o, i] together.

    m comes from `squares` [i] by the same name; the scores of a linear that is not in it (an expert that saw no token)
    are 0. Two passes, one for the mean and one that counts, so that no more than one matrix of scores is alive.
    """
    size = sum(weight.numel() for weight in weights.values())
    total = sum((weights[name].float().abs() @ m.sqrt()).double().sum().item() for name, m in squares.items())
    bar = threshold * total / size
    return sum(int((weights[name].float().abs() * m.sqrt() > bar).sum()) for name, m in squares.items()) / size


@dataclass(frozen=True)
class OWL(Allocator):
    """`spread` is lambda, by which a block may be sparser or denser than another by 2 lambda; `threshold` is M.

    The paper and the released commands use M = 5, the released code has the default 3. The released mean over blocks is
    one over weights here, so that blocks of any size meet the budget, and no block is raised to a sparsity of 0.01.
    """

    sparsity: float
    spread: float = 0.08
    threshold: float = 5.0

    def __post_init__(self) -> None:
        if not (self.spread >= 0 and self.threshold > 0):
            raise ValueError(f"owl: expected spread >= 0 and threshold > 0, found {self}")

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        return (Outliers(self.threshold),)

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """Keep 2 lambda (D - min D) / (max D - min D) of block outlier shares D, shifted to the budget (section 3)."""
        shares = survey.values[Outliers(self.threshold)]
        outliers = torch.cat([shares[name] for name in survey.sizes])
        low, high = outliers.aminmax()
        keep = 2 * self.spread * (outliers - low) / (high - low).clamp(min=1e-12)  # all equal: all 0, uniform
        wanted = self.sparsity + keep.mean() - keep
        return of_model(block.linears, dict(zip(survey.sizes, wanted.split(1), strict=True)), survey, self.sparsity)
