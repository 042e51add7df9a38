"""Fills the cells of a table: what is missing is run as one multirun, by whatever launcher, and the rest is read."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from experiments.composing import command
from experiments.composing.job import Job
from experiments.composing.overrides import literal
from experiments.console.errors import one_line
from experiments.models import location, stored
from experiments.reproduction.cells import NOT_RUN, Cell, Outcome, entries
from experiments.reproduction.guard import changes
from experiments.running import multirun
from experiments.runs.protocol import compared
from experiments.runs.record import load


def compose(cells: Sequence[Cell], name: str) -> dict[Cell, Job]:
    """The run of each cell, in a multirun of this name; Mistakes with a line for each that is wrong."""
    lines = [[*map(literal, cell.overrides), f"sweep={name}"] for cell in cells]
    return dict(zip(cells, command.compose_jobs(lines, {}) if lines else [], strict=True))


def fill(jobs: dict[Cell, Job], compute: Iterable[Cell], typed: str) -> dict[Cell, Outcome]:
    """What every cell's run found, after running those of `compute` that are not done and whose model is at hand.

    Mistakes if one of these cannot be run, and then none is; a run that fails is one cell's. `typed` is the command.
    """
    away = {cell: absent(jobs[cell].config["model"]) for cell in compute}
    if ready := [jobs[cell] for cell, reason in away.items() if not reason]:
        multirun.run(ready, typed)
    return {cell: found(job, away.get(cell, "")) for cell, job in jobs.items()}


def changed(jobs: dict[Cell, Job], usual: Sequence[Cell], table: Mapping[str, Any]) -> dict[Cell, tuple[str, ...]]:
    """What the command line has made of each cell's settings, beside those of the table alone (`usual`, in that order).

    Of the cells of published numbers, for nothing is compared with the others.
    """
    models = [model for model, entry in entries(table).items() if not entry.get("stand_in")]
    if table["kind"] != "published" or not any(map(command.about_run, table["asked"])):
        return {}
    pairs = {own: cell for own, cell in zip(jobs, usual, strict=True) if cell.model in models}
    plain = compose(list(pairs.values()), table["name"])
    return {own: tuple(changes(jobs[own].config, plain[cell].config)) for own, cell in pairs.items()}


def found(asked: Job, away: str = "") -> Outcome:
    """What a run found by the evaluations that are asked of it now; `away` tells why it could not be run."""
    run = asked.run
    run.locate()
    if not (run.folder / "manifest.json").exists():
        return Outcome(error=away or NOT_RUN, away=bool(away))
    record = load(run.folder)
    place, results = record.results.get("step", {}), record.results
    steps = run.steps
    stems = {path.stem for path in steps.values()}
    metrics = {key: results["metrics"][key] for key in compared(results) if place.get(key) in stems}
    if record.status != "done" or not metrics:
        reason = record.error or (NOT_RUN if record.status == "done" else record.status)
        return Outcome(error=away or reason, away=bool(away))
    own = steps["perplexity"].stem if "perplexity" in steps else None
    key = next((key for key in metrics if key.startswith("ppl/") and place[key] == own), "")
    dense = results.get("dense", {}).get(key)
    return Outcome(metrics.get(key), dense, record.sparsity, record.code, record=record, metrics=metrics)


def absent(named: dict[str, Any], weights: bool = True) -> str:
    """Why a model is not at hand: no such folder, not complete, hub offline, gated. Empty if it is.

    Without `weights` its config.json is enough, which says what a run will need. Nothing is downloaded.
    """
    return _absent(named["path"], named["revision"], weights)


@cache
def _absent(path: str, revision: str | None, weights: bool) -> str:
    """Once for all cells of a model."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - seconds

    hub = False
    try:
        folder = location.located(path)
        if hub := folder is None:
            folder = Path(snapshot_download(path, revision=revision, local_files_only=True))
        if weights:
            stored.check(str(folder))
        elif not (folder / "config.json").is_file():
            raise FileNotFoundError(f"model.path={path}: no config.json in {folder}")
    except (OSError, ValueError) as error:
        return _unreached(path) if hub else one_line(error)
    return ""


def _unreached(path: str) -> str:
    """Why the hub does not give a model; empty if it does. Its own retries would take half a minute for each model."""
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError  # noqa: PLC0415

    try:
        HfApi().auth_check(path)
    except GatedRepoError:
        said = f"{path} is gated; accept its licence on the hub, then `hf auth login`"
    except RepositoryNotFoundError:
        said = f"the hub has no {path} that you may see; `hf auth login` if it is yours"
    except OfflineModeIsEnabled:
        said = f"{path} is not downloaded, and HF_HUB_OFFLINE is set; unset it"
    except Exception as error:  # of whatever library the hub's client speaks through
        said = f"{path} is not downloaded, and the hub cannot be reached ({one_line(error)}); connect"
    else:
        return ""
    return f"{said}, or give model.path=FOLDER"
