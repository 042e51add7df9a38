"""Learn how sparse each row or matrix is by rebuilding the block's output, with weights and their order fixed.

BESA (Xu et al., 2024, arXiv 2402.16880). Shapes: g = groups of weights that compete (rows, or 1 for a whole matrix),
n = weights of a group, d = rates of a matrix (one for each group, or 1), s = candidate rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from prodigyopt import Prodigy
from torch import Tensor
from torch.nn.functional import pad

from prune.budget import left_for, meet
from prune.method import Allocator, Linear, Unit
from prune.survey import Allotted, Survey

EPSILON = 1e-6  # weights: what a float64 rate times the size of a group may be off
REFERENCES = ("pruned", "dense")
PARAMETRISATIONS = ("tilted", "released", "softmax")


@dataclass(frozen=True)
class BESA(Allocator):
    """A rate for each row (`per_row`) or matrix: the mean of the candidates 1, 1 - step ... 0 under learned weights.

    The loss of one calibration sequence is `relative_error` of the block plus penalty ((s - s*) / s*)^2, s the share
    removed from the block, s* what is left of the model's budget for each. A block keeps what it learned up to `slack`
    from `sparsity`, later blocks make up for it, and the last one meets the budget. With slack 0 every block meets it.
    Released blocks drift freely, and the model misses its sparsity.
    """

    runs_block: ClassVar[bool] = True
    sparsity: float
    per_row: bool = True
    step: float = 0.01
    epochs: int = 1
    penalty: float = 5.0
    slack: float = 0.1
    d_coef: float = 5.0
    parametrisation: str = "tilted"
    reference: Literal["pruned", "dense"] = "pruned"  # the dense block's output on the pruned stream | on the dense one

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1 or abs(1 / self.step - self.steps) > 1e-6:
            raise ValueError(f"besa: expected a step that divides 1, as 0.01 does, found step={self.step}")
        if self.epochs < 1 or not 0 <= self.penalty < inf or not 0 < self.d_coef < inf:
            raise ValueError(f"besa: expected epochs >= 1, penalty >= 0, d_coef > 0, found {self}")
        if not 0 <= self.slack <= 1:
            raise ValueError(f"besa: expected slack in 0..1, a difference of sparsities, found {self.slack}")
        if self.parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"parametrisation: expected one of {PARAMETRISATIONS}, found {self.parametrisation!r}")
        if self.reference not in REFERENCES:
            raise ValueError(f"reference: expected one of {REFERENCES}, found {self.reference!r}")
        if self.parametrisation == "released" and not 0.4 <= self.sparsity <= 0.6:
            raise ValueError(
                f"parametrisation=released starts at 0.5 and reaches 0.3763 to 0.6237: expected a sparsity of "
                f"0.4 to 0.6, found {self.sparsity}; use parametrisation=tilted"
            )

    @property
    def steps(self) -> int:
        """Candidates less one."""
        return round(1 / self.step)

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """What was learned, as far as the budget allows; experts that no token reached want what is due."""
        sizes = {name: linear.weight.numel() for name, linear in block.linears.items()}
        names = [linear.name for linear in block.linears.values()]
        due, possible = left_for(names, survey, self.sparsity, self.slack)
        wanted = {name: torch.tensor([due], dtype=torch.float64) for name in block.linears}
        seen = {name: linear for name, linear in block.linears.items() if linear.stats.tokens != 0}
        if seen and 0 < due < 1:
            wanted |= self.learned(block, seen, due)
        share = sum(rates.mean().item() * sizes[name] for name, rates in wanted.items()) / sum(sizes.values())
        return meet(wanted, sizes, possible(share))

    def learned(self, block: Unit, linears: Mapping[str, Linear], target: float) -> dict[str, Float[Tensor, "d"]]:
        """The rates of these linears, float64, after one update for each calibration sequence and epoch."""
        ranked = {name: rank(linear, self.steps) for name, linear in linears.items()}
        counts = [len(r.place) if self.per_row else 1 for r in ranked.values()]
        share = shares([r.weight for r in ranked.values()], counts)
        room = torch.empty(max(r.order.numel() for r in ranked.values()), device=share.device)
        candidates = torch.arange(self.steps, -1, -1, device=share.device).double() / self.steps
        prior, logits = self.prior(candidates, target), share.new_zeros(len(share), len(candidates), requires_grad=True)
        clips = {name: linear.quantizer.clipping(linear) for name, linear in linears.items()}
        optimizers = [Prodigy([logits], d_coef=self.d_coef), *clips.values()]  # fresh ones for each block, as released
        for call in (call for _ in range(self.epochs) for call in block.calls()):
            belief = self.belief(logits, prior)
            rates = belief @ candidates
            split = zip(ranked.items(), clips.values(), belief.split(counts), rates.split(counts), strict=True)
            weights = {n: Masked.apply(b, rate, r, room, clip.rounded(r.weight)) for (n, r), clip, b, rate in split}
            output, excess = block.forward(call, weights), share @ rates / target - 1
            loss = relative_error(output, block.reference(call)) + self.penalty * excess**2
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        for name, linear in linears.items():
            linear.grid = clips[name].grid()
        rates = self.belief(logits.detach(), prior) @ candidates
        return dict(zip(ranked, rates.split(counts), strict=True))

    def belief(self, logits: Float[Tensor, "d s"], prior: Float[Tensor, "s"]) -> Float[Tensor, "d s"]:
        """The weights of the candidates, which sum to 1. Sigmoids let no weight change by more than a factor e."""
        return (prior + (logits if self.parametrisation == "softmax" else logits.sigmoid())).softmax(1)

    def prior(self, candidates: Float[Tensor, "s"], target: float) -> Float[Tensor, "s"]:
        """What is added to the logits: t x candidate, so that learning starts at the target; nothing as released."""
        low, high = (0.0, 0.0) if self.parametrisation == "released" else (-1e4, 1e4)
        for _ in range(100):  # bisection: the rate grows with t
            middle = (low + high) / 2
            short = (middle * candidates).softmax(0) @ candidates < target
            low, high = (middle, high) if short else (low, middle)
        return high * candidates


def shares(weights: Sequence[Tensor], counts: Sequence[int]) -> Float[Tensor, "d"]:
    """The share of all weights that each rate is about, of so many rates for each matrix."""
    sizes = [weight.numel() / count for weight, count in zip(weights, counts, strict=True)]
    share = torch.tensor(sizes, dtype=torch.float64).repeat_interleave(torch.tensor(counts))
    return (share / share.sum()).to(weights[0].device)


@dataclass(frozen=True)
class Ranked:
    """A matrix, and in which order the weights of each group go."""

    weight: Float[Tensor, "o i"]
    place: Int[Tensor, "g n"]  # int32: how many of its group go before this weight
    order: Int[Tensor, "g c m"]  # int32: where in the flattened matrix lie those that candidate c+1 adds to candidate c
    room: Float[Tensor, "_"]  # o i + 1: for what `Masked` makes of it, then of its gradient; the last lies past it


def rank(linear: Linear, steps: int) -> Ranked:
    """Lowest score first, of equal ones the leftmost; groups are what competes under the linear's pattern.

    Candidates, from 0 to 1, add at most m weights each; where one adds fewer, `order` ends with places past the matrix.
    """
    scores = linear.score()
    order = (scores if linear.pattern.per_row else scores.reshape(1, -1)).argsort(dim=1, stable=True)
    g, n = order.shape
    each = torch.arange(n, dtype=torch.int32, device=order.device).expand(g, n)
    place = torch.empty_like(each, memory_format=torch.contiguous_format).scatter_(1, order, each)
    order += n * torch.arange(g, device=order.device)[:, None]
    ends = edges(n, steps).to(order.device)
    added = ends[:-1, None] + torch.arange(int(ends.diff().max()), device=order.device)  # [c, m]
    added = added.masked_fill_(added >= ends[1:, None], n)
    order = pad(order.int(), (0, 1), value=g * n)[:, added].contiguous()
    return Ranked(linear.weight, place, order, scores.new_empty(g * n + 1))


def edges(n: int, steps: int) -> Int[Tensor, "s"]:
    """How many of n weights the candidates 0, 1 / steps ... 1 remove: whole numbers, no rounding of n x 0.95."""
    return torch.arange(steps + 1) * n // steps


class Masked(torch.autograd.Function):
    """The weight times its hard mask; the gradient is that of the soft mask Q (section 3.2, straight-through).

    Q(r) = 1 - sum_s belief_s [r < edge_s] is the probability to keep the weight at place r, so that
    dL/dbelief_s = - sum_{r < edge_s} (W x dL/dW_hat)(r): sums of what each candidate adds to the one before. Q itself
    is never made.
    """

    @staticmethod
    def forward(
        ctx: Any,
        belief: Float[Tensor, "d s"],
        rates: Float[Tensor, "d"],
        ranked: Ranked,
        room: Float[Tensor, "r"],
        weight: Float[Tensor, "o i"],
    ) -> Tensor:
        """A group loses its first floor(rate x n + 1e-6) weights. The rates get no gradient here.

        The answer lies in the matrix's own room until its gradient is known: fresh memory costs more than arithmetic.
        """
        ctx.ranked, ctx.rates, ctx.room = ranked, len(rates), room
        gone = (rates * ranked.place.shape[1] + EPSILON).floor().int()[:, None]
        masked = ranked.room[:-1].view_as(ranked.weight)
        bits = masked.view(torch.int32)
        torch.sub(gone - 1, ranked.place, out=bits.view_as(ranked.place)).bitwise_right_shift_(31)
        ctx.weight, ctx.stays = weight, bits.bool() if ctx.needs_input_grad[4] else None
        bits.bitwise_and_(weight.view(torch.int32))  # with all ones where a weight stays, zero elsewhere
        return masked.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "o i"]) -> tuple[Tensor, None, None, None, Tensor | None]:
        """Groups that share a rate are summed; only sums of few weights are float32. What stays gets its own."""
        ranked, gains, size = ctx.ranked, ctx.ranked.room, ctx.ranked.order.numel()
        torch.mul(ctx.weight, gradient, out=gains[:-1].view_as(gradient))
        gains[-1] = 0.0
        torch.index_select(gains, 0, ranked.order.view(-1), out=ctx.room[:size])
        added = ctx.room[:size].view(ranked.order.shape).sum(2).double()
        below = added.view(ctx.rates, -1, added.shape[1]).sum(1).cumsum(1)
        own = None if ctx.stays is None else gradient * ctx.stays
        return -pad(below, (1, 0)).flip(1), None, None, None, own


def relative_error(output: Float[Tensor, "b t *s h"], target: Float[Tensor, "b t *s h"]) -> Float[Tensor, ""]:
    """sum_t (y - target)^2 / sum_t target^2, averaged over channels; a channel whose target is zero counts as right."""
    size = target.square().sum((0, 1))
    return ((output - target).square().sum((0, 1)) / size.masked_fill(size == 0, torch.inf)).mean()
