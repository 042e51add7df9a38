"""Alternate between the mask and the weights that reproduce the layer's output best.

ADMM for min_A |(A - W) X|^2 over masked A, from X'X alone (Boza, 2024, arXiv 2401.02938).
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import Linear, Pruned, Update
from prune.statistic import DerivedStatistic, Statistic
from prune.statistics.inputs import Gram


@dataclass(frozen=True)
class Penalised:
    """The least-squares problem with a penalty on the distance to a target, solved for every target at once.

    An explicit inverse: what it multiplies takes two thirds of the time of two triangular solves.
    """

    pull: Float[Tensor, "i i"]  # penalty C^2 (G + (damping + penalty) C^2)^-1
    clamped: int  # features with almost no input, whose C was raised

    def towards(self, dense: Float[Tensor, "o i"], change: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """argmin_A of |(A - dense) X|^2 + damping |(A - dense) C|^2 + penalty |(A - dense - change) C|^2."""
        return torch.addmm(dense, change, self.pull)


@dataclass(frozen=True)
class PenalisedFactor(DerivedStatistic):
    """Solves that problem once for all linears that share an input; a constant factor on G changes nothing.

    C is the diagonal of column norms, C^2 = diag G. The paper divides X by C and multiplies W by it; weighting the
    penalty and the damping by C^2 is the same problem in the weight's own coordinates. Released code guards C with
    1e-8 of the raw sums; here C is at least `floor` of the median of the features that are not dead, so that no
    weight of a nearly dead feature can grow beyond half precision.
    """

    source: ClassVar[Statistic] = Gram()
    floor: ClassVar[float] = 1e-4
    damping: float = 0.1
    penalty: float = 1.0

    def of(self, source: Float[Tensor, "i i"]) -> Penalised:
        """Raises ArithmeticError if every feature is dead, or damping and penalty are too small."""
        energy = source.diagonal()
        alive = energy > 0
        if not alive.any():
            raise ArithmeticError("every input feature is zero on the calibration data; there is nothing to solve")
        squares = energy.clamp(min=self.floor**2 * energy[alive].median())
        damping = self.damping * (energy / squares).mean()  # of the normalised G, as released: a dead feature counts 0
        damped = source.clone()
        damped.diagonal().add_((damping + self.penalty) * squares)
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped  # as large as all other tensors here
        if failed:
            raise ArithmeticError("its Gram matrix cannot be factorised; raise update.penalty or update.damping")
        pull = torch.cholesky_inverse(lower).mul_((self.penalty * squares)[:, None])
        return Penalised(pull, int((alive & (energy < squares)).sum()))

    def notes(self, value: Penalised) -> dict[str, int]:
        """How many features had almost no input, where there were any."""
        return {"clamped_columns": value.clamped} if value.clamped else {}


@dataclass(frozen=True)
class ADMM(Update):
    """Fixed number of `iterations`; the first `selections` of them choose the mask anew, the others keep it.

    `damping` pulls towards the dense weight, relative to the input's column norms; `penalty` is ADMM's rho.
    `schedule`: `cubic` and `paper` raise the sparsity to the target over the selections, most of it at first or last;
    `released` does as `cubic` where the pattern fixes it (n:m), else all at once. With selections=0 the mask is that of
    the dense weight, with given masks (Linear.given) it is those.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    iterations: int = 20
    selections: int = 15
    damping: float = 0.1
    penalty: float = 1.0
    schedule: str = "released"

    def __post_init__(self) -> None:
        if not 0 <= self.selections <= self.iterations or self.iterations < 1:
            raise ValueError(f"admm: expected 0 <= selections <= iterations and iterations >= 1, found {self}")
        if not (0 <= self.damping < inf and 0 < self.penalty < inf):
            raise ValueError(f"admm: expected damping >= 0 and penalty > 0, found {self}")
        if self.schedule not in ("released", "cubic", "paper"):
            raise ValueError(f"admm: expected schedule released, cubic or paper, found {self.schedule!r}")

    def linear(self, linear: Linear) -> Pruned:
        """Section 3; in the order of the released code: mask and Z, then the dual U, then the weight.

        U adds up what the mask took away, so that a dropped weight can come back, and is 0 where the mask keeps.
        """
        problem = linear.stats[PenalisedFactor(self.damping, self.penalty)]
        gradual = self.schedule != "released" or linear.pattern.fixed
        weight, dual = linear.weight.clone(), torch.zeros_like(linear.weight)  # changed in place
        for step in range(self.iterations):
            total = weight.add_(dual)
            if step < max(self.selections, 1):
                mask = linear.select(total, fraction=self.fraction(step) if gradual else 1.0)
            torch.mul(total, ~mask, out=dual)  # a product, because masked_fill takes five times as long on a CPU
            signed = total.sub_(dual, alpha=2)  # Z - U: Z is 0 off the mask, U on it
            weight = problem.towards(linear.weight, signed.sub_(linear.weight))
        return Pruned(weight.masked_fill_(~mask, 0.0), mask)

    def fraction(self, step: int) -> float:
        """The share of the target sparsity that selection `step` asks for, t = (step + 1) / selections of the way.

        t^3 as the paper prints it; 1 - (1 - t)^3 as its released code has it.
        """
        way = (step + 1) / max(self.selections, 1)
        return way**3 if self.schedule == "paper" else 1 - (1 - way) ** 3
