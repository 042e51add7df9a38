"""Pictures by depth: how far each block's output is from the dense one's, and how sparse each of its matrices is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas
from experiments.figures.values import pruned
from experiments.runs.record import Record, sparsities
from experiments.summary.rows import UNEVEN
from experiments.summary.seeds import Group

LINES = 8  # methods up to which each has a line of its own colour; more of them are rows of a heat map
MAPS = 12  # methods whose allocation is shown
LEAST = 1e-12  # smaller errors are this, for a logarithm
DEPTH, ERROR = "block, from the input to the output", "relative squared error"


@dataclass(frozen=True)
class Errors:
    """Method -> error of each block, means over seeds; from the smallest mean (geometric) error on."""

    title: str
    blocks: list[str]
    errors: dict[str, dict[str, float]]

    @property
    def methods(self) -> list[str]:
        """Those that measured an error."""
        return list(self.errors)


def errors(groups: Sequence[Group]) -> list[Errors]:
    """A panel for each model and budget, and for each stream that blocks were calibrated on where there are several."""
    places: dict[tuple[str, str, str], list[Group]] = {}
    for group in pruned(groups):
        places.setdefault((group.model, group.budget, _stream(group.records[0])), []).append(group)
    streams = len({stream for _, _, stream in places}) > 1
    panels = []
    for (model, budget, stream), members in places.items():
        lines = {group.method: line for group in members if (line := _errors(group))}
        order = sorted(lines, key=lambda method: geometric_mean(lines[method].values()))
        blocks = list(dict.fromkeys(block for line in lines.values() for block in line))
        title = f"{model}, {budget}, {stream}" if streams else f"{model}, {budget}"
        if lines:
            panels.append(Errors(title, blocks, {method: lines[method] for method in order}))
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


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """Errors by depth; None where no run measured one."""
    every = errors(groups)
    if not every:
        return None
    most = canvas.lines(every)
    if most > LINES:
        return canvas.composed(every, _map, 110 + 27 * most)
    looks = canvas.looks(method for panel in every[: canvas.PANELS] for method in panel.errors)
    figure = canvas.composed(every, partial(_lines, looks=looks), 400)
    canvas.legend(figure, looks)
    return figure


def _lines(axes: canvas.Axes, panel: Errors, looks: dict[str, dict[str, Any]]) -> None:
    for method, line in panel.errors.items():
        places = [panel.blocks.index(block) for block in line]
        axes.plot(places, list(line.values()), linewidth=1.6, **looks[method] | {"markersize": 6})
    canvas.scale(axes, "y", [error for line in panel.errors.values() for error in line.values()])
    canvas.whole(axes)
    axes.set(xlabel=DEPTH, ylabel=ERROR)


def _map(axes: canvas.Axes, panel: Errors) -> None:
    """Each row a method."""
    rows = dict(list(panel.errors.items())[: canvas.METHODS])
    picture = canvas.heat(axes, rows, panel.blocks, lambda error: rounded(error, 2), norm="log")
    axes.set_xlabel(DEPTH)
    bar = axes.figure.colorbar(picture, ax=axes, label=ERROR, pad=0.01)
    canvas.log_ticks(bar.ax.yaxis, picture.norm.vmax / picture.norm.vmin)


@dataclass(frozen=True)
class Allocation:
    """Matrix -> block -> sparsity, means over the seeds of one method, of which `asked` was the goal."""

    name: str
    asked: float
    seeds: int
    blocks: list[str]
    matrices: dict[str, dict[str, float]]
    methods = ()  # it is of one alone

    @property
    def title(self) -> str:
        """What stands above it."""
        return f"{self.name}\n{self.span[0]:.2f} to {self.span[1]:.2f}"

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest sparsity of a matrix."""
        values = [value for line in self.matrices.values() for value in line.values()]
        return min(values), max(values)

    @property
    def reach(self) -> float:
        """How far a matrix is from the asked sparsity, at most."""
        return max(abs(end - self.asked) for end in self.span)


def allocations(groups: Sequence[Group]) -> list[Allocation]:
    """Those of the methods whose matrices do not all have one sparsity."""
    uneven = []
    for group in pruned(groups):
        maps = [sparsities(record.results["layers"]) for record in group.records if record.results.get("layers")]
        if not maps:
            continue
        blocks = list(dict.fromkeys(block for line in maps[0].values() for block in line))
        means = {
            matrix: {block: fmean(seed[matrix][block] for seed in maps) for block in line}
            for matrix, line in maps[0].items()
        }
        name = f"{group.method}, {group.model}\n{group.budget}"
        allocation = Allocation(name, group.target, len(maps), blocks, means)
        if allocation.span[1] - allocation.span[0] >= UNEVEN:
            uneven.append(allocation)
    return uneven


def draw_allocations(groups: Sequence[Group]) -> canvas.Figure | None:
    """Allocations, all with the same colours; None where every run has one sparsity throughout."""
    every = allocations(groups)
    if not every:
        return None
    shown = every[:MAPS]
    reach = max(0.05, median(panel.reach for panel in shown))  # an extreme method must not take all others' colours
    height = 110 + 26 * max(5, *(len(panel.matrices) for panel in shown))
    seeds = max(panel.seeds for panel in shown)
    notes = [f"means over {seeds} seeds"] if seeds > 1 else []
    figure = canvas.composed(every, partial(_allocation, reach=reach), height, notes, columns=3, most=MAPS)
    bar = {"label": "sparsity above that asked", "extend": "both", "aspect": 40, "fraction": 0.03}
    figure.colorbar(figure.axes[0].images[0], ax=figure.axes, pad=0.01, **bar)
    return figure


def _allocation(axes: canvas.Axes, panel: Allocation, reach: float) -> None:
    """Coloured is the distance from the asked sparsity, written is the sparsity."""
    above = {matrix: {block: share - panel.asked for block, share in line.items()}
             for matrix, line in panel.matrices.items()}  # fmt: skip
    canvas.heat(axes, above, panel.blocks, lambda cell: f"{cell + panel.asked:.2f}", clim=(-reach, reach))
    axes.set_xlabel("block")


def layers(results: dict[str, Any], path: Path) -> bool:
    """Draws one run by depth as a PNG: each block's relative output error above the sparsity of each of its matrices.

    results: the content of results.json; False when no matrix was pruned.
    """
    if not results.get("layers"):
        return False
    blocks = list(dict.fromkeys(layer["block"] for layer in results["layers"]))
    known = {block["block"]: block["error"] for block in results.get("blocks", []) if block["error"] is not None}
    matrices = sparsities(results["layers"])
    heights = [230, 60 + 34 * len(matrices)] if known else [60 + 34 * len(matrices)]
    figure = canvas.figure(130 + sum(heights))
    grid = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    if known:
        values = [known.get(block, nan) for block in blocks]
        grid[0].plot(range(len(blocks)), values, color=canvas.COLOURS[0], marker="o", markersize=5, linewidth=1.6)
        canvas.scale(grid[0], "y", values)
        grid[0].set_ylabel(ERROR)
        canvas.title(grid[0], "distance of each block's output from the dense block's")
    shares = [share for line in matrices.values() for share in line.values()]
    picture = canvas.heat(grid[-1], matrices, blocks, "{:.3f}".format, clim=canvas.limits(shares, 0.1))
    grid[-1].set_xlabel(DEPTH)
    canvas.title(grid[-1], f"sparsity of each matrix ({min(shares):.3f} to {max(shares):.3f})")
    figure.colorbar(picture, ax=grid[-1], label="sparsity", pad=0.01)
    canvas.save_as(figure, path)
    return True
