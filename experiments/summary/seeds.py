"""Runs that differ in their seeds alone, as one row: means, and 95 % intervals over windows and seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from math import cos, hypot, inf, isfinite, pi, sin, tan
from statistics import NormalDist, fmean, stdev

from experiments.runs.bits import Count, precision
from experiments.runs.difference import SURE
from experiments.runs.record import Record
from experiments.summary.rows import Row, Table, Value

# 97.5 % quantile of Student's t distribution with 1, 2, ... degrees of freedom.
TAIL = 0.025
QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


@dataclass(frozen=True)
class Mean:
    """A metric of a group: its mean over `count` runs, the difference to dense, and half widths of 95 % intervals.

    A half width covers the draw of the evaluation windows, and that of the seeds where there are several, as the root
    of the sum of both squares. None where nothing is known of either.
    """

    value: float
    half: float | None
    difference: float | None
    difference_half: float | None
    count: int


@dataclass(frozen=True)
class Group:
    """The rows of one setting, ordered by seed; a row that has no sibling, the dense one too, is a group of one.

    `errors` are the standard errors of the dense model's metrics.
    """

    method: str
    rows: list[Row]
    errors: dict[str, float | None]

    @property
    def model(self) -> str:
        """The model's label."""
        return self.rows[0].model

    @property
    def pattern(self) -> str:
        """The pattern's name; empty for the dense model."""
        return self.rows[0].pattern

    @property
    def dense(self) -> bool:
        """Whether this is a dense model."""
        return self.rows[0].method == "dense"

    @property
    def target(self) -> float:
        """The sparsity that was asked for."""
        return float(self.rows[0].record.manifest["sparsity"])

    @property
    def budget(self) -> str:
        """Pattern and target sparsity, for people."""
        return f"{self.pattern} {self.target:g}"

    @property
    def precision(self) -> str:
        """Bits of a code and what its grids are, as "4 bit g128 sym"; empty where its weights are on no grids."""
        first = self.rows[0].record
        return "" if self.dense else precision(first.results, first.manifest["config"])

    @property
    def equals(self) -> str:
        """The pattern, and the precision where there is one: what else runs are held against has both alike."""
        return ", ".join(filter(None, (self.pattern, self.precision)))

    @cached_property
    def bits(self) -> Count | None:
        """Bits per weight of its first run: no seed changes them by what anybody reads."""
        return self.rows[0].bits

    @cached_property
    def zeros(self) -> float | None:
        """The mean share of zeros where the weights are on grids: the removed, and those whose nearest value is 0."""
        shares = [share for row in self.rows if (share := row.zeros) is not None]
        return fmean(shares) if shares else None

    @property
    def calibration(self) -> str | None:
        """What its runs were calibrated with; None where they read nothing."""
        return " and ".join(dict.fromkeys(row.calibration for row in self.rows if row.calibration)) or None

    @property
    def records(self) -> list[Record]:
        """Its runs."""
        return [row.record for row in self.rows]

    @cached_property
    def sparsity(self) -> float | None:
        """The mean of the realised sparsities."""
        shares = [row.sparsity for row in self.rows if row.sparsity is not None]
        return fmean(shares) if shares else None

    @cached_property
    def means(self) -> dict[str, Mean]:
        """Each metric that one of the runs has."""
        columns = dict.fromkeys(column for row in self.rows for column in row.values)
        members = {column: [row.values[column] for row in self.rows if column in row.values] for column in columns}
        return {column: _mean(values, self.errors.get(column)) for column, values in members.items()}


def grouped(table: Table) -> list[Group]:
    """The rows of a table as groups, in its order, each named by its method and the settings that set it apart."""
    groups = []
    for model in dict.fromkeys(row.model for row in table.rows):
        dense, *pruned = [row for row in table.rows if row.model == model]
        errors = {metric: value.error for metric, value in dense.values.items()}
        settings: dict[tuple[str, str, float], list[Row]] = {}
        for row in pruned:
            settings.setdefault((row.setting, row.pattern, row.record.manifest["sparsity"]), []).append(row)
        groups.append(Group("dense", [dense], errors))
        groups += [Group(name, part, errors) for (name, *_), rows in settings.items() for part in _draws(rows)]
    return groups


def alone(group: Group) -> list[Group]:
    """Each run of a group as a group of its own, named by its seeds."""
    if len(group.rows) == 1:
        return [group]
    names = [", ".join(f"{name} {value}" for name, value in row.record.seeds.items()) for row in group.rows]
    return [Group(name, [row], group.errors) for row, name in zip(group.rows, names, strict=True)]


def _draws(rows: list[Row]) -> list[list[Row]]:
    """One group, by seed; but rows one by one where a seed is there twice: they are no draws of one thing."""
    seeds = lambda row: sorted((name, str(value).zfill(20)) for name, value in row.record.seeds.items())  # 2 before 10
    ordered = sorted(rows, key=seeds)
    twice = any(seeds(row) == seeds(other) for row, other in pairwise(ordered))
    return [[row] for row in rows] if twice else [ordered]


def _mean(values: list[Value], dense: float | None) -> Mean:
    """The mean of a metric over the runs that have it; the difference over those that know the dense value.

    `dense` is the standard error of the dense model's metric.
    """
    numbers = [value.value for value in values]
    half = half_width(numbers, [value.error for value in values])
    known = [value for value in values if value.dense is not None]
    if not known:
        return Mean(fmean(numbers), half, None, None, len(values))
    moves = [value.value - value.dense for value in known if value.dense is not None]
    moved = half_width(moves, [_difference_error(value, dense) for value in known])
    return Mean(fmean(numbers), half, fmean(moves), moved, len(values))


def _difference_error(value: Value, dense: float | None) -> float | None:
    """Over pairs of windows where that is known, else as if the two models had been measured independently."""
    if value.difference_error is not None or value.error is None or dense is None:
        return value.difference_error
    return hypot(value.error, dense)


def half_width(values: Sequence[float], errors: Iterable[float | None], comparisons: int = 1) -> float | None:
    """Half width of the 95 % interval of a mean over runs whose standard errors over the same windows are these.

    The windows are the same in all runs, so that their error does not shrink with the number of runs. None where no
    error is known, or a value is not finite. So many `comparisons` all hold at once with 95 % (Bonferroni).
    """
    known = [error for error in errors if error is not None]
    if not all(map(isfinite, values)) or (len(values) == 1 and not known):
        return None
    normal = SURE if comparisons == 1 else -NormalDist().inv_cdf(TAIL / comparisons)
    drawn = quantile(len(values) - 1, comparisons) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return hypot(normal * fmean(known) if known else 0.0, drawn)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval (t distribution); infinite for one value alone."""
    if len(values) == 1:
        return values[0], inf
    return fmean(values), quantile(len(values) - 1) * stdev(values) / len(values) ** 0.5


def prediction(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % prediction interval of one more draw; infinite for one value alone."""
    mean, half = interval(values)
    return mean, half * (len(values) + 1) ** 0.5


def quantile(degrees: int, comparisons: int = 1) -> float:
    """97.5 % quantile of Student's t distribution; beyond the table by its expansion around the normal one, to 2e-4.

    For several comparisons that which leaves so many times less above it.
    """
    if comparisons > 1:
        return _above(degrees, TAIL / comparisons)
    if degrees <= len(QUANTILES):
        return QUANTILES[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / degrees**power for power, term in enumerate(terms))


@cache
def _above(degrees: int, share: float) -> float:
    """The value above which lies this share of Student's t distribution, by halving the angle whose tangent it is."""
    low, high = 0.0, pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        term, total = cos(angle) if degrees % 2 else 1.0, 0.0
        for k in range(2 + degrees % 2, degrees + 1, 2):
            total, term = total + term, term * cos(angle) ** 2 * (k - 1) / k
        inside = total * sin(angle)
        if degrees % 2:
            inside = 2 / pi * (angle + inside)
        low, high = (angle, high) if inside < 1 - 2 * share else (low, angle)
    return degrees**0.5 * tan(low)
