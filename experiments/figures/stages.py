"""Where the time and the memory of a run go: seconds of each stage, and the peak of its memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.console.text import inline
from experiments.figures import canvas, style
from experiments.figures.style import COLOURS
from experiments.figures.values import pruned
from experiments.runs.record import Record
from experiments.summary.seeds import Group

MODELS = 3
METHODS = 24
GIB = 2**30
WHOLE = "whole run"
PEAKS = {"host_peak": "host peak, GiB", "device_peak": "accelerator peak, GiB"}


@dataclass(frozen=True)
class Line:
    """Means over the runs of a method: seconds of each stage; peak bytes of each stage, or WHOLE where only one is."""

    method: str
    runs: int
    seconds: dict[str, float]
    peaks: dict[str, dict[str, float]]  # host_peak, device_peak -> stage -> bytes


@dataclass(frozen=True)
class Panel:
    """The methods of a model, the fastest first."""

    model: str
    lines: list[Line]


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each model whose runs have told their times."""
    models: dict[str, dict[str, list[Record]]] = {}
    for one in pruned(groups):
        models.setdefault(one.model, {}).setdefault(one.method, []).extend(one.records)
    found = []
    for model, methods in models.items():
        lines = [_line(method, members) for method, members in methods.items()]
        told = sorted((line for line in lines if line.seconds), key=lambda line: sum(line.seconds.values()))
        found += [Panel(model, told)] * bool(told)
    return found


def _line(method: str, records: list[Record]) -> Line:
    seconds = _means([record.results.get("seconds", {}) for record in records])
    peaks = {}
    for kind in PEAKS:
        stages = [
            {stage: peak.get(kind) for stage, peak in record.results.get("stage_memory", {}).items()}
            or {WHOLE: record.results.get("memory", {}).get(kind)}
            for record in records
        ]
        peaks[kind] = _means(stages)
    return Line(method, len(records), seconds, {kind: means for kind, means in peaks.items() if means})


def _means(told: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each entry over the runs that know it."""
    names = dict.fromkeys(name for each in told for name, value in each.items() if value is not None)
    return {inline(name): fmean(each[name] for each in told if each.get(name) is not None) for name in names}


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws a row of panels for each model: seconds, then peaks; False where no run has told its times."""
    found = panels(groups)
    if not found:
        return False
    shown = found[:MODELS]
    lines = [line for panel in shown for line in panel.lines]
    colours = _colours(lines)
    kinds = [kind for kind in PEAKS if any(kind in line.peaks for line in lines)]
    heights = [90 + 27 * min(METHODS, len(panel.lines)) for panel in shown]
    figure = canvas.figure(height=110 + sum(heights))
    canvas.legend(figure, [(stage, {"bar": colour}) for stage, colour in colours.items()])
    grid = figure.subplots(len(shown), 1 + len(kinds), squeeze=False, height_ratios=heights, sharey="row",
                           width_ratios=[2] + [1] * len(kinds))  # fmt: skip
    for row, panel in zip(grid, shown, strict=True):
        _seconds(row[0], panel, colours)
        for axes, kind in zip(row[1:], kinds, strict=True):
            _peaks(axes, panel, kind, colours)
    notes = style.first([panel.model for panel in found], MODELS, "models")
    for panel in shown:
        notes += style.first([line.method for line in panel.lines], METHODS, f"methods of {panel.model}, the slowest")
    canvas.footnote(figure, notes)
    canvas.save(figure, place)
    return True


def _colours(lines: Sequence[Line]) -> dict[str, str]:
    """Stage -> colour, in the order of a run."""
    timed = dict.fromkeys(stage for line in lines for stage in line.seconds)
    stages = timed | dict.fromkeys(stage for line in lines for peaks in line.peaks.values() for stage in peaks)
    return {stage: "black" if stage == WHOLE else COLOURS[k % len(COLOURS)] for k, stage in enumerate(stages)}


def _seconds(axes: Any, panel: Panel, colours: dict[str, str]) -> None:
    lines = panel.lines[:METHODS]
    for y, line in enumerate(lines):
        start = 0.0
        for stage, seconds in line.seconds.items():
            axes.barh([y], [seconds], 0.7, left=[start], color=colours[stage])
            start += seconds
        axes.annotate(f"{start:.3g} s", (start, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    names = [f"{style.short(line.method)} ({line.runs})" for line in lines]
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    canvas.title(axes, f"{panel.model}, means over runs (number of runs)", 0.6)
    canvas.tidy(axes, "x")


def _peaks(axes: Any, panel: Panel, kind: str, colours: dict[str, str]) -> None:
    """Peaks do not add up: each stage has a mark, the bar reaches to the highest."""
    for y, line in enumerate(panel.lines[:METHODS]):
        peaks = {stage: peak / GIB for stage, peak in line.peaks.get(kind, {}).items()}
        axes.barh([y], [max(peaks.values(), default=0.0)], 0.7, color="#DDDDDD")
        for stage, peak in peaks.items():
            axes.plot([peak] * 2, [y - 0.35, y + 0.35], color=colours[stage], linewidth=3)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_xlabel(PEAKS[kind])
    axes.tick_params(labelleft=False)
    canvas.tidy(axes, "x")
