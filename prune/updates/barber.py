"""Rebuild a mask by what its weights do to the output of their sub-block.

LLM-Barber (Su et al., 2024, arXiv 2408.10631): S_ij = |W_ij| sqrt(mean over sequences of g_ij^2), g the gradient at the
dense weights of mean((y_dense - y_sparse)^2), y the output of an attention or an MLP (run key granularity=submodule).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prune.lowest import lowest
from prune.method import Linear, Pruned, Unit, Update
from prune.pattern import Pattern

Scores = dict[str, Float[Tensor, "_ _"]]  # by name inside the block, [o, i]; shapes differ from matrix to matrix
Masks = dict[str, Bool[Tensor, "_ _"]]
EPSILON = 1e-9  # pairs: what a float64 product with the ratio may be off


@dataclass(frozen=True)
class Barber(Update):
    """Of every group's pairs that would gain by a swap (best pruned, worst kept), the first `ratio` are swapped.

    granularity: which weights are ranked together: row, column, matrix, or all matrices of the unit (block); the
    released code calls these output1, input1, layer, block. score: WD as above, W = |W|, D = sqrt(mean g^2).
    The start is the given mask (run key `given`), or else the metric's. Weights are dense values; with
    retain_reconstruction those that stay are the given run's own. ValueError for fields out of range.
    """

    runs_block: ClassVar[bool] = True
    ratio: float = 0.01
    granularity: str = "row"
    score: str = "WD"
    retain_reconstruction: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"barber: expected ratio in 0..1, the share of gaining pairs to swap, found {self.ratio}")
        if self.granularity not in ("row", "column", "matrix", "block"):
            raise ValueError(f"barber: expected granularity row | column | matrix | block, found {self.granularity!r}")
        if self.score not in ("WD", "W", "D"):
            raise ValueError(f"barber: expected score WD | W | D, found {self.score!r}")

    @property
    def goes_on(self) -> bool:  # type: ignore[override]
        """Only with retain_reconstruction."""
        return self.retain_reconstruction

    def check(self, pattern: Pattern, given: str | None = None) -> None:
        """n:m swaps inside groups of a row, so weights can only be ranked by row."""
        if self.retain_reconstruction and not given:
            raise ValueError(
                "barber: retain_reconstruction keeps the weights of another run; name it, as given=sparsegpt"
            )
        if pattern.width > 1 and self.granularity != "row":
            raise ValueError(
                f"barber: n:m needs update.granularity=row, for a swap stays in its group; found {self.granularity!r}"
            )

    def __call__(self, unit: Unit) -> dict[str, Pruned]:
        """Each matrix with as many weights kept as before; notes count its regrown weights ("swapped")."""
        masks = {name: linear.select() for name, linear in unit.linears.items()}
        weights = {name: self._values(linear, masks[name]) for name, linear in unit.linears.items()}
        scores = self._scores(unit, weights, masks)
        width = max(linear.pattern.width for linear in unit.linears.values())
        answers = {}
        for name, mask in self.rebuild(scores, masks, width).items():
            swapped = int((mask & ~masks[name]).count_nonzero())
            answers[name] = Pruned(weights[name].masked_fill(~mask, 0.0), mask, notes={"swapped": swapped})
        return answers

    def _values(self, linear: Linear, mask: Bool[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """What a weight is if it is kept in the end; this is the |W| of the score, too."""
        if linear.given is None or not self.retain_reconstruction:
            return linear.weight
        return torch.where(mask, linear.given.weight, linear.weight)

    def _scores(self, unit: Unit, weights: Scores, masks: Masks) -> Scores:
        if self.score == "W":
            return {name: weight.abs() for name, weight in weights.items()}
        fisher = squared_gradients(unit, masks)
        return {
            name: square.sqrt_() * (weights[name].abs() if "W" in self.score else 1) for name, square in fisher.items()
        }

    def rebuild(self, scores: Scores, masks: Masks, width: int = 1) -> Masks:
        """The masks of a unit by name, rebuilt group by group; `width` is m for n:m."""
        if self.granularity == "row":
            return {name: rebuild(scores[name], mask, self.ratio, width) for name, mask in masks.items()}
        if self.granularity == "column":
            return {name: rebuild(scores[name].T, mask.T, self.ratio).T for name, mask in masks.items()}
        rebuilt: dict[str, Tensor] = {}
        for names in [list(masks)] if self.granularity == "block" else [[name] for name in masks]:
            joined = [torch.cat([part[name].flatten() for name in names])[None] for part in (scores, masks)]
            parts = rebuild(joined[0], joined[1], self.ratio)[0].split([masks[name].numel() for name in names])
            rebuilt |= {name: part.view_as(masks[name]) for name, part in zip(names, parts, strict=True)}
        return rebuilt


def squared_gradients(unit: Unit, masks: Masks) -> Scores:
    """By name, the mean over sequences of g^2: square first, then mean, so that opposite gradients do not cancel.

    g = d mean((y_dense - y_sparse)^2) / d W_dense, both outputs on the unit's calls, that is on the sparse stream.
    """
    linears = unit.linears
    sparse = {
        name: linear.given.weight if linear.given else linear.weight.masked_fill(~masks[name], 0.0)
        for name, linear in linears.items()
    }
    dense = {name: linear.weight.detach().requires_grad_() for name, linear in linears.items()}
    squares = [torch.zeros_like(weight) for weight in dense.values()]
    sequences = 0
    for call in unit.calls():
        with torch.no_grad():
            target = unit.forward(call, sparse)
        sequences += 1
        loss = (unit.forward(call, dense) - target).square().mean()
        if not loss.requires_grad:
            continue  # an expert with a module of its own that this sequence does not reach
        # An expert that this sequence does not reach has the gradient zero.
        gradients = torch.autograd.grad(loss, list(dense.values()), allow_unused=True, materialize_grads=True)
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        del gradients, gradient  # they would be held while those of the next sequence are made
    return {name: square.div_(sequences) for name, square in zip(linears, squares, strict=True)}


def rebuild(
    scores: Float[Tensor, "g k"], mask: Bool[Tensor, "g k"], ratio: float, width: int = 1
) -> Bool[Tensor, "g k"]:
    """The mask after floor(P x ratio) swaps in every group g, P the pairs that gain: 0 is identity, 1 the best mask.

    Pairs, not thresholds as released, so that counts survive ties. For n:m (`width` m) these floor(P x ratio) best
    pruned weights of a row only say how many swaps each group of m may make: best pruned for worst kept, as released,
    but never without a gain, which the released code does not ask for.
    """
    quota = (gaining(scores, mask).double() * ratio + EPSILON).long()
    grow = lowest(torch.where(mask, torch.inf, -scores), quota)
    if width == 1:
        return (mask | grow) & ~lowest(torch.where(mask, scores, torch.inf), quota)
    quota = grow.reshape(-1, width).sum(-1)
    few, parts = quota.nonzero()[:, 0], mask.reshape(-1, width).clone()
    gain, grow, drop = pairs(scores.reshape(-1, width)[few], parts[few])
    first = torch.arange(width, device=mask.device) < quota[few, None]  # gains fall along a row
    parts[few] = exchange(parts[few], grow, drop, first & (gain > 0))
    return parts.reshape(mask.shape)


def gaining(scores: Float[Tensor, "g k"], mask: Bool[Tensor, "g k"]) -> Int[Tensor, "g"]:
    """How many of `pairs` gain, without a sort: w, the worst score of the best mask of this size, tells.

    As many pruned weights are above w as kept ones are not, so these pairs gain, and the same for kept ones below w;
    in any other pair one of the two is w, or both are on the wrong side.
    """
    worst = torch.where(lowest(scores, (~mask).sum(1)), torch.inf, scores).amin(1, keepdim=True)
    return torch.maximum((~mask & (scores > worst)).sum(1), (mask & (scores < worst)).sum(1))


def pairs(
    scores: Float[Tensor, "g k"], mask: Bool[Tensor, "g k"]
) -> tuple[Float[Tensor, "g k"], Int[Tensor, "g k"], Int[Tensor, "g k"]]:
    """The j-th best pruned weight meets the j-th worst kept one: gain of the swap, index of the one, of the other.

    Where one side has run out the gain is -inf.
    """
    best, grow = scores.masked_fill(mask, -torch.inf).sort(dim=-1, descending=True, stable=True)
    worst, drop = scores.masked_fill(~mask, torch.inf).sort(dim=-1, stable=True)
    return best - worst, grow, drop


def exchange(
    mask: Bool[Tensor, "g k"], grow: Int[Tensor, "g k"], drop: Int[Tensor, "g k"], chosen: Bool[Tensor, "g k"]
) -> Bool[Tensor, "g k"]:
    """The mask with the chosen pairs swapped; they are disjoint, so it keeps as many weights as before."""
    grown, dropped = (torch.zeros_like(mask).scatter(1, index, chosen) for index in (grow, drop))
    return (mask | grown) & ~dropped
