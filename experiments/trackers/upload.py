"""Takes to W&B what was not tracked: finished runs, and a report's files as one run.

The rules are the tracker's: online only with an API key, else recorded offline for `wandb sync --yes FOLDER`.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from os.path import commonpath
from pathlib import Path
from typing import Any

import wandb

from experiments.console.errors import one_line
from experiments.runs.record import Record, curves
from experiments.trackers.wandb import Wandb, staged

WORDS = ("model", "method", "pattern", "status", "error", "identity", "folder")  # columns that are never numbers


def upload_runs(records: Sequence[Record], places: dict[str, str], again: bool) -> Iterator[tuple[Record, str, str]]:
    """Each finished run, what became of it, and where it is: an address, or the folder of a recording.

    It is "uploaded", "recorded offline", "there already", which is left alone unless `again`, or "failed", for a reason
    that was logged. places: project and entity, in place of those that a run was to be tracked with. ValueError for
    those that cannot be, and where W&B is disabled.
    """
    trackers = [_tracker(record, places) for record in records]
    if Wandb().wanted() == "disabled":
        raise ValueError("W&B is disabled: nothing was uploaded; unset WANDB_MODE, or set it to online or offline")
    mode = None
    for record, tracker in zip(records, trackers, strict=True):
        place = "" if again else tracker.mirrored(record.folder)
        if place and ("://" in place or any(Path(place).glob("*.synced"))):
            yield record, "there already", place
            continue
        tracker.mode = mode
        place = place or _upload_run(tracker, record)
        mode = "offline" if tracker.run and tracker.run.offline else mode  # a server is waited for once
        yield record, ("uploaded" if "://" in place else "recorded offline" if place else "failed"), place


def _tracker(record: Record, places: dict[str, str]) -> Wandb:
    """The tracker that a run was asked for with, or would have been; online, offline or not is asked for now."""
    settings = (record.manifest["config"].get("tracker") or {}).get("wandb") or {}
    known = {field.name for field in fields(Wandb) if field.init} - {"mode"}
    tracker = Wandb(**{name: value for name, value in settings.items() if name in known} | places)
    tracker.check()
    return tracker


def _upload_run(tracker: Wandb, record: Record) -> str:
    """Makes of a run what its tracking makes, in the place of the W&B run of this identity; says where it is."""
    tracker.resume = None
    tracker.start(record.folder, record.manifest)
    for step, block in enumerate(record.results.get("blocks", [])):
        tracker.log(curves(block), step)
    tracker.finish(record.folder, record.status)
    return tracker.mirrored(record.folder)


def upload(files: Sequence[Path], name: str) -> str:
    """Uploads a report's files, or records them where they lie; says in one line where they went.

    The run has job_type "report" and is named by what the files hold: the same report twice is one run. OSError in one
    line for whatever W&B fails at.
    """
    files = sorted(file.absolute() for file in files)
    top = Path(commonpath([file.parent for file in files]))
    content = hashlib.sha256()
    for file in files:
        content.update(f"{file.relative_to(top)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    identity, run = f"report-{content.hexdigest()[:10]}", None
    try:
        with staged(top):
            run = Wandb().open(top, {"id": identity, "name": name, "job_type": "report", "tags": ["report"]})
            if run is None:
                return "W&B is disabled (WANDB_MODE): nothing was uploaded"
            artifact = wandb.Artifact(identity, type="report", description=name)
            with run:
                for file in files:
                    artifact.add_file(str(file), name=file.relative_to(top).as_posix())
                    run.log(_shown(file))
                run.log_artifact(artifact)
    except Exception as error:  # network, rights, quota, a change of wandb's: one line, the files are there
        later = f"; later: wandb sync --yes {run.settings.sync_dir}" if run else ""
        raise OSError(f"W&B: the report was not uploaded ({one_line(error)}{later}); its files are in {top}") from error
    if run.offline:
        return f"W&B: report recorded offline; to upload: wandb sync --yes {run.settings.sync_dir}"
    return f"W&B: {run.url}"


def _shown(file: Path) -> dict[str, Any]:
    """What W&B can show of a file, under the file's name: a page, a table or a picture."""
    if file.suffix == ".html":
        return {f"{file.stem}/page": wandb.Html(str(file), inject=False)}  # the page stays as it is: no links out
    if file.suffix == ".csv":
        return {f"{file.stem}/table": wandb.Table(*_table(file))}
    return {f"figures/{file.stem}": wandb.Image(str(file))} if file.suffix == ".png" else {}


def _table(file: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a CSV; cells of a column are numbers, or None, where all of them are, else text."""
    with file.open(encoding="utf-8", newline="") as opened:
        columns, *rows = csv.reader(opened)
    typed = [_typed(column, cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)]
    return columns, [list(row) for row in zip(*typed, strict=True)]


def _typed(column: str, cells: tuple[str, ...]) -> list[Any]:
    if column not in WORDS:
        try:
            return [float(cell) if cell else None for cell in cells]
        except ValueError:
            pass
    return list(cells)
