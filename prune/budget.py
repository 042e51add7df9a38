"""Sparsities that meet a budget to the weight: what allocators want, shifted, clipped and made whole numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from prune.method import Linear
from prune.survey import Allotted, Survey


def meet(wanted: Mapping[str, Float[Tensor, "#o"]], sizes: Mapping[str, int], sparsity: float) -> dict[str, Allotted]:
    """Move what is wanted for some matrices onto round(sparsity x all their weights) removed weights.

    wanted: share to remove by name, [1] for the matrix or [o] for its rows; sizes: weights of those matrices.
    All shares move by one and the same number, as far as 0 and 1 allow; then counts are made whole in such a way that
    their running sum is never off by more than half a weight. Order and exactness survive, ValueError for NaN.
    """
    parts = [wanted[name].detach().double().cpu() for name in wanted]
    shares = torch.cat(parts)
    weights = torch.cat(
        [torch.full((len(part),), sizes[name] / len(part)).double() for name, part in zip(wanted, parts, strict=True)]
    )
    if not shares.isfinite().all():
        raise ValueError(f"the allocator wants {int((~shares.isfinite()).sum())} sparsities that are NaN or infinite")
    total = (sparsity * weights.sum() + 0.5).floor()
    edges = ((weights * _shifted(shares, weights, total)).cumsum(0) + 0.5 + 1e-6).floor()
    edges[-1] = total
    counts = edges.diff(prepend=edges.new_zeros(1))
    exact = (counts / weights).clamp(0, 1).split([len(part) for part in parts])
    return {name: Allotted(share, part.mean().item()) for name, share, part in zip(wanted, exact, parts, strict=True)}


def of_model(
    linears: Mapping[str, Linear], wanted: Mapping[str, Float[Tensor, "1"]], survey: Survey, sparsity: float
) -> dict[str, Allotted]:
    """These linears' part of what is wanted for every matrix of the model, by full name, moved onto its budget.

    linears: a whole block, by name inside it. The last block meets what is left: blocks in front of it were solved
    before it was known which matrices of later ones cannot be heard, and so do not count.
    """
    whole = meet(wanted, survey.sizes, sparsity)
    here = {name: whole[linear.name] for name, linear in linears.items()}
    if not survey.lost or list(survey.sizes)[-1] not in {linear.name for linear in linears.values()}:
        return here
    sizes = {name: linear.weight.numel() for name, linear in linears.items()}
    due = int(sparsity * sum(survey.sizes.values()) + 0.5) - survey.removed
    if due == round(sum(here[name].sparsity.item() * size for name, size in sizes.items())):
        return here
    moved = meet({name: part.sparsity for name, part in here.items()}, sizes, due / sum(sizes.values()))
    return {name: replace(part, wanted=here[name].wanted) for name, part in moved.items()}


def part_of(names: Iterable[str], sizes: Mapping[str, int], sparsity: float) -> float:
    """The sparsity of these consecutive matrices that keeps the count of the whole model exact, whatever `sparsity` is.

    sizes: weights of every matrix of the model, in its order. Rounded sums, not sums of rounded counts.
    """
    names, order = set(names), list(sizes)
    first = next(k for k, name in enumerate(order) if name in names)
    start = sum(sizes[name] for name in order[:first])
    stop = start + sum(sizes[name] for name in names)
    return (int(sparsity * stop + 0.5) - int(sparsity * start + 0.5)) / (stop - start)


def left_for(
    names: Iterable[str], survey: Survey, sparsity: float, slack: float
) -> tuple[float, Callable[[float], float]]:
    """What share of these matrices is due if all that are left give the same, and what may be removed instead.

    names: the matrices of a block, in the model's order; those in front of it are solved. The second answer turns a
    share into the nearest one that is within `slack` of `sparsity`, lets all later blocks be so, and makes a whole
    number of weights. For the last block that is what is due: the model's total is round(sparsity x all weights).
    """
    names, order = set(names), list(survey.sizes)
    behind = sum(survey.sizes[name] for name in order[max(map(order.index, names)) + 1 :])
    here = sum(survey.sizes[name] for name in names)
    due = int(sparsity * sum(survey.sizes.values()) + 0.5) - survey.removed
    least = max((sparsity - slack) * here, due - (sparsity + slack) * behind)
    most = min((sparsity + slack) * here, due - (sparsity - slack) * behind)

    def possible(share: float) -> float:
        count = int(min(max(share * here, least), most) + 0.5)
        return min(max(count, 0, due - behind), here, due) / here

    return due / (here + behind), possible


def _shifted(shares: Float[Tensor, "k"], weights: Float[Tensor, "k"], total: Float[Tensor, ""]) -> Float[Tensor, "k"]:
    """The shares plus one number, clipped to 0..1, of which `total` weights come; found by bisection."""
    if (weights @ shares.clamp(0, 1) - total).abs() < 0.5:
        return shares.clamp(0, 1)  # nothing to correct but the rounding
    low, high = -shares.max(), 1 - shares.min()
    for _ in range(100):
        middle = (low + high) / 2
        short = weights @ (shares + middle).clamp(0, 1) < total
        low, high = (middle, high) if short else (low, middle)
    return (shares + high).clamp(0, 1)
