"""Takes a report's files to W&B as one run: all as an artifact; page, table and figures to look at, too.

The rules are the tracker's: online only with an API key, else recorded offline for `wandb sync --yes FOLDER`.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any

from experiments.trackers.wandb import Wandb, said, staged

WORDS = ("model", "method", "pattern", "status", "error", "identity", "folder")  # columns that are never numbers


def upload(
    files: Sequence[Path],
    name: str,
    project: str = "pruning",
    entity: str | None = None,
    mode: str | None = None,
    folder: Path | None = None,
    timeout: float = 60,
) -> str:
    """Uploads files, or records them below `folder` (by default where they lie); says in one line where they went.

    The run has job_type "report" and is named by what the files hold: the same report twice is one run. The settings
    are those of `Wandb`. ValueError for one that cannot work, OSError in one line for whatever W&B fails at.
    """
    files = sorted(file.absolute() for file in files)
    top = Path(commonpath([file.parent for file in files]))
    place = (folder or top).absolute()
    tracker = Wandb(mode=mode, project=project, entity=entity, folder=str(place), timeout=timeout)
    tracker.check()
    if mode == "disabled":
        return "W&B is disabled: nothing was uploaded"
    try:
        with staged(place):
            return _uploaded(tracker, files, top, name, place)
    except Exception as error:  # network, rights, quota, a change of wandb's: one line, the files are there
        raise OSError(f"W&B: the report was not uploaded ({said(error)}); its files are in {top}") from error


def _uploaded(tracker: Wandb, files: list[Path], top: Path, name: str, place: Path) -> str:
    import wandb  # noqa: PLC0415 - takes a second

    content = hashlib.sha256()
    for file in files:
        content.update(f"{file.relative_to(top)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    identity = f"report-{content.hexdigest()[:10]}"
    run = tracker.open(place, {"id": identity, "name": name, "job_type": "report", "tags": ["report"]})
    if run is None:
        return "W&B is disabled (WANDB_MODE): nothing was uploaded"
    artifact = wandb.Artifact(identity, type="report", description=name)
    try:
        with run:
            for file in files:
                artifact.add_file(str(file), name=file.relative_to(top).as_posix())
                run.log(dict(_shown(file)))
            run.log_artifact(artifact)
    except Exception as error:
        raise OSError(f"{said(error)}; later: wandb sync --yes {run.settings.sync_dir}") from error
    if run.offline:
        return f"W&B: report recorded offline; to upload: wandb sync --yes {run.settings.sync_dir}"
    return f"W&B: {run.url}"


def _shown(file: Path) -> Iterator[tuple[str, Any]]:
    """What W&B can show of a file, under the file's name: a page, a table or a picture."""
    import wandb  # noqa: PLC0415

    if file.suffix == ".html":
        yield f"{file.stem}/page", wandb.Html(str(file), inject=False)  # the page is to stay as it is: no links out
    elif file.suffix == ".csv":
        yield f"{file.stem}/table", wandb.Table(*_table(file))
    elif file.suffix == ".png":
        yield f"figures/{file.stem}", wandb.Image(str(file))


def _table(file: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a CSV; cells of a column are numbers, or None, where all of them are, else text."""
    with file.open(encoding="utf-8", newline="") as opened:
        columns, *rows = csv.reader(opened)
    kept = [_typed(column, cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)]
    return columns, [list(row) for row in zip(*kept, strict=True)]


def _typed(column: str, cells: tuple[str, ...]) -> list[Any]:
    if column not in WORDS:
        try:
            return [float(cell) if cell else None for cell in cells]
        except ValueError:
            pass
    return list(cells)
