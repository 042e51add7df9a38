"""Intervals from a few seeds, and what they say of one published number."""

from collections.abc import Sequence
from decimal import Decimal
from math import inf
from statistics import NormalDist, fmean, stdev

# 97.5 % quantile of Student's t distribution with 1, 2, ... degrees of freedom.
QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
NOISE, BETTER, WORSE = "within noise", "better", "worse"
NOT_COMPARABLE, NOT_JUDGED = "not comparable", "not judged"


def quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t distribution; beyond the table by its expansion around the normal one, to 2e-4."""
    if degrees <= len(QUANTILES):
        return QUANTILES[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / degrees**power for power, term in enumerate(terms))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval (t distribution); infinite for one value alone."""
    if len(values) == 1:
        return values[0], inf
    return fmean(values), quantile(len(values) - 1) * stdev(values) / len(values) ** 0.5


def prediction(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % prediction interval of one more draw; infinite for one value alone."""
    mean, half = interval(values)
    return mean, half * (len(values) + 1) ** 0.5


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
