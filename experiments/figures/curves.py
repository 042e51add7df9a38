"""Perplexity of every method against sparsity: curves where sparsities were swept, else a line of dots per method."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas, style
from experiments.figures.values import Spread, dense, finite, kind, limit, metrics, pruned, spread
from experiments.summary.seeds import Group

PANELS = 6
METHODS = 24
SWEEP = 3  # sparsities from which a method has a curve
Label = tuple[float, float, str]
VALUED = 12  # with more dots in a panel, their values would cover each other


@dataclass(frozen=True)
class Panel:
    """The finite means of one model and metric, best method first; `lost` names runs that diverged."""

    model: str
    metric: str
    dense: float | None
    points: list[tuple[Group, Spread]]
    lost: list[str]

    @property
    def methods(self) -> list[str]:
        """From the best to the worst, by the first of their values."""
        return list(dict.fromkeys(one.method for one, _ in sorted(self.points, key=lambda point: point[1][0])))

    @property
    def budgets(self) -> list[str]:
        """Patterns with their sparsities, in the order of the table."""
        return list(dict.fromkeys(one.budget for one, _ in sorted(self.points, key=lambda p: p[0].asked)))

    @property
    def swept(self) -> bool:
        """Whether a method was run at enough sparsities for a curve."""
        counts: dict[tuple[str, str], int] = {}
        for one, _ in self.points:
            counts[one.method, one.pattern] = counts.get((one.method, one.pattern), 0) + 1
        return max(counts.values(), default=0) >= SWEEP

    @property
    def limit(self) -> float:
        """The largest mean that is shown in its place; a curve may rise as far as it does."""
        return inf if self.swept else limit([mean for _, (mean, _) in self.points])

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value shown in its place, bars and the dense value included."""
        shown = [(mean, reach or 0.0) for _, (mean, reach) in self.points if mean <= self.limit]
        ends = [mean + sign * reach for mean, reach in shown for sign in (-1, 0, 1)]
        values = [end for end in ends if 0 < end < inf] + ([] if self.dense is None else [self.dense])
        return min(values), max(values)


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each model and perplexity that a pruned run has."""
    found = []
    for model in dict.fromkeys(group.model for group in pruned(groups)):
        own = [group for group in pruned(groups) if group.model == model]
        for metric in metrics(own, "ppl/"):
            mine = [group for group in own if metric in group.means]
            known = [(group, reach) for group in mine if (reach := spread(group, metric)) is not None]
            lost = [group for group in mine if len(finite(group, metric)) < group.means[metric].count]
            names = [f"{group.method} {group.budget}" for group in lost]
            found.append(Panel(model, metric, dense(groups, model, metric), known, names))
    return found


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws the panels; False where no pruned run has a finite perplexity."""
    found = [panel for panel in panels(groups) if panel.points]
    if not found:
        return False
    shown = found[:PANELS]
    most = min(METHODS, max(len(panel.methods) for panel in shown))
    lines = -(-len(shown) // min(2, len(shown)))
    figure = canvas.figure(height=130 + lines * (440 if any(p.swept for p in shown) else max(260, 110 + 27 * most)))
    methods = style.looks(one.method for panel in shown if panel.swept for one, _ in panel.points)
    budgets = style.shapes(budget for panel in shown if not panel.swept for budget in panel.budgets)
    patterns = sorted({one.pattern for panel in shown for one, _ in panel.points})
    ends = []
    for axes, panel in zip(canvas.grid(figure, len(shown)), shown, strict=True):
        draw_panel, looks = (_curves, methods) if panel.swept else (_dots, budgets)
        ends.append((axes, draw_panel(axes, panel, looks, patterns)))
        canvas.title(axes, f"{panel.model}, {panel.metric}", canvas.NAMED / min(2, len(shown)))
    solid = [(style.short(name), {**look, "marker": ""}) for name, look in methods.items()]
    shapes = [(p, _shape(p, patterns) | {"color": "#444444", "linestyle": "none"}) for p in patterns]
    hollow = [(name, {**look, "linestyle": "none"}) for name, look in budgets.items()]
    canvas.legend(figure, hollow + solid + shapes * (bool(methods) and len(patterns) > 1))
    canvas.footnote(figure, _notes(found))
    for axes, labels in ends:
        canvas.beside(axes, labels, sides=1)
    canvas.save(figure, place)
    return True


def _notes(panels: list[Panel]) -> list[str]:
    names = [f"{panel.model} {panel.metric}" for panel in panels]
    notes = style.first(names, PANELS, "models and perplexities")
    for panel in panels[:PANELS]:
        notes += style.first(panel.methods, METHODS, f"methods of {panel.model}, the worst ones")
    lost = dict.fromkeys(name for panel in panels for name in panel.lost)
    return notes + [f"diverged in at least one run, which is left out: {', '.join(lost)}"] * bool(lost)


def _shape(pattern: str, patterns: list[str]) -> dict[str, Any]:
    return {"marker": style.MARKERS[patterns.index(pattern) % len(style.MARKERS)], "markersize": 8}


def _curves(axes: Any, panel: Panel, methods: dict[str, dict[str, Any]], patterns: list[str]) -> list[Label]:
    """x is the realised sparsity; a line joins what one method reaches under one pattern. Returns their ends."""
    lines: dict[tuple[str, str], list[tuple[float, Spread]]] = {}
    for one, point in panel.points:
        realised = [row.sparsity for row in one.rows if row.sparsity is not None]
        place = sum(realised) / len(realised) if realised else one.asked
        lines.setdefault((one.method, one.pattern), []).append((place, point))
    shown, ends = panel.methods[:METHODS], []
    for (method, pattern), points in sorted(lines.items()):
        if method in shown:
            xs, ys, bars = zip(*[(x, mean, reach or 0.0) for x, (mean, reach) in sorted(points)], strict=True)
            look = methods[method] | _shape(pattern, patterns)
            axes.errorbar(xs, ys, yerr=bars, linewidth=1.6, elinewidth=1.2, capsize=3, **look)
            ends += [(xs[-1], ys[-1], style.short(method, 16))] * (len(xs) > 1)
    axes.set_xlim(right=axes.get_xlim()[1] + 0.15 * (axes.get_xlim()[1] - axes.get_xlim()[0]))  # room for the names
    canvas.scale(axes.yaxis, *panel.span)
    canvas.tidy(axes, "y")
    axes.set_xlabel("sparsity (share of weights removed)")
    axes.set_ylabel(kind(panel.metric))
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}")
    return ends


def _dots(axes: Any, panel: Panel, budgets: dict[str, dict[str, Any]], _: list[str]) -> list[Label]:
    """A line for each method, the best one first, on it a dot for each budget."""
    shown = panel.methods[:METHODS]
    points = [(one, spread) for one, spread in panel.points if one.method in shown]
    alone = len(points) == len(shown) <= VALUED
    canvas.scale(axes.xaxis, *panel.span)
    edge, beside = axes.get_xlim()[1], {"textcoords": "offset points", "fontsize": 10}
    for one, (mean, reach) in points:
        y, look = shown.index(one.method), budgets[one.budget] | {"linestyle": "none"}
        if mean > panel.limit:
            axes.plot([edge], [y], clip_on=False, **look)
        else:
            axes.errorbar([mean], [y], xerr=None if reach is None else [reach], capsize=3, **look)
            axes.annotate(_digits(mean) * alone, (mean, y), xytext=(0, 7), ha="center", **beside)
    for y, method in enumerate(shown):
        if far := sorted(mean for one, (mean, _) in points if one.method == method and mean > panel.limit):
            axes.annotate("→ " + ", ".join(map(_digits, far)), (edge, y), xytext=(8, 0), va="center", **beside)
    axes.set_yticks(range(len(shown)), [style.short(name) for name in shown])
    axes.set_ylim(len(shown) - 0.4, -1.1)
    canvas.tidy(axes, "both")
    axes.set_xlabel(kind(panel.metric))
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}", upright=True)
    return []


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 100 else rounded(value, 3)
