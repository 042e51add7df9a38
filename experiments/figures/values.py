"""The numbers that several pictures show of groups of runs, which differ in their seeds alone."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from statistics import fmean, median
from typing import Any

from experiments.console.families import family, higher
from experiments.console.text import some
from experiments.figures import canvas
from experiments.runs.protocol import rank
from experiments.runs.record import AT_LEAST
from experiments.summary.rows import has_difference
from experiments.summary.seeds import Group, half_width
from experiments.summary.shared import main_metrics, of_images

FEW, FAR = 4, 8.0  # of so many values at least, one so many times as far as their median is not shown in its place
CLOSE = 1.5  # times the median: what is nearer than that is
Spread = tuple[float, float | None]  # a mean, and how far its bar reaches


def pruned(groups: Iterable[Group]) -> list[Group]:
    """Without the dense models."""
    return [group for group in groups if not group.dense]


def method_looks(groups: Iterable[Group], shown: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of the methods that a picture shows, by all methods of the report: the same in each picture."""
    looks, shown = canvas.looks(group.method for group in pruned(groups)), set(shown)
    return {method: look for method, look in looks.items() if method in shown}


def dense(groups: Iterable[Group], model: str, metric: str, times: float = 1.0) -> float | None:
    """A metric of the dense model; None where it is not known, not finite, or says nothing of that model."""
    means = [
        group.means[metric].value for group in groups if group.dense and group.model == model and metric in group.means
    ]
    return times * means[0] if means and isfinite(means[0]) and has_difference(metric) else None


def unknown_costs(groups: Sequence[Group]) -> list[str]:
    """A note on the methods that have no place among costs, for only the least that they cost is known."""
    stages = [
        (group.method, {s for r in group.records for s in r.results.get("seconds", {})}) for group in pruned(groups)
    ]
    least = dict.fromkeys(method for method, told in stages if f"prune{AT_LEAST}" in told and "prune" not in told)
    return [f"not shown, as only the least of their seconds is known: {some(least, 4)}"] if least else []


def finite(group: Group, metric: str) -> list[float]:
    """The metric of every run that has it, those that diverged left out."""
    values = [row.values[metric].value for row in group.rows if metric in row.values]
    return [value for value in values if isfinite(value)]


def spread(group: Group, metric: str, seeds: bool = False, times: float = 1.0) -> Spread | None:
    """Mean, and half of the 95 % interval of its difference to the dense model, over pairs of the same windows.

    Of what has no such difference it is the interval of the mean itself. With `seeds` it covers their draw too. None
    where one of the runs did not keep its windows. Both are in units of which `times` are one.
    """
    values = [row.values[metric] for row in group.rows if metric in row.values and isfinite(row.values[metric].value)]
    if not values:
        return None
    mean, errors = times * fmean(value.value for value in values), [value.difference_error for value in values]
    moves = [value.difference for value in values if value.difference is not None]
    if not has_difference(metric):
        moves, errors = [value.value for value in values], [value.error for value in values]
    if None in errors or not moves:
        return mean, None
    half = half_width(moves if seeds else moves[:1], errors)
    return mean, None if half is None else times * half


def metrics(groups: Iterable[Group]) -> list[str]:
    """The metrics that any of the runs has, in reading order."""
    return sorted({metric for group in groups for metric in group.means}, key=rank)


def by_budget(groups: Sequence[Group]) -> Iterator[tuple[str, str, str, list[Group]]]:
    """Model, budget with bits, the model's main metric, and the pruned groups that share them.

    Of models without one nothing.
    """
    places: dict[tuple[str, str], list[Group]] = {}
    for group in pruned(groups):
        budget = ", ".join(filter(None, (group.budget, group.precision)))
        places.setdefault((group.model, budget), []).append(group)
    chosen = main_metrics(groups)
    for (model, budget), members in places.items():
        if model in chosen:
            yield model, budget, chosen[model], members


def sign(metric: str) -> int:
    """1 where less is better, as of a perplexity, else -1."""
    return -1 if higher(metric) else 1


def unit(groups: Iterable[Group], metric: str) -> tuple[float, str]:
    """What values are shown times, and how that is called: shares of images are in percent."""
    known = family(metric)
    return (100.0, " %") if known and known.percent and of_images(groups, metric) else (1.0, "")


def limit(values: Sequence[float], dense: float | None = 0.0) -> float:
    """The largest value that a picture shows in its place: one failed method must not squeeze all the others.

    How far a value is counts from the dense one, or from the least where that is smaller or the dense one not known.
    """
    middle, low = median(values), min(values if dense is None else [*values, dense])
    far = max(low + FAR * (middle - low), CLOSE * middle)
    return max(value for value in values if len(values) < FEW or value <= far)
