"""Quality of every method against sparsity: curves of swept patterns, else marks on a line each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import inf, nan
from typing import Any

from experiments.console.families import family
from experiments.console.text import rounded, some
from experiments.figures import canvas
from experiments.figures.values import Spread, dense, finite, limit, method_looks, metrics, pruned, sign, spread, unit
from experiments.summary.rows import has_difference
from experiments.summary.seeds import Group
from experiments.summary.shared import main_metrics, of_images

SWEEP = 3  # sparsities from which a method has a curve
LINES = ("-", "--", ":", "-.")  # of patterns


@dataclass(frozen=True)
class Panel:
    """Finite means of one model and metric, the best first.

    metric: its key. swept: whether its patterns are those that a method has at enough sparsities for a curve. lost:
    runs that diverged. Shares of images are in percent.
    """

    metric: str
    dense: float | None
    points: list[tuple[Group, Spread]]
    swept: bool
    lost: list[str]

    @property
    def budgets(self) -> list[str]:
        """By pattern and sparsity."""
        return [group.budget for group in sorted((group for group, _ in self.points), key=_budget)]

    @property
    def methods(self) -> list[str]:
        """From the best to the worst at the budget that most of them share; behind these those that do not have it."""
        shared = Counter(self.budgets).most_common(1)[0][0]
        at_shared = [group.method for group, _ in self.points if group.budget == shared]
        return list(dict.fromkeys([*at_shared, *(group.method for group, _ in self.points)]))

    @property
    def limit(self) -> float:
        """The largest mean that is shown in its place; a curve may rise as far as it does, and a share is none."""
        return inf if self.swept or sign(self.metric) < 0 else limit([mean for _, (mean, _) in self.points], self.dense)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value shown in its place, bars and the dense value included."""
        shown = [(mean, reach or 0.0) for _, (mean, reach) in self.points if mean <= self.limit]
        ends = [end for mean, reach in shown for end in (mean - reach, mean, mean + reach) if 0 < end < inf]
        values = ends if self.dense is None else [*ends, self.dense]
        return min(values), max(values)


def panels(groups: Sequence[Group], images: bool = False) -> dict[str, Panel]:
    """A panel for each model and metric (of `shown`) of which pruned runs have finite values, the main one first.

    Two, of swept patterns and of the others, where there are both. One mark alone says nothing and is no panel.
    """
    filled, seeds, chosen = {}, drawn(groups, images), main_metrics(groups)
    for model in dict.fromkeys(group.model for group in pruned(groups)):
        own = [group for group in pruned(groups) if group.model == model]
        for metric in sorted(shown(own, images), key=lambda metric: metric != chosen.get(model)):
            parts, times = _parts([group for group in own if metric in group.means]), unit(groups, metric)[0]
            for swept, members in parts.items():
                known = [(group, spread(group, metric, seeds, times)) for group in members]
                points = [(group, point) for group, point in known if point is not None]
                points.sort(key=lambda point: sign(metric) * point[1][0])
                lost = [group for group in members if len(finite(group, metric)) < group.means[metric].count]
                patterns = ", ".join(dict.fromkeys(group.pattern for group in members))
                title = f"{model}, {metric}, {patterns}" if len(parts) > 1 else f"{model}, {metric}"
                if points and len(members) > 1:
                    names = [f"{group.method} {group.budget}" for group in lost]
                    filled[title] = Panel(metric, dense(groups, model, metric, times), points, swept, names)
    return filled


def shown(groups: Sequence[Group], images: bool) -> list[str]:
    """The main metrics to draw, over images or over text: those of which less is better, and accuracies of images."""
    known = [(metric, one) for metric in metrics(groups) if (one := family(metric)) and one.main]
    drawn = [metric for metric, one in known if not one.higher or (images and one.difference)]
    return [metric for metric in drawn if of_images(groups, metric) == images]


def _label(metric: str) -> str:
    known = family(metric)
    percent = ", %" if known and known.percent else ""
    better = "lower" if sign(metric) > 0 else "higher"
    return canvas.beside(f"{known.title if known else metric}{percent} ({better} is better)")


def _parts(groups: Sequence[Group]) -> dict[bool, list[Group]]:
    """Those of patterns that a method has at enough sparsities for a curve, and the others."""
    places = {(group.method, group.pattern, group.target) for group in groups}
    counts = Counter((method, pattern) for method, pattern, _ in places)
    swept = {pattern for (_, pattern), count in counts.items() if count >= SWEEP}
    parts: dict[bool, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.pattern not in swept):
        parts.setdefault(group.pattern in swept, []).append(group)
    return parts


def _budget(group: Group) -> tuple[str, float]:
    return group.pattern, group.target


def _alone(groups: Sequence[Group], images: bool) -> list[str]:
    """A note on metrics that one setting of a model alone has."""
    counts = Counter((group.model, metric) for group in pruned(groups) for metric in shown([group], images))
    single = [f"{metric} ({model})" for (model, metric), count in counts.items() if count == 1]
    return [f"not shown, as one setting alone was measured so: {some(single, 4)}"] if single else []


def drawn(groups: Sequence[Group], images: bool = False) -> bool:
    """Whether every mean is one over several seeds, so that all bars can cover their draw: one rule for all panels."""
    counts = [len(finite(group, metric)) for group in pruned(groups) for metric in shown([group], images)]
    return all(count != 1 for count in counts)


def draw_images(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels of image classifiers; None where no pruned one has a finite value."""
    return draw(groups, images=True)


def draw(groups: Sequence[Group], images: bool = False) -> canvas.Figure | None:
    """The panels of what is measured over text, or over images; None where no pruned run has a finite value."""
    every = panels(groups, images)
    if not every:
        return None
    first = list(every.values())[: canvas.PANELS]
    methods = method_looks(groups, [method for panel in first if panel.swept for method in panel.methods])
    budgets = _budget_looks([panel for panel in first if not panel.swept])
    patterns = sorted({group.pattern for panel in first if panel.swept for group, _ in panel.points})
    lines = {pattern: LINES[place % len(LINES)] for place, pattern in enumerate(patterns)}

    def draw_panel(axes: canvas.Axes, panel: Panel) -> None:
        if panel.swept:
            _curves(axes, panel, methods, lines)
        else:
            _marks(axes, panel, budgets)

    names = {title: panel.methods for title, panel in every.items()}
    heights = [440 if panel.swept else _height(panel) for panel in first]
    notes = [*_notes(every, drawn(groups, images), "images" if images else "windows"), *_alone(groups, images)]
    figure = canvas.composed(every, draw_panel, max(heights), names, notes)
    marks = {name: look | {"linestyle": "none"} for name, look in budgets.items()}
    keys = {pattern: {"color": "black", "linestyle": line} for pattern, line in lines.items() if len(lines) > 1}
    canvas.legend(figure, methods | keys | marks)
    return figure


def _budget_looks(panels: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """A shade and a marker for each budget: colours are methods."""
    shades = canvas.shades(budget for panel in panels for budget in panel.budgets)
    looks = zip(shades.items(), cycle(canvas.MARKERS))
    return {budget: {"color": shade, "marker": marker, "markersize": 7} for (budget, shade), marker in looks}


def _height(panel: Panel) -> int:
    """Pixels of a panel with a line for each method, in which each budget has its own height."""
    lines = min(len(panel.methods), canvas.METHODS)
    return max(260, 110 + max(27, 12 * len(set(panel.budgets))) * lines)


def _notes(every: dict[str, Panel], seeds: bool, over: str) -> list[str]:
    """What a bar is, which points have none, and which runs diverged."""
    mean = "" if all(has_difference(panel.metric) for panel in every.values()) else " (of a divergence: of its mean)"
    bars = f"bars: 95 % intervals of the difference to the dense model{mean}, over the same evaluated {over}"
    notes = [f"{bars}{' and over the seeds' if seeds else ', not over seeds'}"]
    if any(panel.swept for panel in every.values()):
        notes.append("curves are moved a little sideways, so that marks of one sparsity stand side by side")
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
    shown = [curve for curve in sorted(curves) if curve[0] in panel.methods[: canvas.METHODS]]
    for number, (method, pattern) in enumerate(shown):
        xs, ys, bars = zip(*sorted(curves[method, pattern]), strict=True)
        place = canvas.aside(axes, number, len(shown))
        look = looks[method] | {"linestyle": lines[pattern], "transform": place}
        axes.errorbar(xs, ys, yerr=bars, linewidth=1.6, elinewidth=1.2, capsize=3, **look)
    places = [place for points in curves.values() for place, _, _ in points]
    canvas.scale(axes, "x", places, wide=inf)
    if not min(places):  # quantised alone: whole marks beside the axis
        axes.set_xlim(left=-0.04 * max(places, default=0.0) or -0.04)
    axes.locator_params(axis="x", nbins=6)
    canvas.scale(axes, "y", panel.span, inf if sign(panel.metric) < 0 else canvas.WIDE)
    axes.set(xlabel="sparsity (share of weights removed)", ylabel=_label(panel.metric))
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}")


def _marks(axes: canvas.Axes, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    """A line for each method, the best one first, on it a mark for each budget; what lies far away is at the edge."""
    shown, budgets = panel.methods[: canvas.METHODS], list(dict.fromkeys(panel.budgets))
    canvas.scale(axes, "x", panel.span, inf if sign(panel.metric) < 0 else canvas.WIDE)
    edge = axes.get_xlim()[1]
    far: dict[str, list[str]] = {}
    for group, (mean, reach) in panel.points:
        if group.method not in shown:
            continue
        place = (budgets.index(group.budget) + 0.5) / len(budgets) - 0.5
        y, look = shown.index(group.method) + 0.8 * place, looks[group.budget] | {"linestyle": "none"}
        if mean <= panel.limit:
            axes.errorbar([mean], [y], xerr=None if reach is None else [reach], capsize=3, **look)
        else:
            axes.plot([edge], [y], clip_on=False, **look)
            far.setdefault(group.method, []).append(_digits(mean))
    for method, values in far.items():
        place: Any = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": canvas.SMALL}
        axes.annotate(f"→ {', '.join(values)}", (edge, shown.index(method)), **place)
    axes.set_yticks(range(len(shown)), [canvas.short(name) for name in shown])
    axes.set(ylim=(len(shown) - 0.4, -1.1), xlabel=_label(panel.metric))
    if panel.dense is not None:
        canvas.level(axes, panel.dense, f"dense {_digits(panel.dense)}", upright=True)


def _digits(value: float) -> str:
    return f"{value:.2f}" if value < 100 else rounded(value, 4)
