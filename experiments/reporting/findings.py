"""What a report says of runs: which method is best where, and how sure that is."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from experiments.console.families import EVERYWHERE, KNOWN, higher, name_of
from experiments.console.text import digits, plural, plus_minus
from experiments.runs.difference import difference
from experiments.runs.record import Record
from experiments.summary.rows import Row, Table, arrange, column_title
from experiments.summary.seeds import Group, grouped, half_width
from experiments.summary.shared import of_images

STATUSES = ("done", "failed", "interrupted", "running", "unreadable")


@dataclass(frozen=True)
class Contest:
    """The groups of one model, pattern, sparsity and calibration by one metric: the best, and how far the others are.

    pattern: with bits and grids where weights are quantised, for more bits are no merit of a method.

    Groups that read no data are in the contest of every `calibration`, which is empty where none reads any.

    `rivals` are the others in order, with their margin (positive where the best is better) and the half width of its
    interval, None where it is not known. The intervals of all margins of a metric hold at once with 95 %.
    """

    model: str
    pattern: str
    sparsity: float
    calibration: str
    metric: str
    best: Group
    rivals: list[tuple[Group, float, float | None]]

    @property
    def won(self) -> bool:
        """Whether the best is significantly better than each of the others."""
        return bool(self.rivals) and all(_clear(margin, half) for _, margin, half in self.rivals)

    @property
    def verdict(self) -> str:
        """Whether the best is better than the others by more than the noise, in words."""
        if not self.rivals:
            return "the only one here"
        rival, margin, half = self.rivals[0]
        if self.won:
            return f"better than {rival.method}, by {plus_minus(self.metric, margin, half)}"
        if half is None:
            by = f"{digits(self.metric, margin)} ahead of" if margin else "the same as"
            return f"{by} {rival.method}; no error is known"
        tied = [group.method for group, margin, half in self.rivals if not _clear(margin, half)]
        return f"not told apart from {', '.join(tied)}"


class Findings:
    """Runs as a table, the rows of one setting as groups, and the groups held against each other: each once."""

    def __init__(self, records: Sequence[Record], narrow: Callable[[Table], Table] = lambda table: table) -> None:
        """Over these runs, and over what `narrow` leaves of their table."""
        self.records, self.narrow = records, narrow

    @cached_property
    def table(self) -> Table:
        """A row for each run, and what a reader must know about them."""
        return self.narrow(arrange(self.records))

    @cached_property
    def groups(self) -> list[Group]:
        """Runs that differ in their seeds alone, taken together, in the order of the table."""
        return grouped(self.table)

    @cached_property
    def metrics(self) -> list[str]:
        """The columns of results: no member of a group of tasks that is there itself."""
        return self.table.columns

    @cached_property
    def over(self) -> str:
        """What its metrics are over: windows of text, images, or both."""
        kinds = {of_images(self.groups, metric) for metric in self.metrics}
        return {True: "images", False: "windows or images"}[kinds == {True}] if True in kinds else "windows"

    @property
    def declared(self) -> list[tuple[str, str, str]]:
        """Family, title and better direction of the metrics that evaluations declared themselves."""
        names = sorted({name_of(key) for key in self.metrics} - EVERYWHERE)
        return [(name, KNOWN[name].title, "higher" if KNOWN[name].higher else "lower") for name in names]

    @cached_property
    def contests(self) -> list[Contest]:
        """The best of each model, pattern, sparsity and metric. Reads the answers behind the numbers."""
        return list(contests(self.groups, self.metrics))

    @cached_property
    def bold(self) -> set[tuple[Path, str]]:
        """Values in bold, as (folder of a group's first run, metric); what reads no data must win all its contests."""
        place = lambda group, contest: (group.rows[0].record.folder, contest.metric)
        beaten = {place(group, contest) for contest in self.contests for group, *_ in contest.rivals}
        beaten |= {place(contest.best, contest) for contest in self.contests if not contest.won}
        return {place(contest.best, contest) for contest in self.contests if contest.won} - beaten

    def best(self) -> list[list[str]]:
        """Model, pattern, sparsity, calibration, metric, best setting, value, difference to dense, how sure that is."""
        return [_cells(contest) for contest in self.contests if contest.metric in self.table.short]


def _cells(contest: Contest) -> list[str]:
    metric, mean = contest.metric, contest.best.means[contest.metric]
    place = [contest.model, contest.pattern, f"{contest.sparsity:.2f}", contest.calibration, column_title(metric)]
    change = plus_minus(metric, mean.difference, mean.difference_half, "+")
    return [*place, contest.best.method, plus_minus(metric, mean.value, mean.half), change, contest.verdict]


def counts(statuses: Iterable[str]) -> str:
    """How many runs there are, by status."""
    totals = Counter(statuses)
    each = ", ".join(f"{totals[status]} {status}" for status in STATUSES if totals[status])
    return f"{plural(totals.total(), 'run')}: {each}."


def contests(groups: Iterable[Group], metrics: Iterable[str]) -> Iterator[Contest]:
    """The best among equals for each metric, where at least one value is finite."""
    places = _equals(groups)
    for metric in metrics:
        ranked = {place: _ranked(members, metric) for place, members in places.items()}
        comparisons = sum(max(len(known) - 1, 0) for known in ranked.values())
        for place, (best, *others) in ((place, known) for place, known in ranked.items() if known):
            yield Contest(*place, metric, best, [(one, *_margin(best, one, metric, comparisons)) for one in others])


def _ranked(groups: Iterable[Group], metric: str) -> list[Group]:
    """Those with a finite value, the best first."""
    known = [group for group in groups if metric in group.means and math.isfinite(group.means[metric].value)]
    return sorted(known, key=lambda group: group.means[metric].value, reverse=higher(metric))


def _equals(groups: Iterable[Group]) -> dict[tuple[str, str, float, str], list[Group]]:
    """The pruned groups by model, pattern with precision, sparsity (two digits) and calibration."""
    budgets: dict[tuple[str, str, float], list[Group]] = {}
    for group in groups:
        if not group.dense and group.sparsity is not None:
            budgets.setdefault((group.model, group.equals, round(group.sparsity, 2)), []).append(group)
    places = {}
    for budget, members in budgets.items():
        for calibration in dict.fromkeys(group.calibration for group in members if group.calibration) or ("",):
            places[*budget, calibration] = [one for one in members if one.calibration in (None, calibration)]
    return places


def _clear(margin: float, half: float | None) -> bool:
    return half is not None and margin > half


def _margin(best: Group, other: Group, metric: str, comparisons: int) -> tuple[float, float | None]:
    """How much better the best is and the half width of the interval of that, over the runs that can be paired."""
    pairs = list(_pairs(best, other, metric))
    if not pairs:
        return abs(best.means[metric].value - other.means[metric].value), None
    differences = [difference(a.record, b.record, a.values[metric].key, b.values[metric].key) for a, b in pairs]
    margins = [-move if higher(metric) else move for move, _ in differences]
    return fmean(margins), half_width(margins, [error for _, error in differences], comparisons)


def _pairs(first: Group, second: Group, metric: str) -> Iterator[tuple[Row, Row]]:
    """The runs of both groups with equal seeds; a run that stands alone is held against each of the other's."""
    ours, theirs = ([row for row in group.rows if metric in row.values] for group in (first, second))
    alone = min(len(ours), len(theirs)) == 1
    return ((a, b) for a in ours for b in theirs if alone or a.record.seeds == b.record.seeds)
