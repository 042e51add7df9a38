"""Quality against pruning time: what is gained by a method that takes longer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas, style
from experiments.figures.values import average, by_budget, dense, kind, limit, pruned, spread
from experiments.summary.seeds import Group

PANELS = 6
INSTANT = 1e-3  # seconds: nothing is faster, and a logarithm needs more than zero


@dataclass(frozen=True)
class Point:
    """One method: seconds of the pruning stage and the value of the metric, both means over its seeds."""

    method: str
    seconds: float
    value: float


@dataclass(frozen=True)
class Panel:
    """All methods of one model, pattern and sparsity, measured by one metric."""

    title: str
    metric: str
    dense: float | None
    points: list[Point]

    @property
    def front(self) -> list[Point]:
        """Those that no other one beats in time without losing quality, from the fastest on."""
        sign = 1 if self.metric.startswith("ppl/") else -1
        best: list[Point] = []
        for point in sorted(self.points, key=lambda point: (point.seconds, sign * point.value)):
            if not best or sign * point.value < sign * best[-1].value:
                best.append(point)
        return best


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each model and budget that has several methods; the metric is the first that the model has."""
    found = []
    for model, budget, metric, members in by_budget(groups):
        points = [point for one in members if (point := _point(one, metric)) is not None]
        if len(points) > 1:
            found.append(Panel(f"{model}, {budget}", metric, dense(groups, model, metric), points))
    return found


def _point(group: Group, metric: str) -> Point | None:
    value, seconds = spread(group, metric), average(group, "seconds", "prune")
    return None if value is None or seconds is None else Point(group.method, max(seconds, INSTANT), value[0])


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws the panels; False where no two methods have a quality and a time."""
    found = panels(groups)
    if not found:
        return False
    shown = found[:PANELS]
    methods = style.looks(point.method for panel in shown for point in panel.points)
    figure = canvas.figure(height=170 + 26 * (len(methods) // 5) + 430 * -(-len(shown) // min(2, len(shown))))
    canvas.legend(figure, [(style.short(name), look | {"linestyle": "none"}) for name, look in methods.items()])
    drawn = list(zip(canvas.grid(figure, len(shown)), shown, strict=True))
    for axes, panel in drawn:
        _draw(axes, panel, methods)
    notes = style.first([panel.title for panel in found], PANELS, "models and budgets") + _machines(groups)
    canvas.footnote(figure, notes)
    for axes, panel in drawn:
        _label(axes, panel)
    canvas.save(figure, place)
    return True


def _draw(axes: Any, panel: Panel, methods: dict[str, dict[str, Any]]) -> None:
    seconds, values = [point.seconds for point in panel.points], [point.value for point in panel.points]
    known = [value for value in values if value <= limit(values)] + ([] if panel.dense is None else [panel.dense])
    front = panel.front
    canvas.scale(axes.xaxis, min(seconds), max(seconds), wide=2)
    canvas.scale(axes.yaxis, min(known), max(known))
    axes.step([p.seconds for p in front], [p.value for p in front], where="post", color="#999999", zorder=1)
    edge = axes.get_ylim()[1]
    for point in panel.points:
        axes.plot([point.seconds], [min(point.value, edge)], clip_on=False, **methods[point.method])
    if panel.dense is not None:
        canvas.level(axes, panel.dense, "dense")
    canvas.tidy(axes, "both")
    canvas.title(axes, f"{panel.title}, {panel.metric}", 0.5)
    axes.set_xlabel("seconds to prune")
    axes.set_ylabel(kind(panel.metric))


def _label(axes: Any, panel: Panel) -> None:
    """Names beside the points, first those of the front; what lies beyond the axis has its value beside it."""
    high = float(axes.get_ylim()[1])
    names = []
    for point in sorted(panel.points, key=lambda point: point not in panel.front):
        far = f" {rounded(point.value, 2)} ↑" * (point.value > high)
        names.append((point.seconds, min(point.value, high), style.short(point.method, 24) + far))
    canvas.beside(axes, names)


def _machines(groups: Sequence[Group]) -> list[str]:
    """A warning where times come from several machines."""
    done = [record.manifest for group in pruned(groups) for record in group.records]
    kinds = sorted({" ".join(str(each.get(k)) for k in ("device", "chip", "threads") if each.get(k)) for each in done})
    return [f"times of different machines (device, chip, threads): {', '.join(kinds)}"] * (len(kinds) > 1)
