"""The sections of a comparison as tables of words and numbers: settings, metrics, layers, time and memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from experiments.comparing.layers import Layer, grouped, total
from experiments.comparing.metrics import Metric
from experiments.comparing.settings import Pairs, origins, settings
from experiments.console.grid import grid
from experiments.console.text import digits, fraction, size, timing
from experiments.runs.record import Record
from experiments.summary.rows import column_title

NAMED = 5  # matrices named on the terminal
WIDEST = 60  # letters of a cell on the terminal, before it goes on in a line of its own
EVEN = 1e-9  # a difference of sparsities that is rounding
SHARES = ["sparsity A", "sparsity B", "kept by both", "A alone", "B alone", "in common", "random"]


@dataclass(frozen=True)
class Section:
    """A title, a table (the first `words` columns are text; columns without a cell are left out), and remarks."""

    title: str
    header: list[str]
    body: list[list[str]]
    words: int = 1
    notes: Sequence[str] = ()

    def render(self, markdown: bool) -> str:
        """The section as text for a terminal, or as Markdown."""
        filled = [place for place in range(len(self.header)) if any(row[place] for row in self.body)]
        cut = (lambda cell: cell) if markdown else (lambda cell: "\n".join(wrap(cell, WIDEST)) if " " in cell else cell)
        pick = lambda cells: [cut(cells[place]) for place in filled]
        words, style = sum(place < self.words for place in filled), "pipe" if markdown else "simple"
        table = grid(pick(self.header), [pick(row) for row in self.body], "l" * words + "r", style) if self.body else ""
        notes = "\n".join(f"- {note}" if markdown else note for note in self.notes)
        return "\n\n".join(
            part for part in (f"## {self.title}" if markdown else self.title.upper(), table, notes) if part
        )


def differing(first: Record, second: Record) -> list[Section]:
    """What was asked, and what did it."""
    parts = {
        "Settings that differ": settings(first, second),
        "Input, code and machine that differ": origins(first, second),
    }
    return [_pairs(title, pairs) for title, pairs in parts.items()]


def _pairs(title: str, pairs: Pairs) -> Section:
    cell = lambda value: "-" if value is None else str(value)
    body = [[name, *map(cell, pair)] for name, pair in pairs.items()]
    return Section(title, ["", "A", "B"], body, 3, [] if body else ["none"])


def measured(metrics: Iterable[Metric]) -> Section:
    """Both values, their difference with its interval, and what that says."""
    metrics = list(metrics)
    header = ["metric", "A", "B", "B - A", "95 % interval", "over", "verdict"]
    notes = [f"{metric.key} is not comparable: {metric.unlike}" for metric in metrics if metric.unlike]
    known = [metric for metric in metrics if metric.error is not None]
    single = "two samples: single losses or answers are not kept in both runs; over pairs it would be narrower"
    alone = "an interval is over the evaluated text or tasks alone, not over other calibration windows"
    notes += [single] * any(not metric.paired for metric in known) + [alone] * bool(known)
    return Section("Metrics", header, [_metric(metric) for metric in metrics], 1, notes or [] if metrics else ["none"])


def _metric(metric: Metric) -> list[str]:
    key = metric.key
    values = [digits(key, metric.first), digits(key, metric.second), digits(key, metric.difference, "+")]
    interval = " to ".join(digits(key, end, "+") for end in metric.interval or ())
    over = "" if metric.error is None else "pairs" if metric.paired else "two samples"
    return [column_title(key), *values, interval, over, metric.verdict]


def deep(errors: Sequence[dict[str, float]], layers: Sequence[Layer], streams: set[str]) -> Section:
    """A row for each block: its output's distance from the dense one in both runs, sparsities, masks in common.

    streams: which blocks were fed, the dense or the pruned one (`propagate`); errors of two streams do not compare.
    """
    blocks = grouped(layers, lambda layer: layer.block)
    header = ["block", "error A", "error B", "B / A", "sparsity A", "sparsity B", "in common", "random"]
    body = []
    for name in dict.fromkeys([*errors[0], *errors[1], *blocks]):
        pair = [side.get(name) for side in errors]
        own = blocks.get(name)
        shares = [*own.sparsities, own.common, own.random] if own else [None] * 4
        body.append(
            [name, *("" if error is None else f"{error:.4g}" for error in pair), _ratio(*pair), *map(fraction, shares)]
        )
    told = "error: squared distance of a block's output from the dense block's, relative to its square, over the run's"
    notes = [f"{told} own calibration windows"]
    notes += ["the errors do not compare: one run fed its blocks the dense stream"] * (len(streams) > 1)
    return Section("By depth", header, body, 1, notes if any(errors) else [])


def alike(layers: Sequence[Layer], remarks: Iterable[str]) -> list[Section]:
    """The masks by kind of matrix, then the matrices that have least in common and those most unlike in sparsity."""
    if not layers:
        return [Section("By matrix", [], [], 1, list(remarks))]
    kinds = {**grouped(layers, lambda layer: layer.matrix), "all": total("all", layers)}
    legend = (
        "in common: of what either removed, the share that both did; random: of two random masks as sparse as these"
    )
    compared = any(layer.common is not None for layer in layers)
    notes = [*[legend] * compared, *remarks]
    if compared and all(layer.common in (None, 1.0) for layer in layers):
        notes.append("the masks are the same")
    body = [[name, *_shares(layer)] for name, layer in kinds.items()]
    found = [Section("By matrix", ["matrix", *SHARES], body, 1, notes)]
    known = sorted((layer for layer in layers if (layer.common or 1.0) < 1.0), key=lambda layer: layer.common or 0.0)
    found += [listed("Least in common", known[:NAMED])] * bool(known)
    uneven = sorted((layer for layer in layers if _gap(layer) > EVEN), key=lambda layer: -_gap(layer))
    return found + [listed("Largest difference in sparsity", uneven[:NAMED])] * bool(uneven)


def listed(title: str, layers: Iterable[Layer]) -> Section:
    """A row for each of these matrices."""
    return Section(title, ["matrix", *SHARES], [[layer.name, *_shares(layer)] for layer in layers])


def _shares(layer: Layer) -> list[str]:
    return [fraction(part) for part in (*layer.sparsities, *(layer.shares or (None,) * 3), layer.common, layer.random)]


def _gap(layer: Layer) -> float:
    first, second = layer.sparsities
    return 0.0 if first is None or second is None else abs(second - first)


def cost(first: Record, second: Record) -> Section:
    """Seconds and peak memory of every stage; of the whole process where a run does not tell them apart."""
    results = first.results, second.results
    seconds = [found.get("seconds", {}) for found in results]
    stages = [found.get("stage_memory", {}) for found in results]
    header = ["stage", "A, s", "B, s", "B / A", "host A", "host B", "device A", "device B"]
    body = []
    for name in dict.fromkeys([*seconds[0], *seconds[1], *stages[0], *stages[1]]):
        body.append([name, *_seconds([side.get(name) for side in seconds]), *_memory([s.get(name) for s in stages])])
    totals = _seconds([sum(side.values()) if side else None for side in seconds])
    body += [["all", *totals, *_memory([found.get("memory") for found in results])]] * bool(body)
    notes = ["not the same machine: times do not compare"] * bool(
        {"chip", "device", "cores", "threads", "ranks"} & origins(first, second).keys()
    )
    notes += ["memory of each stage: not in a run of an older version, see all"] * bool(body and not all(stages))
    return Section("Time and peak memory", header, body, 1, notes if body else ["none"])


def _seconds(pair: list[float | None]) -> list[str]:
    return [*map(timing, pair), _ratio(*pair)]


def _memory(pair: list[dict[str, Any] | None]) -> list[str]:
    peaks = [(side or {}).get(where) for where in ("host_peak", "device_peak") for side in pair]
    return ["" if peak is None else size(peak) for peak in peaks]


def _ratio(first: float | None, second: float | None) -> str:
    return f"{second / first:.2f}" if first and second is not None else ""
