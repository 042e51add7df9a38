"""What most pictures show, as numbers: runs that differ in their seed alone, taken together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median

from experiments.archive import Record
from experiments.overview import Row, arrange
from experiments.paired import SURE
from experiments.protocol import rank
from experiments.reporting import seeds
from experiments.reproduction.interval import interval

FEW, FAR = 4, 8.0  # of so many values at least, one so many times their median is not shown in its place
Spread = tuple[float, float | None]  # a mean, and how far its bar reaches


@dataclass(frozen=True)
class Series:
    """Finished runs of one model, method, pattern, asked sparsity and settings; they differ in their seed."""

    model: str
    method: str
    pattern: str
    sparsity: float
    rows: list[Row]

    @property
    def budget(self) -> str:
        """Pattern and asked sparsity, for people."""
        return f"{self.pattern} {self.sparsity:g}"

    @property
    def records(self) -> list[Record]:
        """Its runs."""
        return [row.record for row in self.rows]

    def finite(self, metric: str) -> list[float]:
        """The metric of every run that has it, those that diverged left out."""
        values = [row.values[metric].value for row in self.rows if metric in row.values]
        return [value for value in values if isfinite(value)]

    def spread(self, metric: str) -> Spread | None:
        """Mean, and half of its 95 % interval: over the seeds, or of one run alone over the evaluated data."""
        values = self.finite(metric)
        if len(values) > 1:
            return interval(values)
        errors = [row.values[metric].error for row in self.rows if metric in row.values]
        return (values[0], None if errors[0] is None else SURE * errors[0]) if values else None

    def average(self, section: str, name: str) -> float | None:
        """Mean over the runs of a number in their results, such as the seconds of a stage."""
        found = [record.results.get(section, {}).get(name) for record in self.records]
        known = [float(value) for value in found if value is not None]
        return sum(known) / len(known) if known else None


def grouped(records: Iterable[Record]) -> tuple[list[Series], dict[tuple[str, str], float]]:
    """The series of all pruned runs that are done, in the order of the table; dense values by (model, metric)."""
    groups = seeds.grouped(arrange(records))
    dense = {
        (group.model, metric): mean.value
        for group in groups
        if group.dense
        for metric, mean in group.means.items()
        if isfinite(mean.value)
    }
    asked = [(group, group.rows[0].record.manifest["sparsity"]) for group in groups if not group.dense]
    return [Series(one.model, one.method, one.pattern, sparsity, one.rows) for one, sparsity in asked], dense


def metrics(series: Iterable[Series], family: str = "") -> list[str]:
    """The metrics that any of the runs has, in reading order; of one family only, such as ppl."""
    found = {metric for one in series for row in one.rows for metric in row.values}
    return sorted((metric for metric in found if metric.startswith(family)), key=rank)


def by_budget(series: Sequence[Series]) -> Iterator[tuple[str, str, str, list[Series]]]:
    """Model, budget, the model's first metric, and the series that share them; of models without a metric nothing."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        groups.setdefault((one.model, one.budget), []).append(one)
    for (model, budget), members in groups.items():
        for metric in metrics(one for one in series if one.model == model)[:1]:
            yield model, budget, metric, members


def kind(metric: str) -> str:
    """What an axis of this metric says."""
    return "perplexity (lower is better)" if metric.startswith("ppl/") else "accuracy (higher is better)"


def limit(values: Sequence[float]) -> float:
    """The largest value that a picture shows in its place: one failed method must not squeeze all the others."""
    return max(value for value in values if len(values) < FEW or value <= FAR * median(values))
