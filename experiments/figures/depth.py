"""Pictures by depth: how far each block's output is from the dense one's, and how sparse each of its matrices is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from statistics import fmean, geometric_mean, median
from typing import Any

from experiments.console.text import rounded, some
from experiments.figures import canvas
from experiments.figures.values import method_looks, pruned
from experiments.runs.record import Record, sparsities
from experiments.summary.seeds import Group

UNEVEN = 0.005  # difference of sparsities between matrices: below, or below one weight of a row, it is rounding
LINES = 8  # methods up to which each has a line of its own colour; more of them are rows of a heat map
MAPS = 12  # methods whose allocation is shown
LEAST = 1e-12  # smaller errors are this, for a logarithm
DEPTH, ERROR = "block, from the input to the output", "relative squared error"


Lines = dict[str, dict[str, float]]  # method or matrix -> block -> value, a mean over the seeds


def errors(groups: Sequence[Group]) -> dict[str, Lines]:
    """The methods of each model and budget, and of each stream that blocks were calibrated on where there are several.

    From the smallest mean (geometric) error on.
    """
    places: dict[tuple[str, str, str], list[Group]] = {}
    for group in pruned(groups):
        places.setdefault((group.model, group.budget, _stream(group.records[0])), []).append(group)
    streams = len({stream for _, _, stream in places}) > 1
    panels = {}
    for (model, budget, stream), members in places.items():
        lines = {group.method: line for group in members if (line := _errors(group))}
        order = sorted(lines, key=lambda method: geometric_mean(lines[method].values()))
        if lines:
            title = f"{model}, {budget}, {stream}" if streams else f"{model}, {budget}"
            panels[title] = {method: lines[method] for method in order}
    return panels


def _stream(record: Record) -> str:
    """What a block is fed, on which its error is measured: numbers of two streams do not compare."""
    return f"calibrated on the {record.manifest['config'].get('propagate', 'pruned')} stream"


def _errors(group: Group) -> dict[str, float]:
    """Block -> mean error of the runs that know it."""
    known: dict[str, list[float]] = {}
    for record in group.records:
        for block in record.results.get("blocks", []):
            if block["error"] is not None and isfinite(block["error"]):
                known.setdefault(block["block"], []).append(block["error"])
    return {block: max(fmean(values), LEAST) for block, values in known.items()}


def _blocks(lines: Lines) -> list[str]:
    return list(dict.fromkeys(block for line in lines.values() for block in line))


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """Errors by depth; None where no run measured one."""
    every = errors(groups)
    if not every:
        return None
    most, notes = canvas.lines(every), _unmeasured(groups)
    if most > LINES:
        return canvas.composed(every, _map, 110 + 27 * most, every, notes)
    looks = method_looks(groups, [method for panel in list(every.values())[: canvas.PANELS] for method in panel])
    figure = canvas.composed(every, partial(_lines, looks=looks), 400, every, notes)
    canvas.legend(figure, looks)
    return figure


def _unmeasured(groups: Sequence[Group]) -> list[str]:
    """A note on the methods that are in no panel."""
    names = dict.fromkeys(group.method for group in pruned(groups))
    without = names.keys() - {group.method for group in pruned(groups) if _errors(group)}
    return [f"not shown, as they run no block: {some((n for n in names if n in without), 6)}"] if without else []


def _lines(axes: canvas.Axes, panel: Lines, looks: dict[str, dict[str, Any]]) -> None:
    """Marks take turns where there are many blocks: of two lines that are one, both can be seen."""
    blocks = _blocks(panel)
    every = len(panel) if len(blocks) >= 3 * len(panel) else 1
    for number, (method, line) in enumerate(panel.items()):
        places, turn = [blocks.index(block) for block in line], (number % every, every)
        look = looks[method] | {"markersize": 7, "markevery": turn}
        axes.plot(places, list(line.values()), linewidth=1.6, **look)
    canvas.scale(axes, "y", [error for line in panel.values() for error in line.values()])
    canvas.whole(axes)
    axes.set(xlabel=DEPTH, ylabel=ERROR)


def _map(axes: canvas.Axes, panel: Lines) -> None:
    """Each row a method."""
    rows = dict(list(panel.items())[: canvas.METHODS])
    picture = canvas.heat(axes, rows, _blocks(panel), lambda error: rounded(error, 2), norm="log")
    axes.set_xlabel(DEPTH)
    bar = axes.figure.colorbar(picture, ax=axes, label=ERROR, pad=0.01)
    canvas.log_ticks(bar.ax.yaxis, picture.norm.vmax / picture.norm.vmin)


@dataclass(frozen=True)
class Allocation:
    """Matrix -> block -> sparsity of one method, means over its seeds; `target` is that of the whole model."""

    target: float
    matrices: Lines

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest sparsity of a matrix."""
        values = [value for line in self.matrices.values() for value in line.values()]
        return min(values), max(values)

    @property
    def reach(self) -> float:
        """How far a matrix is from the target, at most."""
        return max(abs(end - self.target) for end in self.span)


def allocations(groups: Sequence[Group]) -> dict[str, Allocation]:
    """Those of the methods whose matrices do not all have one sparsity."""
    uneven = {}
    for group in pruned(groups):
        maps = [sparsities(record.results["layers"]) for record in group.records if record.results.get("layers")]
        if not maps:
            continue
        means = {
            matrix: {block: fmean(seed[matrix][block] for seed in maps) for block in line}
            for matrix, line in maps[0].items()
        }
        low, high = Allocation(group.target, means).span
        narrowest = min(layer["shape"][1] for layer in group.records[0].results["layers"])
        if high - low >= max(UNEVEN, 1.01 / narrowest):  # whole weights of a row
            seeds = f", {len(maps)} seeds" if len(maps) > 1 else ""
            title = f"{group.method}, {group.model}\n{group.budget}\n{low:.2f} to {high:.2f}{seeds}"
            uneven[title] = Allocation(group.target, means)
    return uneven


def draw_allocations(groups: Sequence[Group]) -> canvas.Figure | None:
    """Allocations, all with the same colours; None where every run has one sparsity throughout."""
    every = allocations(groups)
    if not every:
        return None
    shown = list(every.values())[:MAPS]
    reach = max(0.05, median(panel.reach for panel in shown))  # an extreme method must not take all others' colours
    height = 110 + 26 * max(5, *(len(panel.matrices) for panel in shown))
    figure = canvas.composed(every, partial(_allocation, reach=reach), height, columns=3, most=MAPS)
    bar = {"label": "sparsity above that asked", "extend": "both", "aspect": 40, "fraction": 0.03}
    figure.colorbar(figure.axes[0].images[0], ax=figure.axes, pad=0.01, **bar)
    return figure


def _allocation(axes: canvas.Axes, panel: Allocation, reach: float) -> None:
    """Coloured is the distance from the target, written is the sparsity."""
    above = {matrix: {block: share - panel.target for block, share in line.items()}
             for matrix, line in panel.matrices.items()}  # fmt: skip
    canvas.heat(axes, above, _blocks(above), lambda cell: f"{cell + panel.target:.2f}", clim=(-reach, reach))
    axes.set_xlabel("block")
