"""Exactly so many of the lowest scores: what every pattern comes down to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LANE = 255  # the most that a byte counts


def lowest(scores: Float[Tensor, "g k"], counts: Int[Tensor, "g"]) -> Bool[Tensor, "g k"]:
    """True at the counts[g] lowest scores of every group, of equal ones the leftmost; compared as float32.

    No sort: the highest score that goes is found bit by bit, with 32 counts of all groups at once, and no index is kept
    per weight.
    """
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes one zero of the two
    keys = bits ^ (bits >> 31 & 0x7FFFFFFF)  # ordered as the scores are, the negative ones too
    due = counts[:, None]
    found = torch.full_like(due, -(2**31), dtype=torch.int64)
    for bit in reversed(range(32)):
        higher = found + 2**bit
        found = torch.where(_count(keys < higher.int()) < due, higher, found)
    threshold = found.int()
    below, equal = keys < threshold, keys == threshold
    return below | equal & (equal.cumsum(1, dtype=torch.int32) <= due - _count(below))


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
