"""Everything that one run says of itself, as plain values for the page."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from experiments.console.text import digits, size, timing
from experiments.runs import protocol
from experiments.runs.matrices import sparsities
from experiments.runs.record import Record

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where PyYAML was built with it
NAMED = 4  # so many modules are named for one reason
TIMES = ("started", "finished")


def anchors(records: Iterable[Record]) -> dict[Path, str]:
    """An HTML id for each run, by folder: its model and name, with a number where several folders share those."""
    taken: Counter[str] = Counter()
    found = {}
    for record in records:
        name = re.sub(r"[^\w.+-]+", "-", f"run-{record.folder.parent.name}-{record.folder.name}")
        taken[name] += 1
        found[record.folder] = name if taken[name] == 1 else f"{name}-again-{taken[name]}"
    return found


def describe(record: Record, to: Path) -> dict[str, Any]:
    """What the page shows of a run; `to` is the folder of the page, from which links to the run's files lead."""
    picture = record.folder / "layers.png"
    return {
        "facts": facts(record),
        "command": record.manifest.get("command") or "",
        "configuration": configuration(record),
        "metrics": metrics(record),
        "stages": stages(record),
        "warnings": warnings(record),
        "skipped": skipped(record),
        "layers": layers(record),
        "picture": os.path.relpath(picture, to) if picture.exists() else "",
        "traceback": record.manifest.get("traceback") or "",
    }


def configuration(record: Record) -> str:
    """The whole configuration as YAML; empty where the manifest has none."""
    config = record.manifest.get("config")
    return yaml.dump(config, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=110) if config else ""


def facts(record: Record) -> list[tuple[str, str]]:
    """What ran where, with what, on which data, as (name, value); what is not known is left out."""
    manifest = record.manifest
    data, versions = manifest.get("data") or {}, (manifest.get("pruned") or manifest).get("versions") or {}
    machine = [manifest.get(name) for name in ("device", "chip", "platform")]
    cores = f"{manifest['cores']} cores, {manifest.get('threads')} threads" if manifest.get("cores") else None
    found = {
        "folder": str(record.folder),
        "identity": manifest.get("identity"),
        "asked sparsity": manifest.get("sparsity"),
        "sparsity": None if record.sparsity is None else f"{record.sparsity:.6f}",
        "calibration data": ", ".join(f"{name} {value}" for name, value in data.items() if value is not None),
        "model content": manifest.get("model_content"),
        "model commit": manifest.get("model_commit"),
        "code": record.code if manifest else None,
        "libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": ", ".join(str(part) for part in [*machine, cores] if part),
        "sweep": manifest.get("sweep"),
        **{moment: manifest.get(moment) for moment in TIMES},
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def metrics(record: Record) -> list[tuple[str, str, str, str, str]]:
    """Every number of the run as (name, value, standard error, dense, what it was measured on)."""
    found, dense = record.results.get("metrics", {}), record.results.get("dense", {})
    rows = []
    for key, value in found.items():
        if "_stderr/" not in key:
            known = key in protocol.compared(record.results)
            shown = [digits(key, number) for number in (value, found.get(protocol.stderr(key)), dense.get(key))]
            shown = shown if known else [f"{value:g}" if isinstance(value, int | float) else str(value), "", ""]
            measured = protocol.protocol(record.results, key) if known else {}
            said = ", ".join(
                f"{name} {value!s:.16}" for name, value in measured.items() if not name.startswith("tasks.")
            )
            rows.append((f"{key} %" if key.startswith("acc") else key, *shown, said))
    return rows


def stages(record: Record) -> list[tuple[str, str, str, str]]:
    """Seconds, host and device peak of each stage, and of the run; cells are empty where a run did not note them."""
    seconds, memory = record.results.get("seconds", {}), record.results.get("stage_memory", {})
    whole = record.results.get("memory") or {}
    rows = [(stage, timing(time), *_peaks(memory.get(stage) or {})) for stage, time in seconds.items()]
    return [*rows, ("all", timing(sum(seconds.values())), *_peaks(whole))] if rows else []


def _peaks(peaks: dict[str, Any]) -> tuple[str, str]:
    host, device = (peaks.get(f"{where}_peak") for where in ("host", "device"))
    return tuple("" if peak is None else size(peak) for peak in (host, device))  # type: ignore[return-value]


def warnings(record: Record) -> list[str]:
    """What did not go as asked: errors of later commands, retries with less memory, counted fallbacks, mixed code."""
    manifest = record.manifest
    failed = manifest.get("error") if record.status == "done" else None
    said = [f"a later command failed: {failed}"] * bool(failed)
    for retry in manifest.get("retries") or []:
        tier = ", ".join(f"{name}={value}" for name, value in retry.items() if name != "error")
        said.append(f"out of memory ({retry.get('error')}); done again with {tier}")
    notes = {what.replace("_", " "): found for what, found in record.results.get("notes", {}).items()}
    said += [f"{what}: {found:g}" if isinstance(found, float) else f"{what}: {found}" for what, found in notes.items()]
    return said + ["begun by other code than it was finished by"] * ("; then " in record.code)


def skipped(record: Record) -> list[str]:
    """What was not pruned, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in record.results.get("skipped", {}).items():
        reasons.setdefault(str(reason), []).append(name)
    more = {reason: f" and {len(names) - NAMED} more" * (len(names) > NAMED) for reason, names in reasons.items()}
    return [f"{reason}: {', '.join(names[:NAMED])}{more[reason]}" for reason, names in reasons.items()]


def layers(record: Record) -> dict[str, Any]:
    """A line for each block: error, seconds and the sparsity of each matrix; experts share a column, as a mean."""
    matrices = sparsities(record.results.get("layers", []))
    blocks = {entry["block"]: entry for entry in record.results.get("blocks", [])}
    names = dict.fromkeys([*blocks, *(block for places in matrices.values() for block in places)])
    body = []
    for name in names:
        entry = blocks.get(name, {})
        numbers = [entry.get("error"), entry.get("seconds")]
        shown = [
            "" if number is None else f"{number:.{digit}}" for number, digit in zip(numbers, ("4g", "1f"), strict=True)
        ]
        shares = [f"{places[name]:.4f}".lstrip("0") if name in places else "" for places in matrices.values()]
        body.append([name.rpartition(".")[2], *shown, *shares])
    return {"matrices": list(matrices), "body": body}
