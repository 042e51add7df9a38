"""Statistics of what flows into a linear layer: T tokens of i features, X = [T, i]."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prune.statistic import DerivedStatistic, InputStatistic, PairedStatistic, Statistic

PANELS, NARROW = 16, 128  # a symmetric matrix is made in so many panels, each at least so wide
LEAF = 64  # a triangle that is inverted by one solve


@dataclass(frozen=True)
class Squares(InputStatistic):
    """Squared norm of every input feature."""

    def of(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "i"]:
        """sum_t x_tj^2."""
        return x.square().sum(0)

    def notes(self, value: Float[Tensor, "i"]) -> dict[str, int]:
        """How many features were zero on every token."""
        return _dead(value)


@dataclass(frozen=True)
class Gram(InputStatistic):
    """X'X: half the Hessian of the layer's squared output error, float32.

    Products of two half precision numbers are exact in float32, so that a GPU's matrix units, which add up in float32,
    take half precision inputs as they are: many times faster, and no coarser.
    """

    takes_half: ClassVar[bool] = True

    def of(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "i i"]:
        """sum_t x_t x_t'."""
        return self.add(x.new_zeros(x.shape[1], x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32)), x)

    def add(self, total: Float[Tensor, "i i"], x: Float[Tensor, "tokens i"]) -> Float[Tensor, "i i"]:
        """Only what lies on and right of the diagonal is multiplied, panel by panel; the rest is its mirror image."""
        x = x.to(total.dtype) if x.device.type == "cpu" else x
        for panel in panels(len(total)):
            ahead, left, right = slice(panel.stop, None), x[:, panel].T, x[:, panel.start :]
            if x.dtype == total.dtype:
                total[panel, panel.start :].addmm_(left, right)
            else:
                total[panel, panel.start :].add_(torch.mm(left, right, out_dtype=total.dtype))
            total[ahead, panel] = total[panel, ahead].T
        return total

    def notes(self, value: Float[Tensor, "i i"]) -> dict[str, int]:
        """How many features were zero on every token."""
        return _dead(value.diagonal())


@dataclass(frozen=True)
class Drift(PairedStatistic):
    """(Xd - X)'X, float32: how far the stream that enters a layer has come from the dense model's, as X sees it."""

    def of_pair(self, x: Float[Tensor, "tokens i"], dense: Float[Tensor, "tokens i"]) -> Float[Tensor, "i i"]:
        """sum_t (xd_t - x_t) x_t'."""
        return (dense - x).T @ x


def _dead(squares: Float[Tensor, "i"]) -> dict[str, int]:
    count = int((squares == 0).sum())
    return {"dead_columns": count} if count else {}


def panels(size: int) -> list[slice]:
    """PANELS slices of so many columns, fewer where they would be narrow."""
    width = max(-(-size // PANELS), NARROW)
    return [slice(start, min(start + width, size)) for start in range(0, size, width)]


def invert_(lower: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """The inverse of a lower triangular matrix in its place: [A 0; B C] has [A^-1 0; -C^-1 B A^-1 C^-1].

    Products of halves are two thirds of the operations of a solve for the identity, and each of them is faster.
    """
    if len(lower) <= LEAF:
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return lower.copy_(torch.linalg.solve_triangular(lower, identity, upper=False))
    half = len(lower) // 2
    first, last = invert_(lower[:half, :half]), invert_(lower[half:, half:])
    lower[half:, :half].addmm_(last, lower[half:, :half] @ first, beta=0, alpha=-1)
    return lower


@dataclass(frozen=True)
class Factor:
    """U upper triangular with (H + damping)^-1 = U'U; dead marks the features that were zero on every token.

    With an `order` U is that of H with rows and columns in it; dead is as the features stand.
    """

    upper: Float[Tensor, "i i"]
    dead: Any  # Bool[Tensor, "i"]
    raises: int  # how often the damping had to be raised tenfold
    order: Any = None  # Int[Tensor, "i"]: feature at each place of U; None: as they stand


@dataclass(frozen=True)
class InverseFactor(DerivedStatistic):
    """Upper Cholesky factor of the damped inverse Hessian (SparseGPT, Frantar & Alistarh 2023, section 3.3).

    A constant factor on H changes neither masks nor updates, because the damping is relative to mean(diag H).
    A dead feature gets a diagonal of its own, so that removing its weights moves no other weight. ordered: features
    with the largest diagonal of H first (GPTQ's act-order), equal ones as they stand.
    """

    source: ClassVar[Statistic] = Gram()
    damping: float = 0.01
    ordered: bool = False
    attempts: ClassVar[int] = 5  # the damping is raised tenfold between them

    def of(self, source: Float[Tensor, "i i"]) -> Factor:
        """Raises ArithmeticError if no damping makes the Gram matrix positive definite."""
        diagonal = source.diagonal()
        dead = diagonal == 0
        if dead.all():
            raise ArithmeticError("every input feature is zero on the calibration data; there is nothing to factorise")
        level = diagonal.sum() / (~dead).sum()
        added, order = torch.where(dead, level, 0.0), None
        if self.ordered:
            order = diagonal.argsort(descending=True, stable=True)
            source, added = source[order][:, order], added[order]
        for attempt in range(self.attempts):
            ridge = self.damping * 10**attempt * level
            # flip(H) = M M' makes H = R R' with R = flip(M) upper, so U = R^-1: one factorisation and one inverse.
            damped = source.flip(0, 1)
            damped.diagonal().add_((added + ridge).flip(0))
            lower, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                del damped  # as large as all other tensors here
                return Factor(invert_(lower).flip(0, 1), dead, attempt, order)
        raise ArithmeticError(
            f"its Gram matrix cannot be factorised, even with the damping raised "
            f"tenfold {self.attempts - 1} times; use more calibration tokens"
        )

    def notes(self, value: Factor) -> dict[str, int]:
        """How often the damping was raised, where it had to be."""
        return {"damping_raises": value.raises} if value.raises else {}
