"""Which numbers of a table are bold: only those that differ by more than the noise."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

from experiments.runs.difference import difference
from experiments.summary.rows import Row
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


@dataclass(frozen=True)
class Contest:
    """The groups of one model, pattern and sparsity by one metric: the best, and how far behind the others are.

    `tied` are those that are not significantly worse, `behind` is the first that is; margins are positive where the
    best is better, with the half width of their 95 % interval (None where it is not known).
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
    def tied(self) -> list[Group]:
        """The others, in order, that are not significantly worse."""
        return [group for group, margin, half in self.rivals if not _clear(margin, half)]


def contests(groups: Iterable[Group], metrics: Iterable[str]) -> Iterator[Contest]:
    """The best of each model, pattern, sparsity (two digits) and metric, where at least one value is finite."""
    places: dict[tuple[str, str, float], list[Group]] = {}
    for group in groups:
        if not group.dense and group.sparsity is not None:
            places.setdefault((group.model, group.pattern, round(group.sparsity, 2)), []).append(group)
    for metric in metrics:
        for (model, pattern, sparsity), members in places.items():
            known = [group for group in members if metric in group.means and math.isfinite(group.means[metric].value)]
            better = -1 if metric.startswith("ppl/") else 1
            known.sort(key=lambda group, better=better: -better * group.means[metric].value)
            if known:
                rivals = [(other, *_margin(known[0], other, metric, better)) for other in known[1:]]
                yield Contest(model, pattern, sparsity, metric, known[0], rivals)


def moved(group: Group, metric: str) -> bool:
    """Whether the difference to the dense model is significant."""
    mean = group.means[metric]
    return mean.difference is not None and _clear(abs(mean.difference), mean.difference_half)


def _clear(margin: float, half: float | None) -> bool:
    return half is not None and margin > half


def _margin(best: Group, other: Group, metric: str, better: int) -> tuple[float, float | None]:
    """How much better the best is and the half width of the 95 % interval of that, over the runs that can be paired."""
    pairs = list(_pairs(best, other, metric))
    if not pairs:
        return abs(best.means[metric].value - other.means[metric].value), None
    found = [difference(a.record, b.record, a.values[metric].key, b.values[metric].key) for a, b in pairs]
    margins = [-better * move for move, _ in found]
    return fmean(margins), half_width(margins, [error for _, error in found])


def _pairs(first: Group, second: Group, metric: str) -> Iterator[tuple[Row, Row]]:
    """The runs of both groups with equal seeds; a run that stands alone is held against each of the other's."""
    ours, theirs = ([row for row in group.rows if metric in row.values] for group in (first, second))
    alone = min(len(ours), len(theirs)) == 1
    return ((a, b) for a in ours for b in theirs if alone or a.record.seeds == b.record.seeds)
