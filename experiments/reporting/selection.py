"""The runs and metrics that a report is asked for by name; a name that nothing has is refused, with what there is."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from experiments.console.errors import nearest
from experiments.console.text import some
from experiments.reporting.findings import Findings
from experiments.runs import schema
from experiments.runs.calibration import calibrations
from experiments.runs.protocol import bare
from experiments.runs.record import Record
from experiments.summary.rows import Table, readable

Wanted = Mapping[str, Sequence[str]]  # an option of OPTIONS or metric -> names, of which one has to fit
OPTIONS = {  # of runs: what is selected
    "model": "models",
    "sweep": "runs that a multirun asked for, by its name (status lists them)",
    "calibration": "runs that were calibrated so, as '128 x 2048 of c4' or as c4, and those that read no data",
    "method": "methods, such as wanda",
    "pattern": "patterns, as 2of4 or 2:4",
}
METRIC = "metrics, as ppl/wikitext2@2048, without the window, or all of a family: ppl"
SHOWN = 12  # so many names are told that there are


def part(records: Sequence[Record], wanted: Wanted) -> Findings:
    """What is to be said of the runs and metrics that are wanted; ValueError in one line where there are none."""
    return Findings(select(records, wanted), partial(narrowed, wanted=wanted)) if wanted else Findings(records)


def select(records: Sequence[Record], wanted: Wanted) -> list[Record]:
    """The runs that fit every option, and the dense models beside them; ValueError in one line where none does."""
    chosen = list(records)
    for option in [option for option in OPTIONS if wanted.get(option)]:
        names = NAMES[option](records)
        _refuse_unknown(option, wanted[option], [name for own in names.values() for name in own])
        fits = {folder for folder, own in names.items() if not own or set(own) & set(wanted[option])}
        of_all = option != "model"
        chosen = [r for r in chosen if r.folder in fits or (of_all and r.manifest.get("method") == "dense")]
    pruned = [record for record in chosen if record.manifest.get("method") != "dense"]
    beside = set(wanted) - {"model", "metric"} and "dense" not in wanted.get("method", ())  # dense models are no answer
    if not (pruned if beside else chosen):
        raise ValueError(f"no run has all of {told(wanted)}")
    return chosen


def narrowed(table: Table, wanted: Wanted) -> Table:
    """The table with the metrics that were asked for, and the rows that have one, and a note on all that was."""
    words = wanted.get("metric", ())
    names = {metric: _metric_names(metric) for metric in table.metrics}
    if words:
        _refuse_unknown("metric", words, [name for own in names.values() for name in own])
    metrics = [metric for metric in table.metrics if not words or set(names[metric]) & set(words)]
    rows = [replace(row, values={m: v for m, v in row.values.items() if m in metrics}) for row in table.rows]
    models = {row.model for row in rows if row.values or not words}
    rows = [row for row in rows if row.model in models and (row.values or row.method == "dense" or not words)]
    exact = [metric for metric in metrics if set(names[metric][:-1]) & set(words)]
    columns = [metric for metric in metrics if metric in table.columns or metric in exact]
    short = [metric for metric in metrics if metric in exact or metric in readable(metrics)]
    notes = [f"a part of all runs and metrics: {told(wanted)}", *table.notes]
    return replace(table, rows=rows, metrics=metrics, columns=columns, short=short, notes=notes)


def told(wanted: Wanted) -> str:
    """The selection as it is typed."""
    return " ".join(f"--{option} {','.join(names)}" for option, names in wanted.items() if names)


def _refuse_unknown(option: str, words: Sequence[str], known: Sequence[str]) -> None:
    known = sorted(set(known) - {""})
    for word in words:
        if word not in known:
            there = f"there are {some(known, SHOWN)}" if known else "no run tells any"
            raise ValueError(f"--{option} {word}: no run has it{nearest(word, known)}; {there}")


def _metric_names(metric: str) -> list[str]:
    """What a metric may be called: its column, its key, that without its window, its family."""
    key = bare(metric.partition(" [")[0])
    return [metric, key, key.partition("@")[0], key.partition("/")[0]]


def _fact(name: str) -> Callable[[Sequence[Record]], dict[Path, list[str]]]:
    return lambda records: {record.folder: [str(record.manifest.get(name))] for record in records}


def _patterns(records: Sequence[Record]) -> dict[Path, list[str]]:
    names = {record.folder: str(record.manifest.get("pattern")) for record in records}
    return {folder: [name, name.replace("of", ":")] for folder, name in names.items()}


def _calibrations(records: Sequence[Record]) -> dict[Path, list[str]]:
    """Its whole name, that without a number behind it, and the text; none for a run that read no data."""
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(str(record.manifest.get("model")), []).append(record)
    names = {}
    for own in models.values():
        for record, name in zip(own, calibrations(own), strict=True):
            plain = (name or "").partition(" [")[0]
            names[record.folder] = [name, plain, plain.rpartition(" of ")[2]] if name else []
    return names


def _sweeps(records: Sequence[Record]) -> dict[Path, list[str]]:
    """Every multirun that asked for it, by the lists beside the runs, and by what the run says itself."""
    names = {}
    for record in records:
        identity, own = record.manifest.get("identity"), record.manifest.get("sweep")
        lists = _lists(record.folder.parents[1]) if len(record.folder.parents) > 1 else {}
        listed = [name for name, identities in lists.items() if identity in identities]
        names[record.folder] = [*listed, *([own] if own else [])] or [""]
    return names


@cache
def _lists(outputs: Path) -> dict[str, set[str]]:
    """The identities of the runs that each multirun asked for."""
    lists = {}
    for file in sorted((outputs / "multirun").glob("*.json")):
        with suppress(ValueError, OSError):  # status tells what is wrong with it
            lists[file.stem] = {job["identity"] for job in schema.read(file, schema.SWEEP)["jobs"]}
    return lists


NAMES = {  # of an option -> what each run has, by folder; a run without a name fits all
    "model": _fact("model"),
    "sweep": _sweeps,
    "calibration": _calibrations,
    "method": _fact("method"),
    "pattern": _patterns,
}
