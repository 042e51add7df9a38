"""Intervals from a few seeds."""

from collections.abc import Sequence
from math import inf
from statistics import NormalDist, fmean, stdev

# 97.5 % quantile of Student's t distribution with 1, 2, ... degrees of freedom.
QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


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
