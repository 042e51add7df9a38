"""How far results spread over calibration seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas, style
from experiments.figures.values import by_budget, finite, limit
from experiments.summary.interval import interval
from experiments.summary.seeds import Group

PANELS = 6
METHODS = 24


@dataclass(frozen=True)
class Line:
    """One method: its value of each seed, their mean and half the width of its 95 % interval."""

    method: str
    values: list[float]
    mean: float
    half: float

    @property
    def percent(self) -> tuple[list[float], float]:
        """Each seed's distance from the mean, and the half width, in percent of the mean."""
        return [100 * (value / self.mean - 1) for value in self.values], 100 * self.half / self.mean


@dataclass(frozen=True)
class Panel:
    """The methods of one model and budget, from the best mean on."""

    title: str
    lines: list[Line]


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each model and budget with a method that was run with several seeds; of the model's first metric."""
    found = []
    for model, budget, metric, members in by_budget(groups):
        sign = 1 if metric.startswith("ppl/") else -1
        lines = [line for one in members if (line := _line(one, metric)) is not None]
        lines.sort(key=lambda line, sign=sign: sign * line.mean)
        found += [Panel(f"{model}, {budget}, {metric}", lines)] * bool(lines)
    return found


def _line(group: Group, metric: str) -> Line | None:
    """None where fewer than two different seeds have the metric: two runs of one seed say nothing of seeds."""
    draws = {str(row.record.seeds): row for row in group.rows}  # ablate=seed moves data.seed alone
    values = finite(replace(group, rows=list(draws.values())), metric)
    return Line(group.method, values, *interval(values)) if len(values) > 1 and all(values) else None


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws the panels; False where no runs differ in the seed alone."""
    found = panels(groups)
    if not found:
        return False
    shown = found[:PANELS]
    most = min(METHODS, max(len(panel.lines) for panel in shown))
    columns = min(2, len(shown))
    figure = canvas.figure(height=100 + -(-len(shown) // columns) * (120 + 27 * most))
    for axes, panel in zip(canvas.grid(figure, len(shown)), shown, strict=True):
        _draw(axes, panel.lines[:METHODS])
        canvas.title(axes, panel.title, canvas.NAMED / columns)
    notes = style.first([panel.title for panel in found], PANELS, "models and budgets")
    for panel in shown:
        notes += style.first([line.method for line in panel.lines], METHODS, f"methods of {panel.title}")
    canvas.footnote(figure, [*notes, "rings at the edge of a panel: seeds that lie beyond it"])
    canvas.save(figure, place)
    return True


def _draw(axes: Any, lines: list[Line]) -> None:
    """The seeds as rings (at the edge what lies beyond), the interval as a bar, mean and interval at the right."""
    reach = 1.1 * (limit([max(map(abs, (*line.percent[0], line.percent[1]))) for line in lines]) or 1.0)
    for y, line in enumerate(lines):
        away, half = line.percent
        axes.plot([-half, half], [y, y], color=style.COLOURS[0], linewidth=7, alpha=0.35, solid_capstyle="butt")
        shown = [max(-reach, min(x, reach)) for x in away]
        ring = {"marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.3}
        axes.plot(shown, [y] * len(shown), linestyle="none", color=style.COLOURS[1], clip_on=False, **ring)
        value = " ± ".join(rounded(x, digits) for x, digits in ((line.mean, 4), (line.half, 2)))
        axes.annotate(value, (1, y), xycoords=("axes fraction", "data"), xytext=(6, 0), va="center", fontsize=10,
                      textcoords="offset points")  # fmt: skip
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(lines)), [style.short(line.method) for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(-reach, reach)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("distance from the mean over the seeds, %")
    canvas.tidy(axes, "both")
