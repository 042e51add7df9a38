"""Runs that differ in their seeds alone, as one row: means, and 95 % intervals over windows and seeds."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.runs.difference import SURE
from experiments.runs.record import Record
from experiments.summary.interval import interval
from experiments.summary.rows import Row, Table, Value


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
    """The rows of one setting, ordered by seed; a row that has no sibling, the dense one too, is a group of one."""

    model: str
    method: str
    pattern: str
    sparsity: float | None
    rows: list[Row]
    means: dict[str, Mean]
    errors: dict[str, float | None]  # standard errors of the dense model's metrics

    @property
    def dense(self) -> bool:
        """Whether this is a dense model."""
        return self.rows[0].method == "dense"

    @property
    def asked(self) -> float:
        """The sparsity that was asked for."""
        return float(self.rows[0].record.manifest["sparsity"])

    @property
    def budget(self) -> str:
        """Pattern and asked sparsity, for people."""
        return f"{self.pattern} {self.asked:g}"

    @property
    def records(self) -> list[Record]:
        """Its runs."""
        return [row.record for row in self.rows]


def grouped(table: Table) -> list[Group]:
    """The rows of a table as groups, in its order, each named by its method and the settings that set it apart."""
    groups = []
    for model in dict.fromkeys(row.model for row in table.rows):
        dense, *pruned = [row for row in table.rows if row.model == model]
        errors = {metric: value.error for metric, value in dense.values.items()}
        found: dict[tuple[str, str, float], list[Row]] = {}
        for row in pruned:
            key = row.setting, row.pattern, row.record.manifest["sparsity"]
            found.setdefault(key, []).append(row)
        groups += [_group([dense], "dense", errors)]
        groups += [_group(part, label, errors) for (label, *_), rows in found.items() for part in _parts(rows)]
    return groups


def alone(group: Group) -> list[Group]:
    """Each run of a group as a group of its own, named by its seeds."""
    if len(group.rows) == 1:
        return [group]
    named = [", ".join(f"{name} {value}" for name, value in row.record.seeds.items()) for row in group.rows]
    return [_group([row], name, group.errors) for row, name in zip(group.rows, named, strict=True)]


def half_width(values: Sequence[float], errors: Iterable[float | None]) -> float | None:
    """Half width of the 95 % interval of a mean over runs whose standard errors over the same windows are these.

    The windows are the same in all runs, so that their error does not shrink with the number of runs. None where no
    error is known, or a value is not finite.
    """
    known = [error for error in errors if error is not None]
    if not all(map(math.isfinite, values)) or (len(values) == 1 and not known):
        return None
    return math.hypot(SURE * fmean(known) if known else 0.0, interval(values)[1] if len(values) > 1 else 0.0)


def _parts(rows: list[Row]) -> list[list[Row]]:
    """One group, by seed; but rows one by one where a seed is there twice: they are no draws of one thing."""
    once = len({_draw(row) for row in rows}) == len(rows)
    return [sorted(rows, key=_draw)] if once else [[row] for row in rows]


def _draw(row: Row) -> str:
    """The seeds of a run, in an order of their own: 2 before 10."""
    return re.sub(r"\d+", lambda found: found[0].zfill(20), str(sorted(row.record.seeds.items())))


def _group(rows: list[Row], label: str, dense: dict[str, float | None]) -> Group:
    shares = [row.sparsity for row in rows if row.sparsity is not None]
    columns = dict.fromkeys(column for row in rows for column in row.values)
    means = {}
    for column in columns:
        values = [row.values[column] for row in rows if column in row.values]
        means[column] = _mean(values, dense.get(column))
    first = rows[0]
    return Group(first.model, label, first.pattern, fmean(shares) if shares else None, rows, means, dense)


def _mean(values: list[Value], dense: float | None) -> Mean:
    """The mean of a metric over the runs that have it; the difference over those that know the dense value."""
    numbers = [value.value for value in values]
    half = half_width(numbers, [value.error for value in values])
    known = [value for value in values if value.dense is not None]
    moves = [value.value - value.dense for value in known if value.dense is not None]
    moved = half_width(moves, [_difference_error(value, dense) for value in known]) if moves else None
    return Mean(fmean(numbers), half, fmean(moves) if moves else None, moved, len(values))


def _difference_error(value: Value, dense: float | None) -> float | None:
    """Over pairs of windows where that is known, else as if the two models had been measured independently."""
    if value.difference_error is not None or value.error is None or dense is None:
        return value.difference_error
    return math.hypot(value.error, dense)
