"""Less sparse where the loss is curved: shares by the rank of Hessian traces (Shao et al., 2024, arXiv 2310.09499)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prune.budget import of_model
from prune.method import Allocator, Unit
from prune.statistic import Statistic
from prune.statistics.trace import HessianTrace
from prune.survey import Allotted, Survey


@dataclass(frozen=True)
class Sensitivity(Allocator):
    """From `sparsity` + `bound` for the least sensitive matrix in equal steps to `sparsity` - `bound` for the most.

    level: matrices are ranked (weight), or blocks by the sum over their matrices (layer). Equal ones keep
    the model's order. Negative traces count by their size, as released, and are in the notes.
    probes, sequences and seed are those of the Hessian trace.
    """

    sparsity: float
    level: str = "weight"
    bound: float = 0.1
    probes: int = 1
    sequences: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level not in ("weight", "layer") or not 0 <= self.bound <= 1:
            raise ValueError(f"sensitivity: expected level weight or layer and bound from 0 to 1, found {self}")

    @property
    def trace(self) -> HessianTrace:
        """The statistic that is read."""
        return HessianTrace(self.probes, self.sequences, self.seed)

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """The Hessian trace of these fields."""
        return (self.trace,)

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """Algorithm 1 over the whole model, moved onto the exact budget; this block's part of it."""
        name, linear = next(iter(block.linears.items()))
        blocks = linear.name.removesuffix(f".{name}").rpartition(".")[0]
        wanted = self.wanted(self.sensitivities(survey), blocks)
        return of_model(block.linears, wanted, survey, self.sparsity)

    def sensitivities(self, survey: Survey) -> dict[str, float]:
        """Equation 5, by full name of the matrix; released traces are apparently not divided by a size, as in 6."""
        return {name: abs(survey.values[self.trace][name].double().mean().item()) for name in survey.sizes}

    def wanted(self, sensitivities: dict[str, float], blocks: str) -> dict[str, Float[Tensor, "1"]]:
        """Shares before the budget, 0 to 1, float64; `blocks` is the path of the list of blocks."""

        def group(name: str) -> str:
            return name if self.level == "weight" else name.removeprefix(f"{blocks}.").partition(".")[0]

        totals: dict[str, float] = {}
        for name, value in sensitivities.items():
            totals[group(name)] = totals.get(group(name), 0.0) + value
        order = sorted(totals, key=totals.__getitem__)
        offsets = torch.linspace(self.bound, -self.bound, len(order), dtype=torch.float64)
        if len(order) == 1:
            offsets.zero_()  # nothing to rank
        shares = dict(zip(order, (self.sparsity + offsets).clamp(0, 1).split(1), strict=True))
        return {name: shares[group(name)] for name in sensitivities}
