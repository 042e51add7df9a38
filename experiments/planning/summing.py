"""What a statistic of a linear's input costs: counted on few features, and scaled to any number of them."""

from collections.abc import Sequence
from functools import cache, partial

import torch

from experiments.planning.counting import count
from prune.statistic import InputStatistic

PROBED = 64  # tokens that a statistic is counted on
NARROW = (8, 16, 24)  # features of them


@cache
def summing(statistic: InputStatistic, width: int) -> tuple[float, float]:
    """Operations and bytes of a statistic of PROBED tokens of `width` features, with their conversion to float32."""
    found = [count(partial(statistic.of, torch.zeros(PROBED, narrow)))[1] for narrow in NARROW]
    operations, traffic = (_at(width, [getattr(each, name) for each in found]) for name in ("operations", "traffic"))
    fixed = statistic_size(statistic, width)  # what is added up is read and written for a batch, not for a token
    return operations, max(traffic - fixed, 0.0) + 3 * 4 * PROBED * width


@cache
def statistic_size(statistic: InputStatistic, width: int) -> int:
    """Bytes of one value of it."""
    return int(_at(width, [statistic.of(torch.zeros(2, narrow)).nbytes for narrow in NARROW]))


def _at(width: int, counts: Sequence[float]) -> float:
    """A polynomial of second degree, as counts of statistics are, from its values at NARROW.

    Tensors without memory would need none of this, but torch imports its compiler for them, which takes a second.
    """
    a, b, c = NARROW
    parts = [(width - b) * (width - c), -2 * (width - a) * (width - c), (width - a) * (width - b)]
    return sum(part * number for part, number in zip(parts, counts, strict=True)) / (2 * (b - a) ** 2)
