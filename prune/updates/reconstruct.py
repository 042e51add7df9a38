"""Train the weights that a mask keeps until their block gives its dense output again.

Block reconstruction on a fixed mask: EBFT (Guo et al., 2024, arXiv 2402.12419), BR and GP (Shin et al., 2024, arXiv
2406.15524), whose second form carries the dense model's own stream along. What is ours: rates relative to each
matrix's weights, and held-out sequences that choose the epoch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import cos, inf, pi
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prune.method import Pruned, Unit, Update

Weights = dict[str, Float[Tensor, "_ _"]]  # by name inside the block, [o, i]
Masks = Mapping[str, Bool[Tensor, "_ _"]]


@dataclass(frozen=True)
class Reconstruct(Update):
    """Adam on the kept weights of a unit; the loss of a sequence is ||y - t||^2 / ||t||^2, y and t over all its tokens.

    The mask is the given one, or else the metric's; the start is the given run's weights, or else the dense ones.
    epochs: passes over the sequences, in their order. rate: of Adam, relative to the root mean square of a matrix's
    kept weights; it rises for the first `warmup` of all steps and falls to 0 as a cosine. batch: sequences of a step.
    clip: the largest norm of a step's gradient over all matrices, in which each is measured in its own weights' size;
    None clips nothing. holdout: the share of the sequences, the last ones, that no step sees: the epoch with the least
    loss on them is kept, the start among them; 0 keeps the last epoch. reference: t is the dense block's output on the
    pruned stream (pruned: EBFT, BR), or in the dense model (dense: GP, for whole blocks). ValueError out of range.
    """

    runs_block: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True
    epochs: int = 8
    rate: float = 0.01
    batch: int = 4
    warmup: float = 0.05
    clip: float | None = 1.0
    holdout: float = 0.125
    reference: Literal["pruned", "dense"] = "dense"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not 0 < self.rate < inf:
            raise ValueError(f"reconstruct: expected epochs >= 1, batch >= 1 and rate > 0, found {self}")
        if not 0 <= self.warmup <= 1 or not 0 <= self.holdout < 1 or (self.clip is not None and not self.clip > 0):
            raise ValueError(f"reconstruct: expected warmup in 0..1, holdout in 0..1 below 1, clip > 0, found {self}")
        if self.reference not in ("pruned", "dense"):
            raise ValueError(f"reconstruct: expected reference pruned | dense, found {self.reference!r}")

    def __call__(self, unit: Unit) -> dict[str, Pruned]:
        """The weights of the best epoch on the same masks; measures: both losses before and after, and that epoch."""
        masks = {name: linear.select() for name, linear in unit.linears.items()}
        start = {
            name: linear.given.weight.clone() if linear.given else linear.weight.masked_fill(~masks[name], 0.0)
            for name, linear in unit.linears.items()
        }
        before = losses(unit, start, unit.calls())
        held = min(max(round(self.holdout * len(before)), 1), len(before) - 1) if self.holdout else 0
        seen = len(before) - held
        found, epoch = self.train(unit, start, masks, seen, sum(before[seen:])) if seen else (start, 0)
        after = losses(unit, found, unit.calls())
        told = {"epoch": float(epoch)}
        for what, part in (("loss", slice(seen)), ("held_out", slice(seen, None))):
            if before[part]:
                told |= {f"{what}_before": mean(before[part]), what: mean(after[part])}
        return {name: Pruned(weight, masks[name], measures=told) for name, weight in found.items()}

    def train(self, unit: Unit, start: Weights, masks: Masks, seen: int, least: float) -> tuple[Weights, int]:
        """The weights of the epoch whose held-out loss is below `least` and all others', and its number; 0: none is.

        Without held-out sequences those of the last.
        """
        weights = {name: weight.clone().requires_grad_() for name, weight in start.items()}
        sizes = {name: weight.detach()[masks[name]].square().mean().sqrt().item() for name, weight in weights.items()}
        groups = [{"params": [weights[name]], "lr": self.rate * sizes[name]} for name in weights]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
        total = self.epochs * -(-seen // self.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.pace(step, total))
        best, chosen = start, 0
        for epoch in range(1, self.epochs + 1):
            calls = islice(unit.calls(), seen)
            while batch := list(islice(calls, self.batch)):
                if self.step(unit, weights, masks, sizes, batch):
                    optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            now = sum(losses(unit, weights, islice(unit.calls(), seen, None)))
            if now < least or not self.holdout:
                least, chosen = now, epoch
                best = {name: weight.detach().clone() for name, weight in weights.items()}
        return best, chosen

    def pace(self, step: int, total: int) -> float:
        """The share of the rate that this step of so many has; the first is 0 only where all are."""
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        return (1 + cos(pi * (step - rising) / max(total - rising, 1))) / 2

    def step(self, unit: Unit, weights: Weights, masks: Masks, sizes: Mapping[str, float], batch: list[Any]) -> bool:
        """Puts the gradient of a batch's mean loss on the kept weights; whether any sequence reached the unit."""
        for call in batch:
            loss = relative_error(unit.forward(call, weights), unit.reference(call)) / len(batch)
            if loss.requires_grad:  # not by an expert that this sequence does not reach
                loss.backward()
        moved = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
        for name, gradient in moved.items():
            gradient.mul_(masks[name])  # Adam leaves a weight that never had a gradient at +0.0
        if self.clip is not None and moved:
            norm = sum((sizes[name] * gradient.norm()).square() for name, gradient in moved.items()).sqrt()
            for gradient in moved.values():
                gradient.mul_((self.clip / norm.clamp(min=1e-30)).clamp(max=1.0))
        return bool(moved)


@torch.no_grad()
def losses(unit: Unit, weights: Mapping[str, Tensor], calls: Iterator[Any]) -> list[float]:
    """The loss of each of these calls with these weights."""
    return [relative_error(unit.forward(call, weights), unit.reference(call)).item() for call in calls]


def relative_error(output: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """||y - t||^2 / ||t||^2; 0 where both are zero."""
    size = target.square().sum()
    return (output - target).square().sum() / size.clamp(min=torch.finfo(size.dtype).tiny)


def mean(values: list[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)
