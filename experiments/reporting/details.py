"""Everything that one run says of itself, as plain values for the page."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from experiments.console.text import digits, size, timing
from experiments.runs import protocol
from experiments.runs.bits import zeros
from experiments.runs.record import Record, sparsities, spent_elsewhere
from experiments.summary.counts import bits_per_weight
from experiments.summary.rows import column_title, remarks, skipped

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where PyYAML was built with it


def anchors(records: Iterable[Record]) -> dict[Path, str]:
    """An HTML id for each run, by folder: its model and name, with a number where several folders share those."""
    taken: Counter[str] = Counter()
    ids = {}
    for record in records:
        name = re.sub(r"[^\w.+-]+", "-", f"run-{record.folder.parent.name}-{record.folder.name}")
        taken[name] += 1
        ids[record.folder] = name if taken[name] == 1 else f"{name}-again-{taken[name]}"
    return ids


def describe(record: Record) -> dict[str, Any]:
    """What the page shows of a run."""
    manifest = record.manifest
    return {
        "facts": facts(record),
        "command": manifest.get("command") or "",
        "configuration": _yaml(manifest["config"]) if manifest.get("config") else "",
        "metrics": metrics(record),
        "stages": stages(record),
        "warnings": remarks(record),
        "skipped": skipped(record),
        "layers": layers(record),
        "traceback": manifest.get("traceback") or "",
    }


def _yaml(config: dict[str, Any]) -> str:
    return yaml.dump(config, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=110)


def facts(record: Record) -> list[tuple[str, str]]:
    """What ran where, with what, on which data, as (name, value); what is not known is left out."""
    manifest = record.manifest
    data, versions = manifest.get("data") or {}, (manifest.get("pruned") or manifest).get("versions") or {}
    machine = [manifest.get(name) for name in ("device", "chip", "platform")]
    if manifest.get("cores"):
        machine.append(f"{manifest['cores']} cores, {manifest.get('threads')} threads")
    known = {
        "folder": record.folder,
        "identity": manifest.get("identity"),
        "written answers": ", ".join(record.answers.values()),
        "asked sparsity": manifest.get("sparsity"),
        "sparsity": None if record.sparsity is None else f"{record.sparsity:.6f}",
        "zeros": None if zeros(record.results) is None else f"{zeros(record.results):.6f}",
        "bits per weight": bits_per_weight(record),
        "calibration data": ", ".join(f"{name} {value}" for name, value in data.items() if value is not None),
        "model content": manifest.get("model_content"),
        "model commit": manifest.get("model_commit"),
        "code": record.code if manifest else None,
        "libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": ", ".join(str(part) for part in machine if part),
        "sweep": manifest.get("sweep"),
        "started": manifest.get("started"),
        "finished": manifest.get("finished"),
    }
    return [(name, str(value)) for name, value in known.items() if value not in (None, "")]


def metrics(record: Record) -> list[tuple[str, str, str, str, str]]:
    """Every number of the run as (name, value, standard error, dense, what it was measured on)."""
    own, dense = record.results.get("metrics", {}), record.results.get("dense", {})
    compared, rows = protocol.compared(record.results), []
    for key, value in own.items():
        if key in compared:
            numbers = value, own.get(protocol.stderr(key)), dense.get(key)
            measured = protocol.protocol(record.results, key).items()
            text = ", ".join(f"{name} {what!s:.16}" for name, what in measured if not name.startswith("tasks."))
            rows.append((column_title(key), *(digits(key, number) for number in numbers), text))
        elif "_stderr/" not in key:
            rows.append((key, digits(key, value), "", "", ""))
    return rows


def stages(record: Record) -> list[tuple[str, str, str, str]]:
    """Seconds, host and device peak of each stage, and of the run; cells are empty where a run did not note them.

    The first line is what the process held when the run began.
    """
    seconds, memory = record.results.get("seconds", {}), record.results.get("stage_memory", {})
    if not seconds:
        return []
    lines = [(stage, time, memory.get(stage)) for stage, time in seconds.items()]
    lines.append(("all", sum(seconds.values()), record.results.get("memory")))
    lines += [(f"{stage}, {what}", time, None) for stage, time, what in spent_elsewhere(record.results)]
    rows = [(stage, timing(time), _peak(peaks, "host"), _peak(peaks, "device")) for stage, time, peaks in lines]
    before = record.results.get("memory", {}).get("host_before")
    return [("before it began", "", size(before), ""), *rows] if before else rows


def _peak(peaks: dict[str, Any] | None, where: str) -> str:
    """Of the host that of the whole process, and what of it the run added where that is known."""
    peak, added = ((peaks or {}).get(f"{where}_{what}") for what in ("peak", "added"))
    return "" if peak is None else size(peak) + ("" if added is None else f", {size(added)} of it by the run")


def layers(record: Record) -> dict[str, Any]:
    """A line for each block: error, seconds and the sparsity of each matrix; experts share a column, as a mean."""
    matrices = sparsities(record.results.get("layers", []))
    blocks = {entry["block"]: entry for entry in record.results.get("blocks", [])}
    body = []
    for name in dict.fromkeys([*blocks, *(block for places in matrices.values() for block in places)]):
        error, seconds = (blocks.get(name, {}).get(what) for what in ("error", "seconds"))
        shares = [f"{places[name]:.4f}".lstrip("0") if name in places else "" for places in matrices.values()]
        body.append([name.rpartition(".")[2], "" if error is None else f"{error:.4g}", timing(seconds), *shares])
    return {"matrices": list(matrices), "body": body}
