"""Exactly so many of the lowest scores: what every pattern comes down to."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LANE = 255  # the most that a byte counts
FEW = 4  # counts that differ; with more of them a sort finds all thresholds at once
LARGE = 2**17  # values of a group of which a sample says where the threshold lies
_searching: list[bool] = []  # whether a CPU is to go the way of a GPU


def lowest(scores: Float[Tensor, "g k"], counts: Int[Tensor, "g"]) -> Bool[Tensor, "g k"]:
    """True at the counts[g] lowest scores of every group, of equal ones the leftmost; compared as float32.

    The highest score that goes is found first, and no index is kept per weight: on a CPU by numpy's partition of each
    group, on a GPU bit by bit, with 32 counts of all groups at once.
    """
    scores, due = scores.float(), counts[:, None]
    cpu = scores.device.type == "cpu" and not _searching
    values = scores if cpu else _ordered(scores)
    threshold = _partitioned(values, counts) if cpu else _searched(values, due)
    below, equal = values < threshold, values == threshold
    left = due - _count(below)
    del values  # as large as all that follows
    if cpu:
        return _untied(below.logical_or_(equal), equal, left[:, 0])
    return below.logical_or_(equal.logical_and_(equal.cumsum(1, dtype=torch.int32) <= left))


@contextmanager
def searched() -> Iterator[None]:
    """A CPU goes the way of a GPU while this lasts: plans count what that takes."""
    _searching.append(True)
    try:
        yield
    finally:
        _searching.pop()


def _untied(chosen: Bool[Tensor, "g k"], equal: Bool[Tensor, "g k"], left: Int[Tensor, "g"]) -> Bool[Tensor, "g k"]:
    """`chosen` with only the `left` leftmost of each group's equal ones; nearly every group has as many as are due."""
    there = _count(equal)[:, 0]
    tied = (there > left).nonzero()[:, 0]
    group, column = equal[tied].nonzero(as_tuple=True)  # group by group, from left to right
    before = there[tied].cumsum(0) - there[tied]
    late = torch.arange(len(group)) - before[group] >= left[tied][group]
    chosen[tied[group[late]], column[late]] = False
    return chosen


def _partitioned(scores: Float[Tensor, "g k"], counts: Int[Tensor, "g"]) -> Float[Tensor, "g 1"]:
    """The highest score of each group that goes, by numpy's partial sort; below all scores where none goes.

    It is several times as fast as torch's sort, topk and kthvalue.
    """
    places = (counts - 1).clamp(min=0)
    if scores.shape[1] >= LARGE:
        found = [_bracketed(group, place) for group, place in zip(scores, places.tolist(), strict=True)]
        return torch.stack(found)[:, None].masked_fill_(counts[:, None] < 1, -torch.inf)
    few = places.unique()
    ordered = scores.numpy(force=True).copy()
    ordered.partition(few.numpy(), axis=1) if len(few) <= FEW else ordered.sort(axis=1)
    threshold = torch.from_numpy(ordered).gather(1, places[:, None])
    return threshold.masked_fill_(counts[:, None] < 1, -torch.inf)


def _bracketed(values: Float[Tensor, "k"], place: int) -> Float[Tensor, ""]:
    """The value at this place of their order. A sample says between which two it lies, and only those are sorted out.

    Should it not lie there, which no result shows, all are.
    """
    array, stride = values.numpy(force=True), isqrt(len(values)) // 8 | 1  # odd: not always in the same columns
    sample = array[::stride].copy()
    sample.sort()
    middle, spare = place * len(sample) // len(values), 2 * isqrt(len(sample))
    low = sample[middle - spare].item() if middle >= spare else -torch.inf
    high = sample[middle + spare].item() if middle + spare < len(sample) else torch.inf
    below = values < low
    (near,) = (values <= high).logical_xor_(below).numpy(force=True).nonzero()
    left = place - int(below.count_nonzero())
    ordered, left = (array[near], left) if 0 <= left < len(near) else (array.copy(), place)
    ordered.partition(left)
    return torch.from_numpy(ordered)[left]


def _ordered(scores: Float[Tensor, "g k"]) -> Int[Tensor, "g k"]:
    """Whole numbers in the order of the scores, the negative ones too; both zeros are one."""
    bits = (scores + 0.0).view(torch.int32)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))


def _searched(keys: Int[Tensor, "g k"], due: Int[Tensor, "g 1"]) -> Int[Tensor, "g 1"]:
    """The same, bit by bit from the highest."""
    found = torch.full_like(due, -(2**31), dtype=torch.int64)
    for bit in reversed(range(32)):
        higher = found + 2**bit
        found = torch.where(_count(keys < higher.int()) < due, higher, found)
    return found.int()


def _count(chosen: Bool[Tensor, "g k"]) -> Int[Tensor, "g 1"]:
    """How many of each group, eight to a word: 255 words add up without a carry from byte to byte.

    A plain sum of bytes takes twenty times as long on a CPU.
    """
    groups, size = chosen.shape
    words = chosen[:, : size - size % 8].reshape(-1).view(torch.int64).reshape(groups, size // 8)
    stacks = size // 8 // LANE
    stacked = words[:, : stacks * LANE].unflatten(1, (stacks, LANE)).sum(2)
    counts = stacked.view(torch.uint8).sum(1, keepdim=True, dtype=torch.int32)
    return counts + chosen[:, stacks * LANE * 8 :].sum(1, keepdim=True, dtype=torch.int32)
