"""Perplexity of every method against sparsity: curves where sparsities were swept, else a line of dots per method."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas
from experiments.figures.values import Spread, dense, finite, limit, metrics, pruned, spread
from experiments.summary.seeds import Group
from experiments.summary.shared import main_metrics

PERPLEXITY = "perplexity (lower is better)"
SWEEP = 3  # sparsities from which a method has a curve
LINES = ("-", "--", ":", "-.")  # of patterns


@dataclass(frozen=True)
class Panel:
    """The finite means of one model and metric, the best first; `lost` names runs that diverged."""

    dense: float | None
    points: list[tuple[Group, Spread]]
    lost: list[str]

    @property
    def methods(self) -> list[str]:
        """From the best to the worst, by the best of their values."""
        return list(dict.fromkeys(group.method for group, _ in self.points))

    @property
    def swept(self) -> bool:
        """Whether a method was run at enough sparsities for a curve."""
        return max(Counter((group.method, group.pattern) for group, _ in self.points).values()) >= SWEEP

    @property
    def limit(self) -> float:
        """The largest mean that is shown in its place; a curve may rise as far as it does."""
        return inf if self.swept else limit([mean for _, (mean, _) in self.points])

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value shown in its place, bars and the dense value included."""
        shown = [(mean, reach or 0.0) for _, (mean, reach) in self.points if mean <= self.limit]
        ends = [end for mean, reach in shown for end in (mean - reach, mean, mean + reach) if 0 < end < inf]
        values = ends if self.dense is None else [*ends, self.dense]
        return min(values), max(values)


def panels(groups: Sequence[Group]) -> dict[str, Panel]:
    """A panel for each model and perplexity of which a pruned run has a finite value, the main one first."""
    filled, seeds, chosen = {}, drawn(groups), main_metrics(groups)
    for model in dict.fromkeys(group.model for group in pruned(groups)):
        own = [group for group in pruned(groups) if group.model == model]
        for metric in sorted(metrics(own, "ppl/"), key=lambda metric: metric != chosen.get(model)):
            measured = [group for group in own if metric in group.means]
            points = [(group, point) for group in measured if (point := spread(group, metric, seeds)) is not None]
            points.sort(key=lambda point: point[1][0])
            lost = [group for group in measured if len(finite(group, metric)) < group.means[metric].count]
            names = [f"{group.method} {group.budget}" for group in lost]
            if points:
                filled[f"{model}, {metric}"] = Panel(dense(groups, model, metric), points, names)
    return filled


def drawn(groups: Sequence[Group]) -> bool:
    """Whether every mean is one over several seeds, so that all bars can cover their draw: one rule for all panels."""
    counts = [len(finite(group, metric)) for group in pruned(groups) for metric in metrics([group], "ppl/")]
    return all(count != 1 for count in counts)


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels; None where no pruned run has a finite perplexity."""
    every = panels(groups)
    if not every:
        return None
    shown = list(every.values())[: canvas.PANELS]
    methods = canvas.looks(method for panel in shown if panel.swept for method in panel.methods)
    budgets = canvas.looks(group.budget for panel in shown if not panel.swept for group, _ in panel.points)
    patterns = sorted({group.pattern for panel in shown if panel.swept for group, _ in panel.points})
    lines = {pattern: LINES[place % len(LINES)] for place, pattern in enumerate(patterns)}

    def draw_panel(axes: canvas.Axes, panel: Panel) -> None:
        if panel.swept:
            _curves(axes, panel, methods, lines)
        else:
            _dots(axes, panel, budgets)

    names = {title: panel.methods for title, panel in every.items()}
    height = 440 if methods else max(260, 110 + 27 * canvas.lines(names))
    figure = canvas.composed(every, draw_panel, height, names, _notes(every, drawn(groups)))
    dots = {name: look | {"linestyle": "none"} for name, look in budgets.items()}
    keys = {pattern: {"color": "black", "linestyle": line} for pattern, line in lines.items() if len(lines) > 1}
    canvas.legend(figure, dots | methods | keys)
    return figure


def _notes(every: dict[str, Panel], seeds: bool) -> list[str]:
    """What a bar is, which points have none, and which runs diverged."""
    bars = "bars: 95 % intervals of the difference to the dense model, over pairs of the same evaluated windows"
    notes = [f"{bars}{' and over the seeds' if seeds else ', not over seeds'}"]
    if any(reach is None for panel in every.values() for _, (_, reach) in panel.points):
        notes.append("without a bar: where a run did not keep its single losses")
    if lost := dict.fromkeys(name for panel in every.values() for name in panel.lost):
        notes.append(f"diverged in at least one run, which is left out: {', '.join(lost)}")
    return notes


def _curves(axes: canvas.Axes, panel: Panel, looks: dict[str, dict[str, Any]], lines: dict[str, str]) -> None:
    """x is the realised sparsity; a line joins what one method reaches under one pattern."""
    curves: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for group, (mean, reach) in panel.points:
        place = group.target if group.sparsity is None else group.sparsity
        curves.setdefault((group.method, group.pattern), []).append((place, mean, nan if reach is None else reach))
    for (method, pattern), points in sorted(curves.items()):
        if method in panel.methods[: canvas.METHODS]:
            xs, ys, bars = zip(*sorted(points), strict=True)
            look = looks[method] | {"linestyle": lines[pattern]}
            axes.errorbar(xs, ys, yerr=bars, linewidth=1.6, elinewidth=1.2, capsize=3, **look)
    axes.locator_params(axis="x", nbins=6)
    canvas.scale(axes, "y", panel.span)
    axes.set(xlabel="sparsity (share of weights removed)", ylabel=PERPLEXITY)
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}")


def _dots(axes: canvas.Axes, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    """A line for each method, the best one first, on it a dot for each budget; what lies far away is at the edge."""
    shown = panel.methods[: canvas.METHODS]
    canvas.scale(axes, "x", panel.span)
    edge = axes.get_xlim()[1]
    far: dict[str, list[str]] = {}
    for group, (mean, reach) in panel.points:
        if group.method not in shown:
            continue
        y, look = shown.index(group.method), looks[group.budget] | {"linestyle": "none"}
        if mean <= panel.limit:
            axes.errorbar([mean], [y], xerr=None if reach is None else [reach], capsize=3, **look)
        else:
            axes.plot([edge], [y], clip_on=False, **look)
            far.setdefault(group.method, []).append(_digits(mean))
    for method, values in far.items():
        axes.annotate(f"→ {', '.join(values)}", (edge, shown.index(method)), xytext=(8, 0), va="center", fontsize=10,
                      textcoords="offset points")  # fmt: skip
    axes.set_yticks(range(len(shown)), [canvas.short(name) for name in shown])
    axes.set(ylim=(len(shown) - 0.4, -1.1), xlabel=PERPLEXITY)
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}", upright=True)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 100 else rounded(value, 3)
