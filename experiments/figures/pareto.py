"""Quality against what it costs: pruning time, or, where runs are quantised, the bytes that are left of the model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from experiments.console.text import rounded, some
from experiments.figures import canvas
from experiments.figures.values import by_budget, dense, limit, method_looks, pruned, sign, spread, unit, unknown_costs
from experiments.summary.seeds import Group
from experiments.summary.shared import main_metrics

BYTES = "MB of the whole model, with masks"
INSTANT = 1e-3  # seconds: nothing is faster, and a logarithm needs more than zero
PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}  # hides lines behind
LABEL: dict[str, Any] = {"textcoords": "offset points", "fontsize": canvas.SMALL, "bbox": PAPER, "zorder": 1.5}
NEAR = 6  # pixels between a label and the mark of another method, lest it seem to be of that
# Where a label hangs, the best place first, in points from its mark.
SIDES = (
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    *((x, y, ha, va) for y, va in ((4, "bottom"), (-4, "top")) for x, ha in ((5, "left"), (-5, "right"))),
)


@dataclass(frozen=True)
class Point:
    """One method: seconds of pruning from nothing, or bytes, and the value of the metric, means over its seeds.

    budget: what it is called beside its mark where its method has several; else it is called by its method.
    """

    method: str
    cost: float
    value: float
    budget: str = ""


@dataclass(frozen=True)
class Panel:
    """All methods of one model, pattern and sparsity, or of one model, measured by one metric; axis: what they cost."""

    metric: str
    dense: float | None
    points: list[Point]
    axis: str = "seconds to prune"
    unit: str = ""

    @property
    def front(self) -> list[Point]:
        """Those that no other one beats in cost without losing quality, from the cheapest on."""
        better = sign(self.metric)
        best: list[Point] = []
        for point in sorted(self.points, key=lambda point: (point.cost, better * point.value)):
            if not best or better * point.value < better * best[-1].value:
                best.append(point)
        return best


def panels(groups: Sequence[Group]) -> dict[str, Panel]:
    """A panel for each model and budget that has several methods; the metric is the model's main one."""
    several = {}
    for model, budget, metric, members in by_budget(groups):
        times, unit_name = unit(groups, metric)
        points = [point for group in members if (point := _point(group, metric, times)) is not None]
        if len(points) > 1:
            level = dense(groups, model, metric, times)
            several[f"{model}, {budget}"] = Panel(metric, level, points, unit=unit_name)
    return several


def _point(group: Group, metric: str, times: float) -> Point | None:
    value = spread(group, metric, times=times)
    stages = [record.results.get("seconds", {}) for record in group.records]
    seconds = [stage["prune"] for stage in stages if "prune" in stage]
    return Point(group.method, max(fmean(seconds), INSTANT), value[0]) if value and seconds else None


def sized(groups: Sequence[Group]) -> dict[str, Panel]:
    """A panel for each model of which runs are quantised: all its budgets, by the bytes of the whole model."""
    chosen, filled = main_metrics(groups), {}
    for model in dict.fromkeys(group.model for group in pruned(groups) if group.precision):
        own = [group for group in pruned(groups) if group.model == model]
        metric = chosen.get(model, "")
        times, unit_name = unit(groups, metric)
        known = [(group, spread(group, metric, times=times), _size(group)) for group in own if metric]
        several = Counter(group.method for group, value, size in known if value and size)
        points = [
            Point(group.method, size / 1e6, value[0], group.budget if several[group.method] > 1 else "")
            for group, value, size in known
            if value and size
        ]
        if len(points) > 1:
            whole = [size for group in groups if group.dense and group.model == model and (size := _size(group))]
            title = ", ".join([model, *(f"dense {size / 1e6:.4g} MB" for size in whole)])
            filled[title] = Panel(metric, dense(groups, model, metric, times), points, BYTES, unit_name)
    return filled


def _size(group: Group) -> float | None:
    return group.bits and group.bits.size


def draw_sizes(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels by bytes; None where no run is quantised."""
    models = {group.model for group in groups if group.precision}
    lost = dict.fromkeys(group.method for group in pruned(groups) if group.model in models and not _size(group))
    untold = f"not shown, as these runs of an earlier version do not tell the size of the model: {some(lost, 4)}"
    return _drawn(groups, sized(groups), [untold] if lost else [])


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """The panels; None where no two methods have a quality and a time."""
    return _drawn(groups, panels(groups), [*unknown_costs(groups), *_machines(groups)])


def _drawn(groups: Sequence[Group], every: dict[str, Panel], notes: Sequence[str]) -> canvas.Figure | None:
    if not every:
        return None
    shown = list(every.values())[: canvas.PANELS]
    looks = method_looks(groups, [point.method for panel in shown for point in panel.points])
    figure = canvas.composed(every, partial(_draw, looks=looks), 440, notes=notes)
    canvas.legend(figure, {name: look | {"linestyle": "none"} for name, look in looks.items()})
    canvas.settle(figure)
    for axes, panel in zip(figure.axes, shown, strict=True):
        _label(axes, panel)
    return figure


def _draw(axes: canvas.Axes, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    costs, values = [point.cost for point in panel.points], [point.value for point in panel.points]
    known = [value for value in values if value <= limit(values, panel.dense)]
    canvas.scale(axes, "x", costs)
    canvas.scale(axes, "y", known if panel.dense is None else [*known, panel.dense])
    front, edge = panel.front, axes.get_ylim()[1]
    axes.step([p.cost for p in front], [p.value for p in front], where="post", color="#999999", zorder=1)
    for point in panel.points:
        axes.plot([point.cost], [min(point.value, edge)], clip_on=False, **looks[point.method])
    if panel.dense is not None:
        canvas.level(axes, panel.dense)
    better = "lower" if sign(panel.metric) > 0 else "higher"
    axes.set(xlabel=panel.axis, ylabel=canvas.beside(f"{panel.metric}{panel.unit} ({better} is better)"))


def _label(axes: canvas.Axes, panel: Panel) -> None:
    """Names beside the points where they cover no point and no earlier name.

    First what lies beyond the axis, with its value, then the front.
    """
    edge, inside = axes.get_ylim()[1], axes.get_window_extent()
    marks = [line.get_window_extent() for line in axes.lines if line.get_marker() in canvas.MARKERS]
    taken = [] if panel.dense is None else _dense(axes, panel.dense, marks)
    for point in sorted(panel.points, key=lambda point: (point.value <= edge, point not in panel.front)):
        far = f" {rounded(point.value, 3)} ↑" if point.value > edge else ""
        others = [mark for mark, other in zip(marks, panel.points, strict=True) if other != point]
        place, name = (point.cost, min(point.value, edge)), canvas.short(point.budget or point.method, 24) + far
        for x, y, ha, va in SIDES:
            text = axes.annotate(name, place, (x, y), ha=ha, va=va, **LABEL)
            box = text.get_window_extent()
            free = not box.count_overlaps(taken) and not box.padded(NEAR).count_overlaps(others)
            if free and inside.contains(*box.min) and inside.contains(*box.max):
                taken.append(box)
                break
            text.remove()


def _dense(axes: canvas.Axes, value: float, taken: list[Any]) -> list[Any]:
    """Names the line of the dense model where that covers no point, and returns the place of its name."""
    for x, ha in ((1, "right"), (0, "left")):
        for y, va in ((-4, "top"), (4, "bottom")):
            place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
            text = axes.annotate("dense", (x, value), (8 * (0.5 - x), y), ha=ha, va=va, fontsize=canvas.SMALL, **place)
            if not (box := text.get_window_extent()).count_overlaps(taken):
                return [box]
            text.remove()
    return []


def _machines(groups: Sequence[Group]) -> list[str]:
    """A warning where times come from several machines."""
    manifests = [record.manifest for group in pruned(groups) for record in group.records]
    machines = {", ".join(f"{key} {m[key]}" for key in ("device", "chip", "threads") if m.get(key)) for m in manifests}
    return [f"times of different machines: {'; '.join(sorted(machines))}"] if len(machines) > 1 else []
