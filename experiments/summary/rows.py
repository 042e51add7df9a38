"""Tables over finished runs: dense, pruned and the difference, never two protocols in one column."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console.grid import grid, no_html
from experiments.console.text import digits, duration, fraction, inline, plus_minus
from experiments.runs.protocol import bare, between, compared, flat, protocol, rank, stderr, tell_apart
from experiments.runs.record import Record, load
from experiments.summary.grouping import distinguished, methods, models, replaced

NUMBER = re.compile(r" \[\d+\]$")  # behind a name that several things have
UNEVEN = 0.005  # difference of sparsities between matrices: below, it is rounding


@dataclass(frozen=True)
class Value:
    """A metric of one run, its standard error, the same metric of the dense model, and its key in results.json."""

    value: float
    error: float | None
    dense: float | None
    difference_error: float | None = None  # paired: over the same windows
    key: str = ""

    @property
    def difference(self) -> float | None:
        """Pruned minus dense."""
        return None if self.dense is None else self.value - self.dense


@dataclass(frozen=True)
class Row:
    """A finished run, or the dense model (method "dense", the record of a run that measured it); values by column.

    `setting` names what it is but for its seeds: rows of one model, pattern and sparsity that share it are its draws.
    """

    model: str
    method: str
    pattern: str
    sparsity: float | None
    values: dict[str, Value]
    record: Record
    setting: str = "dense"


@dataclass(frozen=True)
class Table:
    """Rows, their metric columns in order, what a reader must know about them, and the runs that have no row."""

    rows: list[Row]
    metrics: list[str]
    notes: list[str]
    unfinished: list[Record]


def arrange(records: Iterable[Record]) -> Table:
    """The table over all finished runs: by model, the dense one first, then by pattern, sparsity and method."""
    records = sorted(records, key=_order)
    done = [record for record in records if record.status == "done"]
    labels, notes = models(done)
    members: dict[str, list[Record]] = {label: [] for label in labels}
    for record, label in zip(done, labels, strict=True):
        members[label].append(record)
    rows = [row for label, own in members.items() for row in _rows(label, own, notes)]
    notes += between({label: [record.results for record in own] for label, own in members.items()})
    codes = Counter(record.code for record in done)
    if len(codes) > 1:
        each = ", ".join(f"{code} ({count} run{'s' * (count > 1)})" for code, count in codes.most_common())
        notes.append(f"not all rows were computed by the same code and libraries: {each}")
    metrics = sorted({metric for row in rows for metric in row.values}, key=rank)
    return Table(rows, metrics, notes, [record for record in records if record.status != "done"])


def _order(record: Record) -> tuple[str, str, float, str, str]:
    manifest = record.manifest
    names = [manifest.get(key) or "" for key in ("model", "pattern", "method")]
    return names[0], names[1], manifest.get("sparsity") or 0.0, names[2], str(record.folder)


def _rows(model: str, records: list[Record], notes: list[str]) -> list[Row]:
    """The rows of one model; `notes` gains what its runs do not measure alike."""
    records = sorted(records, key=lambda record: record.manifest["method"] != "dense")  # its own run knows it best
    keys = [(record, key) for record in records for key in compared(record.results)]
    labels, unlike = tell_apart([(bare(key), protocol(record.results, key)) for record, key in keys])
    notes += [f"{model}: {note}" for note in unlike]
    made = {(label, _evaluated(record, key)) for (record, key), label in zip(keys, labels, strict=True)}
    mixed = [label for label, count in Counter(label for label, _ in made).items() if count > 1]
    notes += [f"{model}: {label} was not evaluated by the same code in all rows" for label in mixed]
    values: dict[Path, dict[str, Value]] = {record.folder: {} for record in records}
    dense: dict[str, list[Value]] = {}
    for (record, key), label in zip(keys, labels, strict=True):
        values[record.folder][label] = _value(record, key)
        if (baseline := _dense(record, key)) is not None:
            dense.setdefault(label, []).append(baseline)
    notes += [f"{model}: {note}" for note in (*replaced(records), *_unsteady(dense))]
    rows = [Row(model, "dense", "", 0.0, {label: found[0] for label, found in dense.items()}, records[0])]
    return rows + _pruned(model, [record for record in records if record.manifest["method"] != "dense"], values, notes)


def _pruned(model: str, records: list[Record], values: dict[Path, dict[str, Value]], notes: list[str]) -> list[Row]:
    """A row for each run that pruned; `notes` gains what has one name and is not one thing."""
    named, unlike = methods(records)
    notes += [f"{model}: {note}" for note in unlike]
    labels, rows = distinguished(records), []
    for record in sorted(records, key=lambda record: _order(record)[1:]):  # whatever name the model had
        setting, pattern = named[record.folder], inline(record.manifest["pattern"])
        method = record.manifest["method"] + "".join(NUMBER.findall(setting))
        method += f" ({labels[record.folder]})" if labels[record.folder] else ""
        rows.append(Row(model, inline(method), pattern, record.sparsity, values[record.folder], record, setting))
    return rows


def _unsteady(dense: dict[str, list[Value]]) -> list[str]:
    """Notes on numbers of the dense model that are not the same in all runs of one model and protocol."""
    found = {label: Counter(digits(label, value.value) for value in values) for label, values in dense.items()}
    return [
        f"dense {label} is {', '.join(f'{shown} in {count} runs' for shown, count in counts.items())};"
        " each difference is to that of its own run"
        for label, counts in found.items()
        if len(counts) > 1
    ]


def _value(record: Record, key: str) -> Value:
    metrics = record.results["metrics"]
    paired = record.results.get("difference_stderr", {}).get(key)
    return Value(metrics[key], metrics.get(stderr(key)), record.results.get("dense", {}).get(key), paired, key)


def _evaluated(record: Record, key: str) -> str | None:
    """The code of an evaluation; None where the run does not tell it."""
    return record.results.get("protocol", {}).get(record.results.get("step", {}).get(key), {}).get("code")


def _dense(record: Record, key: str) -> Value | None:
    """The dense model's metric as this run knows it: a run of the dense model has it among its own."""
    section = record.results["metrics" if record.manifest["method"] == "dense" else "dense"]
    return Value(section[key], section.get(stderr(key)), None) if key in section else None


def render(table: Table, markdown: bool = False) -> str:
    """The table as text, then notes and unfinished runs. A terminal gets one accuracy per run, Markdown every task."""
    metrics = without_members(table.metrics) if markdown else readable(table.metrics)
    header = ["model", "method", "pattern", "sparsity"]
    header += [title for metric in metrics for title in (column_title(metric), "difference")]
    body = [_cells(row, metrics) for row in table.rows]
    align = "lll" + "r" * (len(header) - 3)
    if markdown or len({tuple(cells[:4]) for cells in body}) < len(body):  # rows that look alike are told apart by name
        header, align = [*header, "run"], f"{align}l"
        body = [[*cells, _name(row)] for cells, row in zip(body, table.rows, strict=True)]
    cells = [[inline(cell) for cell in line] for line in body]
    text = grid(header, cells, align, "pipe" if markdown else "simple") if body else ""
    lines = [f"{record.status}: {record.folder}: {record.error}".removesuffix(": ") for record in table.unfinished]
    lines = [inline(line) for line in (*(f"note: {note}" for note in table.notes), *lines)]
    if hidden := len(table.metrics) - len(metrics):
        lines.insert(0, f"{hidden} more metrics are in the report's CSV")
    if markdown:
        lines = [f"- {no_html(line)}" for line in lines]
    return "\n\n".join(part for part in (text, "\n".join(lines)) if part)


def readable(metrics: list[str]) -> list[str]:
    """Perplexities and the mean accuracy; without a mean, the accuracy if there is one only."""
    accuracies = [metric for metric in metrics if metric.startswith("acc/")]
    means = [metric for metric in accuracies if metric.startswith("acc/mean")]
    return [m for m in metrics if m.startswith("ppl/")] + (means or accuracies * (len(accuracies) == 1))


def without_members(metrics: list[str]) -> list[str]:
    """Without the members of a task group that is there itself: BLiMP has 67 of them."""
    names = {metric: metric.partition("@")[0] for metric in metrics}
    return [m for m in metrics if not any(names[m].startswith(f"{other}_") for other in names.values())]


def _cells(row: Row, metrics: list[str]) -> list[str]:
    values = [row.values.get(metric) for metric in metrics]
    pairs = [_pair(metric, value) if value else ("", "") for metric, value in zip(metrics, values, strict=True)]
    return [row.model, row.method, row.pattern, fraction(row.sparsity), *(cell for pair in pairs for cell in pair)]


def _pair(key: str, value: Value) -> tuple[str, str]:
    """A value with its standard error, and its difference to the dense model's."""
    return plus_minus(key, value.value, value.error), plus_minus(key, value.difference, value.difference_error, "+")


def column_title(key: str) -> str:
    """A metric's name as a column's title, with its unit."""
    return f"{key} %" if key.startswith("acc") else key


def _name(row: Row) -> str:
    return "" if row.method == "dense" else row.record.folder.name


def single(folder: Path) -> str:
    """What one run found: every compared metric, then what was removed, how long it took and what it reported."""
    record = load(folder)
    if record.status in ("failed", "unreadable"):
        return f"{record.status}: {record.error}"
    body = []
    for key in without_members(compared(record.results)):
        value = _value(record, key)
        body.append([column_title(key), digits(key, value.dense), *_pair(key, value)])
    header = ["metric", "dense", record.manifest["method"], "difference"]
    if record.manifest["method"] == "dense":
        header, body = ["metric", "dense"], [[title, shown] for title, _, shown, _ in body]
    text = grid(header, body, "lr", "simple") if body else ""
    return "\n".join(line for line in (text, *_facts(record), str(folder)) if line)


def _facts(record: Record) -> list[str]:
    results = record.results
    sparsity = [] if record.sparsity is None else [f"sparsity {fraction(record.sparsity)}"]
    seconds = [f"{stage} {duration(spent)}" for stage, spent in results.get("seconds", {}).items()]
    notes = [f"{what.replace('_', ' ')}: {found}" for what, found in results.get("notes", {}).items()]
    skipped = results.get("skipped", {})
    reasons = [f"skipped {name}: {reason}" for name, reason in list(skipped.items())[:3]]
    more = [f"skipped {len(skipped) - 3} more, see results.json"] * (len(skipped) > 3)
    named = [f"{key}: eval.{_asked(results, key)}" for key in compared(results) if bare(key) != key]
    mixed = [f"pruned by {record.code}"] * ("; then " in record.code)
    return [", ".join(sparsity + seconds), _allocation(results), ", ".join(notes), *named, *reasons, *more, *mixed]


def _asked(results: dict[str, Any], key: str) -> str:
    """The settings in which an evaluation differs from that which has its short key, as they are typed."""
    settings, step = results.get("settings", {}), results.get("step", {})
    mine, others = (flat(settings.get(step.get(name), {})) for name in (key, bare(key)))
    name = mine.pop("name", "")
    apart = [f"{name}.{setting}={value}" for setting, value in mine.items() if others.get(setting) != value]
    return " eval.".join(apart) or name


def _allocation(results: dict[str, Any]) -> str:
    """How unevenly the sparsity is spread over the matrices, and how far that is from what the allocator wanted."""
    layers = [layer for layer in results.get("layers", []) if None not in (layer.get("wanted"), layer.get("target"))]
    shares = [layer["sparsity"] for layer in layers]
    if not layers or max(shares) - min(shares) < UNEVEN:
        return ""
    moved = max(abs(layer["target"] - layer["wanted"]) for layer in layers)
    return f"allocated {min(shares):.4f} to {max(shares):.4f} per matrix, moved by up to {moved:.4f} to meet the budget"
