"""How far each block's output is from the dense block's, by depth: of every method, and of one run in its folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.console.text import rounded
from experiments.figures import canvas, heat, style
from experiments.figures.values import pruned
from experiments.runs.matrices import sparsities
from experiments.runs.record import Record
from experiments.summary.seeds import Group

PANELS = 6
METHODS = 24
LINES = 8  # methods up to which each has a line of its own colour; more of them are rows of a heat map
WRITTEN = 16  # blocks up to which values are written into the cells of a panel as wide as the picture


@dataclass(frozen=True)
class Panel:
    """Method -> error of each block, means over seeds; from the smallest mean (geometric) error on."""

    title: str
    blocks: list[str]
    errors: dict[str, dict[str, float]]


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each model and budget, and for each stream that blocks were calibrated on where there are several."""
    places: dict[tuple[str, str, str], list[Group]] = {}
    for one in pruned(groups):
        places.setdefault((one.model, one.budget, _stream(one.records[0])), []).append(one)
    streams = len({stream for _, _, stream in places}) > 1
    found = []
    for (model, budget, stream), members in places.items():
        errors = {one.method: line for one in members if (line := _errors(one))}
        order = sorted(errors, key=lambda method: fmean(map(_log, errors[method].values())))
        blocks = list(dict.fromkeys(block for line in errors.values() for block in line))
        title = f"{model}, {budget}" + f", {stream}" * streams
        found += [Panel(title, blocks, {method: errors[method] for method in order})] * bool(errors)
    return found


def _stream(record: Record) -> str:
    """What a block is fed, on which its error is measured: numbers of two streams do not compare."""
    return f"calibrated on the {record.manifest['config'].get('propagate', 'pruned')} stream"


def _errors(one: Group) -> dict[str, float]:
    """Block -> mean error of the runs that know it."""
    known: dict[str, list[float]] = {}
    for record in one.records:
        for block in record.results.get("blocks", []):
            if block["error"] is not None and math.isfinite(block["error"]):
                known.setdefault(block["block"], []).append(block["error"])
    return {block: fmean(values) for block, values in known.items()}


def _log(error: float) -> float:
    return math.log10(max(error, 1e-12))


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws the panels; False where no run measured an error."""
    found = panels(groups)
    if not found:
        return False
    shown = found[:PANELS]
    most = min(METHODS, max(len(panel.errors) for panel in shown))
    lined = most <= LINES
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = canvas.figure(height=120 + rows * (400 if lined else 110 + 27 * most))
    methods = style.looks(method for panel in shown for method in panel.errors)
    if lined:
        canvas.legend(figure, [(style.short(name), look) for name, look in methods.items()])
    for axes, panel in zip(canvas.grid(figure, len(shown)), shown, strict=True):
        canvas.title(axes, panel.title, canvas.NAMED / columns)
        if lined:
            _lines(axes, panel, methods)
        else:
            _map(axes, panel, columns)
        axes.set_xlabel("block, from the input to the output")
    notes = style.first([panel.title for panel in found], PANELS, "models and budgets")
    for panel in shown:
        notes += style.first(list(panel.errors), METHODS, f"methods of {panel.title}, those with the largest errors")
    canvas.footnote(figure, notes)
    canvas.save(figure, place)
    return True


def _lines(axes: Any, panel: Panel, methods: dict[str, dict[str, Any]]) -> None:
    known = [error for line in panel.errors.values() for error in line.values()]
    for method, line in panel.errors.items():
        places = [panel.blocks.index(block) for block in line]
        axes.plot(places, list(line.values()), linewidth=1.6, **methods[method] | {"markersize": 6})
    _scale(axes, known)
    canvas.whole(axes.xaxis)
    canvas.tidy(axes, "both")
    axes.set_ylabel("relative squared error")


def _map(axes: Any, panel: Panel, columns: int) -> None:
    """Each row a method; the colours are of the logarithm."""
    errors = dict(list(panel.errors.items())[:METHODS])
    logs = heat.square({m: {b: _log(e) for b, e in line.items()} for m, line in errors.items()}, panel.blocks)
    ends = heat.limits([cell for line in logs for cell in line if not math.isnan(cell)], 0.3)
    value = lambda power: rounded(10**power, 2)
    write = value if len(panel.blocks) <= WRITTEN // columns else None
    picture = heat.heat(axes, [style.short(method) for method in errors], logs, ends, write)
    round_ = [power + math.log10(digit) for power in range(-12, 13) for digit in (1, 2, 5)]
    ticks = [tick for tick in round_ if ends[0] <= tick <= ends[1]]
    bar = axes.figure.colorbar(picture, ax=axes, label="relative squared error", pad=0.01)
    bar.set_ticks(ticks, labels=[value(tick) for tick in ticks])


def layers(results: dict[str, Any], path: Path, width: int = canvas.WIDTH) -> bool:
    """Draws one run by depth as a PNG: each block's relative output error above the sparsity of each of its matrices.

    results: the content of results.json; False when no matrix was pruned.
    """
    if not results.get("layers"):
        return False
    blocks = list(dict.fromkeys(layer["block"] for layer in results["layers"]))
    errors = {block["block"]: block["error"] for block in results.get("blocks", []) if block["error"] is not None}
    matrices = sparsities(results["layers"])
    heights = [230] * bool(errors) + [60 + 34 * len(matrices)]
    figure = canvas.figure(width, 130 + sum(heights))
    grid = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    if errors:
        _one(grid[0], [errors.get(block, math.nan) for block in blocks])
    cells = heat.square(matrices, blocks)
    values = [cell for line in cells for cell in line if not math.isnan(cell)]
    write = "{:.3f}".format if len(blocks) <= WRITTEN else None
    picture = heat.heat(grid[-1], list(matrices), cells, heat.limits(values, 0.1), write)
    grid[-1].set_xlabel("block, from the input to the output")
    canvas.title(grid[-1], f"sparsity of each matrix ({min(values):.3f} to {max(values):.3f})")
    figure.colorbar(picture, ax=grid[-1], label="sparsity", pad=0.01)
    canvas.save_as(figure, path)
    return True


def _one(axes: Any, errors: list[float]) -> None:
    axes.plot(range(len(errors)), errors, color=style.COLOURS[0], marker="o", markersize=5, linewidth=1.6)
    _scale(axes, [error for error in errors if math.isfinite(error)])
    axes.set_ylabel("relative squared error")
    canvas.title(axes, "distance of each block's output from the dense block's")
    canvas.tidy(axes, "both")


def _scale(axes: Any, errors: list[float]) -> None:
    """Logarithmic, or from zero on."""
    low, high = min(errors, default=0.0), max(errors, default=1.0)
    canvas.scale(axes.yaxis, low if low > 0 and high / low > canvas.WIDE else 0.0, high)
