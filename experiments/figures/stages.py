"""Where the time and the memory of a method go: seconds of each stage, and the peak of its memory.

Bars are compared, so all of a model's are made of the same stages: those that each of its runs has. What the first run
does for all others (loading for the dense evaluation, tokens, the dense evaluation) is no method's, and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from experiments.console.text import inline, some
from experiments.figures import canvas
from experiments.figures.values import pruned, unknown_costs
from experiments.runs.record import AT_LEAST, Record
from experiments.summary.seeds import Group

MODELS = 3
GIB = 2**30
PEAKS = {  # what is shown of memory; of the host the first, if all runs of a model know it
    "host_added": "host peak less what was there\nbefore the run, GiB",
    "host_peak": "host peak of the whole\nprocess, GiB",
    "device_peak": "accelerator peak, GiB",
}
FIRST = ("load", "data", "dense ")  # how the names of the stages begin that depend on which run came first
BAR = 0.7  # height


@dataclass(frozen=True)
class Line:
    """Means over the runs of a method: seconds and peak bytes of each stage."""

    method: str
    runs: int
    seconds: dict[str, float]
    peaks: dict[str, dict[str, float]]  # name in PEAKS -> stage -> bytes


def panels(groups: Sequence[Group]) -> dict[str, list[Line]]:
    """The methods of each model whose cost is known, those that are fastest to prune first."""
    records: dict[str, dict[str, list[Record]]] = {}
    for group in pruned(groups):
        if known := [record for record in group.records if "prune" in _seconds_of(record)]:
            records.setdefault(group.model, {}).setdefault(group.method, []).extend(known)
    models = {}
    for model, methods in records.items():
        every = [_seconds_of(record) for members in methods.values() for record in members]
        shared = [stage for stage in every[0] if all(stage in run for run in every) and not stage.startswith(FIRST)]
        lines = [_line(method, members, shared) for method, members in methods.items()]
        models[model] = sorted(lines, key=lambda line: line.seconds["prune"])
    return models


def _seconds_of(record: Record) -> dict[str, float]:
    return record.results.get("seconds", {})


def _line(method: str, records: list[Record], stages: list[str]) -> Line:
    memory = [record.results.get("stage_memory", {}) for record in records]
    peaks = {kind: _means([{s: m.get(s, {}).get(kind) for s in stages} for m in memory]) for kind in PEAKS}
    return Line(method, len(records), _means([{s: _seconds_of(r)[s] for s in stages} for r in records]), peaks)


def _means(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each entry that all runs know."""
    return {
        inline(stage): fmean(run[stage] for run in runs)
        for stage in runs[0]
        if all(run[stage] is not None for run in runs)
    }


def _absent(groups: Sequence[Group], every: dict[str, list[Line]]) -> list[str]:
    """A note on what no bar of a model contains."""
    drawn = {(model, stage) for model, lines in every.items() for line in lines for stage in line.seconds}
    there = [(g.model, inline(s)) for g in pruned(groups) for r in g.records for s in _seconds_of(r)]
    absent = dict.fromkeys(s for model, s in there if (model, s) not in drawn and model in every)
    absent.pop(f"prune{AT_LEAST}", None)
    return [f"in no bar, for they serve all runs or not every run has them: {some(absent, 8)}"] if absent else []


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """A row for each model: seconds, then peaks; None where no run has told its times."""
    every = panels(groups)
    if not every:
        return None
    shown = {model: lines[: canvas.METHODS] for model, lines in list(every.items())[:MODELS]}
    lines = [line for members in shown.values() for line in members]
    stages = dict.fromkeys(stage for line in lines for stage in line.seconds)  # in the order of a run
    colours = canvas.shades(stages)
    kinds = _kinds(lines)
    heights = [90 + 27 * len(members) for members in shown.values()]
    figure = canvas.figure(110 + sum(heights))
    canvas.legend(figure, {stage: canvas.area(colour) for stage, colour in colours.items()})
    grid = figure.subplots(len(shown), 1 + len(kinds), squeeze=False, height_ratios=heights, sharey="row",
                           width_ratios=[2] + [1] * len(kinds))  # fmt: skip
    for row, (model, members) in zip(grid, shown.items(), strict=True):
        _seconds(row[0], members, colours)
        canvas.title(row[0], f"{model}, means over (n) runs")
        for axes, kind in zip(row[1:], kinds, strict=True):
            _peaks(axes, members, kind, colours)
    methods = {model: [line.method for line in members] for model, members in every.items()}
    notes = [*_absent(groups, shown), *unknown_costs(groups)]
    canvas.footnote(figure, [*canvas.left_out(methods, MODELS), *notes])
    return figure


def _kinds(lines: Sequence[Line]) -> list[str]:
    """What is shown of memory: of the host what the run added if every line knows it, else the peak of the process."""
    added = all(line.peaks["host_added"].keys() == line.peaks["host_peak"].keys() for line in lines)
    other = "host_peak" if added else "host_added"
    return [kind for kind in PEAKS if kind != other and any(line.peaks[kind] for line in lines)]


def _seconds(axes: canvas.Axes, lines: list[Line], colours: dict[str, str]) -> None:
    for y, line in enumerate(lines):
        start = 0.0
        for stage, seconds in line.seconds.items():
            axes.barh(y, seconds, BAR, left=start, color=colours[stage])
            start += seconds
        label = f"prune {line.seconds['prune']:.3g} s, all {start:.3g} s"
        axes.annotate(label, (start, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=canvas.SMALL)
    axes.set_yticks(range(len(lines)), [f"{canvas.short(line.method)} ({line.runs})" for line in lines])
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlabel="seconds")
    axes.margins(x=0.3)  # for the labels
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", visible=False)


def _peaks(axes: canvas.Axes, lines: list[Line], kind: str, colours: dict[str, str]) -> None:
    """Peaks do not add up: each stage has a mark, the bar reaches to the highest."""
    for y, line in enumerate(lines):
        peaks = {stage: peak / GIB for stage, peak in line.peaks[kind].items()}
        axes.barh(y, max(peaks.values(), default=0.0), BAR, color="#DDDDDD")
        for stage, peak in peaks.items():
            axes.plot([peak, peak], [y - BAR / 2, y + BAR / 2], color=colours.get(stage, "black"), linewidth=3)
    axes.set_xlabel(PEAKS[kind])
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", visible=False)
