"""The numbers that several pictures show of groups of runs, which differ in their seeds alone."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from statistics import fmean, median

from experiments.runs.difference import SURE
from experiments.runs.protocol import rank
from experiments.summary.interval import interval
from experiments.summary.seeds import Group

FEW, FAR = 4, 8.0  # of so many values at least, one so many times their median is not shown in its place
Spread = tuple[float, float | None]  # a mean, and how far its bar reaches


def pruned(groups: Iterable[Group]) -> list[Group]:
    """Without the dense models."""
    return [group for group in groups if not group.dense]


def dense(groups: Iterable[Group], model: str, metric: str) -> float | None:
    """A metric of the dense model; None where it is not known, or not finite."""
    means = [group.means.get(metric) for group in groups if group.dense and group.model == model]
    values = [mean.value for mean in means if mean is not None and isfinite(mean.value)]
    return values[0] if values else None


def finite(group: Group, metric: str) -> list[float]:
    """The metric of every run that has it, those that diverged left out."""
    values = [row.values[metric].value for row in group.rows if metric in row.values]
    return [value for value in values if isfinite(value)]


def spread(group: Group, metric: str) -> Spread | None:
    """Mean, and half of its 95 % interval: over the seeds, or of one run alone over the evaluated data."""
    values = finite(group, metric)
    if len(values) > 1:
        return interval(values)
    errors = [row.values[metric].error for row in group.rows if metric in row.values]
    return (values[0], None if errors[0] is None else SURE * errors[0]) if values else None


def average(group: Group, section: str, name: str) -> float | None:
    """Mean over the runs of a number in their results, such as the seconds of a stage."""
    found = [record.results.get(section, {}).get(name) for record in group.records]
    known = [float(value) for value in found if value is not None]
    return fmean(known) if known else None


def metrics(groups: Iterable[Group], family: str = "") -> list[str]:
    """The metrics that any of the runs has, in reading order; of one family only, such as ppl."""
    found = {metric for group in groups for metric in group.means}
    return sorted((metric for metric in found if metric.startswith(family)), key=rank)


def by_budget(groups: Sequence[Group]) -> Iterator[tuple[str, str, str, list[Group]]]:
    """Model, budget, the model's first metric, and the pruned groups that share them; of models without one nothing."""
    places: dict[tuple[str, str], list[Group]] = {}
    for group in pruned(groups):
        places.setdefault((group.model, group.budget), []).append(group)
    for (model, budget), members in places.items():
        for metric in metrics(group for group in pruned(groups) if group.model == model)[:1]:
            yield model, budget, metric, members


def kind(metric: str) -> str:
    """What an axis of this metric says."""
    return "perplexity (lower is better)" if metric.startswith("ppl/") else "accuracy (higher is better)"


def limit(values: Sequence[float]) -> float:
    """The largest value that a picture shows in its place: one failed method must not squeeze all the others."""
    return max(value for value in values if len(values) < FEW or value <= FAR * median(values))
