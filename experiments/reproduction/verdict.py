"""What a few seeds say of one published number."""

from collections.abc import Sequence
from decimal import Decimal
from math import inf

from experiments.summary.interval import prediction

NOISE, BETTER, WORSE = "within noise", "better", "worse"
NOT_COMPARABLE, NOT_JUDGED = "not comparable", "not judged"


def rounding(printed: str) -> float:
    """Half a unit of the last digit of a printed number: 0.005 of 5.47, and of 5.40 too; ValueError if it is none."""
    exponent = Decimal(printed).as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"expected a number, found {printed}")
    return float(Decimal(5).scaleb(exponent - 1))


def verdict(values: Sequence[float], published: float, slack: float, drawn: bool, lower: bool = True) -> str:
    """What our values say of a published number, which is one draw too.

    `slack` widens the prediction interval: the published rounding and spread, in the unit of the values. `drawn` tells
    whether a seed changes the values: one value of a method that draws is judged only where it is within the slack.
    `lower` is better for a perplexity, not for an accuracy.
    """
    mean, half = prediction(values)
    distance = mean - published
    if abs(distance) <= slack + 1e-12 * abs(published):  # 5.475 is not outside 5.47 +- 0.005
        return NOISE
    if len(values) == 1:
        half = inf if drawn else 0.0
    if half == inf:
        return NOT_JUDGED
    if abs(distance) <= half + slack:
        return NOISE
    return BETTER if (distance < 0) == lower else WORSE
