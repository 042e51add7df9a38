"""Which method is best where, how sure that is, and what is bold: only what differs by more than the noise."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

from experiments.console.text import digits, plus_minus
from experiments.runs.difference import difference
from experiments.summary.rows import Row, Table, column_title, readable
from experiments.summary.seeds import Group, half_width

RULES = (  # how the tables of the report are to be read
    "± of a single run covers the draw of the evaluation windows (1.96 standard errors). A row of several runs, which"
    " differ in their seed alone, is their mean, and its ± covers the seeds too (t distribution; both parts added as"
    " squares).",
    "A difference is pruned minus dense, over pairs of the same windows where these are known. It is bold where its"
    " 95 % interval does not contain zero.",
    "A value is bold where it is the best of its model, pattern and sparsity, and better than the runner-up by more"
    " than the 95 % interval of their difference, which is taken over the same evaluation windows and, where both have"
    " several seeds, over the seeds they share.",
    "Where no error is known nothing is bold. Every comparison stands by itself: of twenty that are all noise, one is"
    " bold by chance.",
)
HEADER = ("model", "pattern", "sparsity", "metric", "best", "value", "difference", "how sure")
ALIGN = "llrllrrl"


@dataclass(frozen=True)
class Contest:
    """The groups of one model, pattern and sparsity by one metric: the best, and how far behind the others are.

    `rivals` are the others in order, with their margin (positive where the best is better) and the half width of its
    95 % interval, None where it is not known.
    """

    model: str
    pattern: str
    sparsity: float
    metric: str
    best: Group
    rivals: list[tuple[Group, float, float | None]]

    @property
    def won(self) -> bool:
        """Whether the best is significantly better than the runner-up."""
        return bool(self.rivals) and _clear(*self.rivals[0][1:])

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


def contests(groups: Iterable[Group], metrics: Iterable[str]) -> Iterator[Contest]:
    """The best of each model, pattern, sparsity (two digits) and metric, where at least one value is finite."""
    places: dict[tuple[str, str, float], list[Group]] = {}
    for group in groups:
        if not group.dense and group.sparsity is not None:
            places.setdefault((group.model, group.pattern, round(group.sparsity, 2)), []).append(group)
    for metric in metrics:
        higher = not metric.startswith("ppl/")
        for place, members in places.items():
            known = [group for group in members if metric in group.means and math.isfinite(group.means[metric].value)]
            known.sort(key=lambda group, metric=metric: group.means[metric].value, reverse=higher)
            if known:
                rivals = [(other, *_margin(known[0], other, metric, higher)) for other in known[1:]]
                yield Contest(*place, metric, known[0], rivals)


def moved(group: Group, metric: str) -> bool:
    """Whether the difference to the dense model is significant."""
    mean = group.means[metric]
    return mean.difference is not None and _clear(abs(mean.difference), mean.difference_half)


def _clear(margin: float, half: float | None) -> bool:
    return half is not None and margin > half


def _margin(best: Group, other: Group, metric: str, higher: bool) -> tuple[float, float | None]:
    """How much better the best is and the half width of the 95 % interval of that, over the runs that can be paired."""
    pairs = list(_pairs(best, other, metric))
    if not pairs:
        return abs(best.means[metric].value - other.means[metric].value), None
    differences = [difference(a.record, b.record, a.values[metric].key, b.values[metric].key) for a, b in pairs]
    margins = [-move if higher else move for move, _ in differences]
    return fmean(margins), half_width(margins, [error for _, error in differences])


def _pairs(first: Group, second: Group, metric: str) -> Iterator[tuple[Row, Row]]:
    """The runs of both groups with equal seeds; a run that stands alone is held against each of the other's."""
    ours, theirs = ([row for row in group.rows if metric in row.values] for group in (first, second))
    alone = min(len(ours), len(theirs)) == 1
    return ((a, b) for a in ours for b in theirs if alone or a.record.seeds == b.record.seeds)


def rows(table: Table, contests: Iterable[Contest]) -> list[list[str]]:
    """Cells under `HEADER` for each model, pattern, sparsity and readable metric."""
    body, shown = [], set(readable(table.metrics))
    for contest in contests:
        if contest.metric in shown:
            metric, mean = contest.metric, contest.best.means[contest.metric]
            value = plus_minus(metric, mean.value, mean.half)
            change = plus_minus(metric, mean.difference, mean.difference_half, "+")
            place = [contest.model, contest.pattern, f"{contest.sparsity:.2f}", column_title(metric)]
            body.append([*place, contest.best.method, value, change, contest.verdict])
    return body
