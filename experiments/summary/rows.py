"""Tables over finished runs: dense, pruned and the difference, never two protocols in one column."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

from experiments.console.families import family, recovery
from experiments.console.grid import grid, no_html
from experiments.console.text import digits, duration, fraction, inline, percent, plural, plus_minus, size, some
from experiments.runs.bits import Count, dense, quantised, zeros
from experiments.runs.calibration import calibrations
from experiments.runs.protocol import (
    bare,
    between,
    compared,
    flat,
    of_group,
    protocol,
    rank,
    stderr,
    task_version,
    tell_apart,
)
from experiments.runs.record import Record, load, spent_elsewhere
from experiments.summary.counts import COUNTED, bits_per_weight, counted
from experiments.summary.naming import methods, models, replaced
from experiments.summary.state import told

ROUNDED = ("group", "symmetric", "act_order", "damping", "block_size")  # settings of quantizers that no method fixes
NAMED = 6  # so many rows are named for each value of what differs between them
ACCURACIES = 4  # so many tasks have each a column where no mean stands for them
SKIPPED = 4  # so many modules that were not pruned are named for one reason


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
    calibration: str | None = None  # None: it read nothing

    @property
    def bits(self) -> Count | None:
        """Bits per weight; of the dense model those of what the run pruned."""
        if self.method != "dense":
            return self.record.bits
        return dense(self.record.results, self.record.manifest["config"])

    @property
    def zeros(self) -> float | None:
        """The share of zeros where the weights are on grids, else None: it is that of the removed ones."""
        return None if self.method == "dense" else zeros(self.record.results)


@dataclass(frozen=True)
class Table:
    """Rows, their metric columns in order, what a reader must know about them, and the runs that have no row.

    columns: the metrics without those that are of a member of a task group in every run. short: those of a short table.
    """

    rows: list[Row]
    metrics: list[str]
    columns: list[str]
    short: list[str]
    notes: list[str]
    unfinished: list[Record]

    @property
    def quantised(self) -> bool:
        """Whether weights of any run are on grids: bits and zeros have their columns then."""
        return any(row.method != "dense" and quantised(row.record.results) for row in self.rows)


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
        each = ", ".join(f"{code} ({plural(count, 'run')})" for code, count in codes.most_common())
        notes.append(f"not all rows were computed by the same code and libraries: {each}")
    metrics = sorted({metric for row in rows for metric in row.values}, key=rank)
    parts = [(bare(key), of_group(record.results, key)) for record in done for key in compared(record.results)]
    members = {key for key, part in parts if part} - {key for key, part in parts if not part}
    columns = [metric for metric in metrics if metric.partition(" [")[0] not in members]
    return Table(
        rows, metrics, columns, readable(columns), notes, [record for record in records if record.status != "done"]
    )


def _order(record: Record) -> tuple[str, str, float, str, str]:
    manifest = record.manifest
    names = [manifest.get(key) or "" for key in ("model", "pattern", "method")]
    return names[0], names[1], manifest.get("sparsity") or 0.0, names[2], str(record.folder)


def _rows(model: str, records: list[Record], notes: list[str]) -> list[Row]:
    """The rows of one model; `notes` gains what its runs do not measure alike."""
    records = sorted(records, key=lambda record: record.manifest["method"] != "dense")  # its own run knows it best
    keys = [(record, key) for record in records for key in compared(record.results)]
    labels, unlike = tell_apart([(bare(key), protocol(record.results, key)) for record, key in keys])
    evaluators = {(label, _evaluator(record, key)) for (record, key), label in zip(keys, labels, strict=True)}
    mixed = [label for label, count in Counter(label for label, _ in evaluators).items() if count > 1]
    values: dict[Path, dict[str, Value]] = {record.folder: {} for record in records}
    dense: dict[str, list[Value]] = {}
    for (record, key), label in zip(keys, labels, strict=True):
        values[record.folder][label] = _value(record, key)
        if (baseline := _dense(record, key)) is not None:
            dense.setdefault(label, []).append(baseline)
    unlike += [f"{label} was not evaluated by the same code in all rows" for label in mixed]
    rows, unnamed = _pruned(model, [record for record in records if record.manifest["method"] != "dense"], values)
    unlike += [f"not alike in all rows: {line}" for line in differing(rows)]
    notes += [f"{model}: {note}" for note in (*unlike, *replaced(records), *_unsteady(dense), *unnamed)]
    return [Row(model, "dense", "", 0.0, {label: first for label, (first, *_) in dense.items()}, records[0]), *rows]


def _pruned(model: str, records: list[Record], values: dict[Path, dict[str, Value]]) -> tuple[list[Row], list[str]]:
    """A row for each run that pruned, and notes on what has one name and is not one thing.

    Of runs that read no data, and differ in nothing but the data that stood beside them, the first alone has one.
    """
    names, notes = methods(records)
    rows: dict[Any, Row] = {}
    place = lambda record: (*_order(record)[1:3], names[record.folder].own, str(record.folder))  # of whatever model
    records = sorted(records, key=place)
    for record, calibration in zip(records, calibrations(records), strict=True):
        name, pattern, own = names[record.folder], inline(record.manifest["pattern"]), values[record.folder]
        row = Row(model, name.own, pattern, record.sparsity, own, record, name.setting, calibration)
        numbers = tuple((label, value.value) for label, value in own.items())
        alike = (name.own, pattern, record.manifest["sparsity"], numbers) if record.reads_no_text else record.folder
        rows.setdefault(alike, row)
    if hidden := len(records) - len(rows):
        notes.append(f"what reads no data is shown once, not beside each calibration: {plural(hidden, 'run')} left out")
    return list(rows.values()), notes


def differing(rows: Iterable[Row]) -> list[str]:
    """What is not the same in all rows of one model and budget beside the method: values, and who has them.

    Of a setting with several seeds all of them count together.
    """
    lines = []
    for what, budgets in _circumstances(rows).items():
        owners: dict[tuple[str, ...], dict[str, None]] = {}
        for settings in budgets.values():
            if len(set(map(frozenset, settings.values()))) > 1:
                for setting, values in settings.items():
                    owners.setdefault(tuple(sorted(values)), {})[setting] = None
        each = [f"{some(values, NAMED)} ({some(names, NAMED)})" for values, names in owners.items()]
        lines += [f"{what} is {'; '.join(each)}"] if each else []
    return lines


def _circumstances(rows: Iterable[Row]) -> dict[str, dict[tuple[str, float], dict[str, set[str]]]]:
    """How rows were computed beside method and budget: what -> pattern and sparsity -> setting -> values."""
    facts: dict[str, dict[tuple[str, float], dict[str, set[str]]]] = {}
    for row in rows:
        config, budget = row.record.manifest["config"], (row.pattern, row.record.manifest["sparsity"])
        values = {name: config.get(name) for name in ("granularity", "propagate")}
        if quantised(row.record.results):
            chosen = {name: part for name, part in (config.get("quantizer") or {}).items() if name in ROUNDED}
            values |= {f"quantizer.{name}": "null" if part is None else part for name, part in chosen.items()}
        if row.calibration is not None:
            values |= {"calibration": row.calibration, "data.seed": (config.get("data") or {}).get("seed")}
        for what, value in values.items():
            if value is not None:
                facts.setdefault(what, {}).setdefault(budget, {}).setdefault(row.setting, set()).add(str(value))
    return facts


def _unsteady(dense: dict[str, list[Value]]) -> list[str]:
    """Notes on numbers of the dense model that are not the same in all runs of one model and protocol."""
    notes = []
    for label, values in dense.items():
        counts = Counter(digits(label, value.value) for value in values)
        if len(counts) > 1:
            each = ", ".join(f"{number} in {count} runs" for number, count in counts.items())
            notes.append(f"dense {label} is {each}; each difference is to that of its own run")
    return notes


def _value(record: Record, key: str) -> Value:
    metrics = record.results["metrics"]
    paired = record.results.get("difference_stderr", {}).get(key)
    return Value(metrics[key], metrics.get(stderr(key)), record.results.get("dense", {}).get(key), paired, key)


def _evaluator(record: Record, key: str) -> str | None:
    """The code of an evaluation; None where the run does not tell it."""
    return record.results.get("protocol", {}).get(record.results.get("step", {}).get(key), {}).get("code")


def _dense(record: Record, key: str) -> Value | None:
    """The dense model's metric as this run knows it: a run of the dense model has it among its own."""
    section = record.results["metrics" if record.manifest["method"] == "dense" else "dense"]
    return Value(section[key], section.get(stderr(key)), None) if key in section else None


def render(table: Table, markdown: bool = False) -> str:
    """The table as text, then notes and unfinished runs. A terminal gets one accuracy per run, Markdown every task."""
    metrics = table.columns if markdown else table.short
    header = ["model", "method", "pattern", "sparsity", *(COUNTED if table.quantised else [])]
    for metric in metrics:
        header += [column_title(metric), "difference"] if has_difference(metric) else [column_title(metric)]
    body, align = [_cells(row, metrics, table.quantised) for row in table.rows], "lll" + "r" * (len(header) - 3)
    if markdown or len({tuple(cells[:4]) for cells in body}) < len(body):  # rows that look alike are told apart by name
        header, align = [*header, "run"], f"{align}l"
        names = ["" if row.method == "dense" else row.record.folder.name for row in table.rows]
        body = [[*cells, inline(name)] for cells, name in zip(body, names, strict=True)]
    text = grid(header, body, align, "pipe" if markdown else "simple") if body else ""
    lines = [f"note: {note}" for note in table.notes]
    states = [(record.folder, *told(record)) for record in table.unfinished]
    lines += [f"{status}: {folder}: {why}".removesuffix(": ") for folder, status, why in states]
    lines = list(map(inline, lines))
    if hidden := len(table.metrics) - len(metrics):
        lines.insert(0, f"{hidden} more metrics are in the report's CSV")
    if markdown:
        lines = [f"- {no_html(line)}" for line in lines]
    return "\n\n".join(part for part in (text, "\n".join(lines)) if part)


def readable(metrics: list[str]) -> list[str]:
    """What an evaluation calls its main numbers; of accuracies the mean, without one each of a few tasks.

    Those that were asked otherwise, such as with five examples, count by themselves.
    """
    main = [metric for metric in metrics if (known := family(metric)) and known.main]
    accuracies: dict[str, list[str]] = {}
    for metric in main:
        if metric.startswith("acc/"):
            accuracies.setdefault(bare(metric.partition(" [")[0]).partition("@")[2], []).append(metric)
    shown = {metric for alike in accuracies.values() for metric in _few(alike)}
    return [metric for metric in main if metric in shown or not metric.startswith("acc/")]


def _few(accuracies: list[str]) -> list[str]:
    if means := [metric for metric in accuracies if metric.startswith("acc/mean")]:
        return means
    return accuracies if len(accuracies) <= ACCURACIES else []


def _cells(row: Row, metrics: list[str], quantised: bool) -> list[str]:
    cells = [inline(row.model), inline(row.method), inline(row.pattern), fraction(row.sparsity)]
    cells += counted(row) if quantised else []
    for metric in metrics:
        value = row.values.get(metric)
        pair = _pair(metric, value) if value else ["", ""]
        cells += pair if has_difference(metric) else pair[:1]
    return cells


def _pair(key: str, value: Value) -> list[str]:
    """A value with its standard error, and its difference to the dense model's."""
    own = plus_minus(key, value.value, value.error)
    return [own, plus_minus(key, value.difference, value.difference_error, "+")]


def has_difference(key: str) -> bool:
    """Whether a metric has a difference to the dense model's: a divergence from that model has none."""
    known = family(key)
    return known is not None and known.difference


def column_title(key: str) -> str:
    """A metric's name as a column's title, with its unit."""
    known = family(key)
    return f"{key} %" if known and known.percent else key


def single(folder: Path) -> str:
    """What one run measured: every compared metric, what was removed, how long it took and what it reported."""
    record = load(folder)
    if record.status in ("failed", "unreadable"):
        return f"{record.status}: {record.error}"
    results, seconds = record.results, []
    for stage, spent in results.get("seconds", {}).items():
        parts = [f"{duration(part)} of it {what}" for name, part, what in spent_elsewhere(results) if name == stage]
        seconds.append(f"{stage} {duration(spent)}" + (f" ({', '.join(parts)})" if parts else ""))
    memory = results.get("memory", {})
    if peak := memory.get("host_peak"):
        before = f" ({size(memory['host_before'])} before it began)" if memory.get("host_before") else ""
        seconds.append(f"peak memory {size(peak)}{before}")
    if record.sparsity is not None:
        seconds.insert(0, f"sparsity {fraction(record.sparsity)}")
    if quantised(results):
        seconds.insert(1, f"zeros {fraction(zeros(results))}")
    not_pruned = [f"not pruned, {line}" for line in skipped(record)]
    meant = [f"{key}: {meaning}" for key in compared(results) if (meaning := _meaning(results, key))]
    written = [f"what it wrote: {folder / file}" for file in record.answers.values()]
    counts = f"bits per weight: {bits}" if (bits := bits_per_weight(record)) else ""
    heads = [_measured(record), ", ".join(seconds), counts]
    lines = [*heads, *meant, *remarks(record), *not_pruned, *written, str(folder)]
    return "\n".join(line for line in lines if line)


def _measured(record: Record) -> str:
    """A line for each metric: the dense model's, this run's, their difference, the share that is left, and the version
    of a task's recipe, without the columns that would be empty; empty where nothing was measured.
    """
    results, method = record.results, record.manifest["method"]
    lines = [["metric", "dense", method, "difference", "recovery %", "task version"]]
    for key in compared(results):
        if not of_group(results, key):
            value = _value(record, key)
            value = replace(value, dense=None) if method == "dense" else value
            left = percent(recovery(key, value.value, value.dense))
            cells = [digits(key, value.dense), *_pair(key, value), left, task_version(results, key)]
            lines.append([column_title(key), *cells])
    shown = [any(column[1:]) for column in zip(*lines, strict=True)]
    header, *body = [list(compress(line, shown)) for line in lines]
    return grid(header, body, "lr", "simple") if body else ""


def _meaning(results: dict[str, Any], key: str) -> str:
    """What a metric's key does not say: the tasks that a mean is over, or what a longer key was measured with."""
    if bare(key) != key:
        return f"eval.{_settings(results, key)}"
    step = results.get("protocol", {}).get(results.get("step", {}).get(key), {})
    mean = key.partition("/")[2].partition("@")[0] == "mean"
    return f"mean over {', '.join(step['mean_over'])}" if mean and step.get("mean_over") else ""


def _settings(results: dict[str, Any], key: str) -> str:
    """The settings in which an evaluation differs from that which has its short key, as they are typed."""
    settings, step = results.get("settings", {}), results.get("step", {})
    mine, others = (flat(settings.get(step.get(name), {})) for name in (key, bare(key)))
    name = mine.pop("name", "")
    apart = [f"{name}.{setting}={value}" for setting, value in mine.items() if others.get(setting) != value]
    return " eval.".join(apart) or name


def remarks(record: Record) -> list[str]:
    """What did not go as asked: errors of later commands, retries with less memory, counted fallbacks, mixed code."""
    lines = []
    if record.status == "done" and record.manifest.get("error"):
        lines.append(f"a later command failed: {record.manifest['error']}")
    if unsaved := record.manifest.get("unsaved"):
        lines.append(f"no model was saved: {unsaved}")
    for retry in record.manifest.get("retries") or []:
        tier = ", ".join(f"{name}={value}" for name, value in retry.items() if name != "error")
        lines.append(f"out of memory ({retry.get('error')}); done again with {tier}")
    lines += [f"{what.replace('_', ' ')}: {number:g}" for what, number in record.results.get("notes", {}).items()]
    if "; then " in record.code:
        lines.append(f"begun by other code than it was finished by: {record.code}")
    return lines


def skipped(record: Record) -> list[str]:
    """What was not pruned, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in record.results.get("skipped", {}).items():
        reasons.setdefault(str(reason), []).append(name)
    return [f"{reason}: {some(names, SKIPPED)}" for reason, names in reasons.items()]
