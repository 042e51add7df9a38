"""How far results spread over calibration seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.console.text import rounded
from experiments.figures import canvas
from experiments.figures.values import by_budget, finite, limit, sign
from experiments.summary.seeds import Group, interval


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


def panels(groups: Sequence[Group]) -> dict[str, list[Line]]:
    """Methods that were run with several seeds, the best first, by model, budget and the first metric of the model."""
    titles = {}
    for model, budget, metric, members in by_budget(groups):
        lines = [line for group in members if (line := _line(group, metric)) is not None]
        if lines:
            titles[f"{model}, {budget}, {metric}"] = sorted(lines, key=lambda line: sign(metric) * line.mean)
    return titles


def _line(group: Group, metric: str) -> Line | None:
    """None where fewer than two different seeds have the metric: two runs of one seed say nothing of seeds."""
    draws = {str(row.record.seeds): row for row in group.rows}  # ablate=seed moves data.seed alone
    values = finite(replace(group, rows=list(draws.values())), metric)
    return Line(group.method, values, *interval(values)) if len(values) > 1 and all(values) else None


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels; None where no runs differ in the seed alone."""
    every = panels(groups)
    if not every:
        return None
    titles = list(every)[: canvas.PANELS]
    most = min(canvas.METHODS, max(len(every[title]) for title in titles))
    figure, axes = canvas.panels(titles, 120 + 27 * most)
    for one, title in zip(axes, titles, strict=True):
        _draw(one, every[title][: canvas.METHODS])
    notes = canvas.left_out({title: [line.method for line in lines] for title, lines in every.items()})
    canvas.footnote(figure, [*notes, "rings at the edge of a panel: seeds that lie beyond it"])
    return figure


def _draw(axes: canvas.Axes, lines: list[Line]) -> None:
    """The seeds as rings (at the edge what lies beyond), the interval as a bar, mean and interval at the right."""
    reach = 1.1 * (limit([max(map(abs, (*line.percent[0], line.percent[1]))) for line in lines]) or 1.0)
    ring = {"marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.3, "linestyle": "none"}
    for y, line in enumerate(lines):
        away, half = line.percent
        axes.plot([-half, half], [y, y], color=canvas.COLOURS[0], linewidth=7, alpha=0.35, solid_capstyle="butt")
        shown = [max(-reach, min(x, reach)) for x in away]
        axes.plot(shown, [y] * len(shown), color=canvas.COLOURS[1], clip_on=False, **ring)
        text = f" {rounded(line.mean)} ± {rounded(line.half, 2)}"
        axes.text(1, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=10)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(lines)), [canvas.short(line.method) for line in lines])
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlim=(-reach, reach), xlabel="distance from the mean over the seeds, %")
    axes.locator_params(axis="x", nbins=5)
