"""Takes a report's files to W&B as one run: all as an artifact; page, table and figures to look at, too.

The rules are the tracker's: online only with an API key, else recorded offline for `wandb sync --yes FOLDER`.
"""

import csv
import hashlib
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

import wandb

from experiments.console.errors import one_line
from experiments.trackers.wandb import Wandb, staged

WORDS = ("model", "method", "pattern", "status", "error", "identity", "folder")  # columns that are never numbers


def upload(files: Sequence[Path], name: str) -> str:
    """Uploads files, or records them where they lie; says in one line where they went.

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
