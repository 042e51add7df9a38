"""How far results spread over calibration seeds."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas
from experiments.figures.values import by_budget, finite, limit, method_looks, sign, unit
from experiments.summary.seeds import Group, interval

Panel = dict[str, list[float]]  # method -> the metric of each seed, from the best mean on


def panels(groups: Sequence[Group]) -> dict[str, Panel]:
    """By model and budget the methods that their seeds change; of the model's main metric."""
    several = {}
    for model, budget, metric, members in by_budget(groups):
        times, called = unit(groups, metric)
        draws = {group.method: [times * value for value in _draws(group, metric)] for group in members}
        known = {method: values for method, values in draws.items() if len(set(values)) > 1 and all(values)}
        order = sorted(known, key=lambda method: sign(metric) * fmean(draws[method]))
        if known:
            several[f"{model}, {budget}, {metric}{called}"] = {method: known[method] for method in order}
    return several


def _draws(group: Group, metric: str) -> list[float]:
    """The metric of every seed: two runs of one seed are one draw, for they say nothing of seeds."""
    rows = {str(row.record.seeds): row for row in group.rows}  # ablate=seed moves data.seed alone
    return finite(replace(group, rows=list(rows.values())), metric)


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels; None where no runs differ in the seed alone."""
    every = panels(groups)
    if not every:
        return None
    notes = ["marks at the edge of a panel: seeds that lie beyond it"]
    looks = method_looks(groups, [method for panel in every.values() for method in panel])
    return canvas.composed(every, partial(_draw, looks=looks), 120 + 27 * canvas.lines(every), every, notes)


def _draw(axes: canvas.Axes, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    """The seeds as marks (at the edge what lies beyond), the interval as a bar, mean and interval at the right."""
    shown = list(panel)[: canvas.METHODS]
    percent = {method: _percent(panel[method]) for method in shown}
    reach = 1.1 * (limit([max(half, *map(abs, away)) for away, half in percent.values()]) or 1.0)
    for y, (method, (away, half)) in enumerate(percent.items()):
        look = looks[method]
        axes.barh(y, 2 * half, 0.3, left=-half, color=look["color"], alpha=0.35)
        rings = [max(-reach, min(each, reach)) for each in away]
        hollow = {"fillstyle": "none", "markeredgecolor": look["color"], "linestyle": "none", "clip_on": False}
        axes.plot(rings, [y] * len(rings), **look | hollow)
        mean, width = interval(panel[method])
        text = f" {rounded(mean)} ± {rounded(width, 2)}"
        axes.text(1, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=canvas.SMALL)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [canvas.short(method) for method in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(-reach, reach), xlabel="distance from the mean over the seeds, %")
    axes.locator_params(axis="x", nbins=5)


def _percent(values: list[float]) -> tuple[list[float], float]:
    """Each seed's distance from the mean, and half of the mean's 95 % interval, in percent of the mean."""
    mean, half = interval(values)
    return [100 * (value / mean - 1) for value in values], 100 * half / mean
