"""Two runs side by side as text: what differs in how they were made, what they measure, removed and cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from textwrap import wrap
from typing import Any

from experiments.comparing.differences import Metric, Pairs, metrics, origins, settings
from experiments.comparing.layers import Layer, grouped, layers, total
from experiments.console.grid import grid
from experiments.console.text import digits, duration, fraction, inline, size, timing
from experiments.runs.bits import flat, precision, quantised
from experiments.runs.record import Record, spent_elsewhere
from experiments.summary.naming import distinguished
from experiments.summary.rows import column_title

NAMED = 5  # matrices named on the terminal
WIDEST = 60  # letters of a cell on the terminal, before it goes on in a line of its own
SHARES = ["sparsity A", "sparsity B", "kept by both", "A alone", "B alone", "in common", "random"]
LEGEND = "in common: of what either removed, the share that both did; random: of two random masks as sparse as these"
ERROR = "error: squared distance of a block's output from the dense block's, relative to its square, over the run's own"
MACHINE = {"chip", "device", "cores", "threads", "ranks"}  # where these differ, times do not compare


@dataclass(frozen=True)
class Comparison:
    """Two runs, A and B. errors: of each run, block -> relative error of its output; remarks: on the layers."""

    runs: tuple[Record, Record]
    metrics: list[Metric]
    layers: list[Layer]
    remarks: list[str]
    errors: tuple[dict[str, float], dict[str, float]]

    @property
    def names(self) -> tuple[str, str]:
        """What a picture calls them: method, pattern, sparsity, grids, and what model or setting sets them apart."""
        first, second = map(_name, self.runs)
        models = [run.manifest["model"] for run in self.runs]
        if models[0] != models[1]:
            first, second = f"{models[0]} {first}", f"{models[1]} {second}"
        elif first == second:
            first, second = (f"{first} {', '.join(distinguished(self.runs)[run.folder])}" for run in self.runs)
        return inline(f"A: {first}"), inline(f"B: {second}")


def _name(run: Record) -> str:
    if run.manifest["method"] == "dense":
        return "dense"
    grids = precision(run.results, run.manifest["config"])
    return " ".join(filter(None, ("{method} {pattern} {sparsity:g}".format(**run.manifest), grids)))


def compare(first: Record, second: Record) -> Comparison:
    """Reads losses and masks; ValueError for a run whose manifest or results cannot be read."""
    for record in (first, second):
        if record.status == "unreadable":
            raise ValueError(f"{record.folder} cannot be read: {record.error}")
    matrices, remarks = layers(first, second)
    sides = [record.results.get("blocks", []) for record in (first, second)]
    errors = [{block["block"]: block["error"] for block in side if block["error"] is not None} for side in sides]
    return Comparison((first, second), metrics(first, second), matrices, remarks, (errors[0], errors[1]))


def render(comparison: Comparison, markdown: bool = False) -> str:
    """All sections as text; Markdown has a row for every matrix."""
    runs = comparison.runs
    sections = [
        _pairs("Settings that differ", settings(*runs)),
        _pairs("Input, code and machine that differ", origins(*runs)),
        _metrics(comparison.metrics),
        *_counts(*runs),
        *_answers(*runs),
        *_matrices(comparison.layers, comparison.remarks),
        _depth(comparison),
        _cost(*runs),
    ]
    if markdown and comparison.layers:
        sections.append(_listed("Every matrix", comparison.layers))
    return "\n\n".join([_head(runs, markdown), *(section.render(markdown) for section in sections)])


def _head(runs: Sequence[Record], markdown: bool) -> str:
    """Where the runs are, and how they ended where they are not done."""
    ends = ["" if run.status == "done" else f" {run.status}: {run.error}".removesuffix(": ") for run in runs]
    lines = [f"{name}: {run.folder}{end}" for name, run, end in zip("AB", runs, ends, strict=True)]
    return "\n".join(["# Two runs side by side\n", *(f"- {line}" for line in lines)] if markdown else lines)


@dataclass(frozen=True)
class Section:
    """A title, a table (the first `words` columns are text; columns without a cell are left out), and remarks."""

    title: str
    header: list[str]
    body: list[list[str]]
    notes: Sequence[str] = ()
    words: int = 1

    def render(self, markdown: bool) -> str:
        """The section as text for a terminal, or as Markdown."""
        filled = [place for place in range(len(self.header)) if any(row[place] for row in self.body)]
        rows = [[row[place] for place in filled] for row in (self.header, *self.body)]
        if not markdown:
            rows = [["\n".join(wrap(cell, WIDEST)) if " " in cell else cell for cell in row] for row in rows]
        align = "l" * sum(place < self.words for place in filled) + "r"
        table = grid(rows[0], rows[1:], align, "pipe" if markdown else "simple") if self.body else ""
        title = f"## {self.title}" if markdown else self.title.upper()
        notes = "\n".join(f"- {note}" if markdown else note for note in self.notes)
        return "\n\n".join(part for part in (title, table, notes) if part)


def _pairs(title: str, pairs: Pairs) -> Section:
    body = [[name, *("-" if value is None else str(value) for value in pair)] for name, pair in pairs.items()]
    return Section(title, ["", "A", "B"], body, [] if body else ["none"], words=3)


def _metrics(metrics: Sequence[Metric]) -> Section:
    """Both values, their difference with its interval, and what that says."""
    header = ["metric", "A", "B", "B - A", "95 % interval", "over", "verdict"]
    notes = [f"{metric.key} is not comparable: {metric.unlike}" for metric in metrics if metric.unlike]
    notes += [f"not judged: {why}" for why in dict.fromkeys(metric.unequal for metric in metrics) if why]
    known = [metric for metric in metrics if metric.error is not None]
    if not all(metric.paired for metric in known):
        notes.append("two samples: single losses or answers are not kept in both runs; over pairs it would be narrower")
    if known and all(metric.images for metric in known):
        notes.append("an interval is over the evaluated images alone, not over other calibration images")
    elif known:
        notes.append("an interval is over the evaluated text or tasks alone, not over other calibration windows")
    return Section("Metrics", header, [_metric(metric) for metric in metrics], notes if metrics else ["none"])


def _counts(first: Record, second: Record) -> list[Section]:
    """What masks removed, what is 0, and bits per weight; nothing where neither run is quantised."""
    if not any(quantised(record.results) for record in (first, second)):
        return []
    sides = [flat(record.results, record.manifest["config"]) for record in (first, second)]
    cells = [{name: f"{number:.4f}" for name, number in side.items()} for side in sides]
    title = "Zeros and bits per weight (masked: codes, grids and masks)"
    return [_pairs(title, {name: (cells[0].get(name), cells[1].get(name)) for name in cells[0] | cells[1]})]


def _answers(first: Record, second: Record) -> list[Section]:
    """Where to read what both models wrote; nothing where neither was asked to write."""
    pairs = {name: (first.answers.get(name), second.answers.get(name)) for name in first.answers | second.answers}
    return [_pairs("Written answers, in the folders of the runs", pairs)] if pairs else []


def _metric(metric: Metric) -> list[str]:
    key = metric.key
    values = [digits(key, metric.first), digits(key, metric.second), digits(key, metric.difference, "+")]
    interval = " to ".join(digits(key, end, "+") for end in metric.interval or ())
    over = "" if metric.error is None else "pairs" if metric.paired else "two samples"
    return [column_title(key), *values, interval, over, metric.verdict]


def _matrices(layers: Sequence[Layer], remarks: Sequence[str]) -> list[Section]:
    """The masks by kind of matrix, and the matrices that have least in common."""
    if not layers:
        return [Section("By matrix", [], [], remarks)]
    compared = [layer for layer in layers if not isnan(layer.common)]
    differing = sorted((layer for layer in compared if layer.common < 1.0), key=lambda layer: layer.common)
    notes = [LEGEND, *remarks] if compared else list(remarks)
    if compared and not differing:
        notes.append("the masks are the same")
    kinds = [*grouped(layers, lambda layer: layer.kind).values(), total("all", layers)]
    sections = [_listed("By matrix", kinds, notes)]
    if differing:
        sections.append(_listed("Least in common", differing[:NAMED]))
    return sections


def _listed(title: str, layers: Iterable[Layer], notes: Sequence[str] = ()) -> Section:
    """A row for each of these matrices."""
    shares = [(layer, (*layer.sparsities, *layer.shares, layer.common, layer.random)) for layer in layers]
    return Section(title, ["matrix", *SHARES], [[layer.name, *map(_share, cells)] for layer, cells in shares], notes)


def _share(value: float) -> str:
    return "" if isnan(value) else fraction(value)


def _depth(comparison: Comparison) -> Section:
    """A row for each block: its output's distance from the dense one in both runs, sparsities, masks in common."""
    errors, blocks = comparison.errors, grouped(comparison.layers, lambda layer: layer.block)
    header = ["block", "error A", "error B", "B / A", "sparsity A", "sparsity B", "in common", "random"]
    body = []
    for name in dict.fromkeys([*errors[0], *errors[1], *blocks]):
        pair = [side.get(name) for side in errors]
        block = blocks.get(name)
        shares = [*block.sparsities, block.common, block.random] if block else [nan] * 4
        shown = ["" if error is None else f"{error:.4g}" for error in pair]
        body.append([name, *shown, _ratio(*pair), *map(_share, shares)])
    notes = []
    if any(errors):
        images = any("images" in (run.manifest.get("data") or {}) for run in comparison.runs)
        notes.append(ERROR + (" calibration images" if images else " calibration windows"))
        if len({run.manifest["config"].get("propagate", "pruned") for run in comparison.runs}) > 1:
            notes.append("the errors do not compare: one run fed its blocks the dense stream")
    return Section("By depth", header, body, notes)


def _cost(first: Record, second: Record) -> Section:
    """Seconds and peak memory of every stage."""
    sides = first.results, second.results
    seconds = [side.get("seconds", {}) for side in sides]
    peaks = [side.get("stage_memory", {}) for side in sides]
    header = ["stage", "A, s", "B, s", "B / A", "host A", "host B", "device A", "device B"]
    body = []
    for name in dict.fromkeys([*seconds[0], *seconds[1], *peaks[0], *peaks[1]]):
        body.append([name, *_seconds([side.get(name) for side in seconds]), *_memory([p.get(name) for p in peaks])])
    if not body:
        return Section("Time and peak memory", header, [], ["none"])
    totals = _seconds([sum(side.values()) if side else None for side in seconds])
    memory = [side.get("memory") or {} for side in sides]
    body.append(["all", *totals, *_memory(memory)])
    if any(side.get("host_before") for side in memory):
        body.append(
            ["before it began", "", "", "", *_memory([{"host_peak": side.get("host_before")} for side in memory])]
        )
    notes = [
        f"{side}: {duration(time)} of {stage} were {what}"
        for side, results in zip("AB", sides, strict=True)
        for stage, time, what in spent_elsewhere(results)
    ]
    if MACHINE & origins(first, second).keys():
        notes.append("not the same machine: times do not compare")
    return Section("Time and peak memory", header, body, notes)


def _seconds(pair: list[float | None]) -> list[str]:
    return [*map(timing, pair), _ratio(*pair)]


def _memory(pair: list[dict[str, Any] | None]) -> list[str]:
    peaks = [(side or {}).get(where) for where in ("host_peak", "device_peak") for side in pair]
    return ["" if peak is None else size(peak) for peak in peaks]


def _ratio(first: float | None, second: float | None) -> str:
    return f"{second / first:.2f}" if first and second is not None else ""
