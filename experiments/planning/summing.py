"""What a statistic of a linear's input costs: counted on so many features, or on fewer and scaled.

Tensors without memory would need no scaling, but torch imports its compiler for them, which takes a second.
"""

from collections.abc import Sequence
from functools import cache, partial

import torch

from experiments.planning.counting import count
from prune.statistic import InputStatistic

PROBED = 64  # tokens that a statistic is counted on
NARROW = (8, 16, 24)  # features that tell the size of a value
WIDE = (2048, 2304, 2560)  # features that tell the cost of more: from here on a Gram matrix has all its panels


@cache
def summing(statistic: InputStatistic, width: int) -> tuple[float, float]:
    """Operations and bytes of a statistic of PROBED tokens of `width` features, with their conversion to float32."""
    places = (width,) if width <= WIDE[-1] else WIDE
    found = [count(partial(statistic.of, torch.zeros(PROBED, place)))[1] for place in places]
    costs = [[getattr(each, name) for each in found] for name in ("operations", "traffic")]
    operations, traffic = (_at(width, places, each) for each in costs)
    fixed = statistic_size(statistic, width)  # what is added up is read and written for a batch, not for a token
    return operations, max(traffic - fixed, 0.0) + 3 * 4 * PROBED * width


@cache
def statistic_size(statistic: InputStatistic, width: int) -> int:
    """Bytes of one value of it."""
    return int(_at(width, NARROW, [statistic.of(torch.zeros(2, narrow)).nbytes for narrow in NARROW]))


def _at(width: int, places: Sequence[int], counts: Sequence[float]) -> float:
    """A polynomial of second degree, as counts of statistics are, from its values at three places, evenly spaced.

    Of one place alone, the value there.
    """
    if len(places) == 1:
        return counts[0]
    a, b, c = places
    parts = [(width - b) * (width - c), -2 * (width - a) * (width - c), (width - a) * (width - b)]
    return sum(part * number for part, number in zip(parts, counts, strict=True)) / (2 * (b - a) ** 2)
