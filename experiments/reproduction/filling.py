"""Fills the cells of a table: what is missing is run as one multirun, by whatever launcher, and the rest is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from experiments.composing import command
from experiments.composing.job import Job
from experiments.composing.overrides import literal
from experiments.console.errors import first_line, one_line, refuse_all
from experiments.files.disk import sealed
from experiments.models import location, stored
from experiments.planning.describe import tabulate
from experiments.planning.outlook import outlook
from experiments.reproduction.cells import NOT_RUN, Cell, Outcome
from experiments.running import multirun
from experiments.runs.protocol import compared, printed
from experiments.runs.record import load
from experiments.runs.results import finished


def compose(cells: Sequence[Cell], overrides: Sequence[str], name: str) -> dict[Cell, Job]:
    """The run of each cell with these overrides, in a multirun of this name; Mistakes with a line for each wrong."""
    lines = [[*map(literal, cell.overrides), *overrides, f"sweep={name}"] for cell in cells]
    return dict(zip(cells, command.compose_jobs(lines, {}) if lines else [], strict=True))


def planned(jobs: Mapping[Cell, Job]) -> str:
    """A line for each run, as `python -m experiments.plan -m`, and for each model that is not at hand the reason.

    Mistakes for runs that could not work. Reads config.json of each model, and no weight.
    """
    known, runs, wrong = set[str](), {}, {}
    away = {cell: absent(job.config["model"], weights=False) for cell, job in jobs.items()}
    ready = [cell for cell, reason in away.items() if not reason]
    seeds = {cell.seed for cell in jobs}
    names = [" ".join([c.model, c.method, c.budget, *([f"seed={c.seed}"] if len(seeds) > 1 else [])]) for c in ready]
    for cell, name in zip(ready, names, strict=True):
        try:
            runs[cell] = None if finished(jobs[cell].run) else outlook(jobs[cell].config, known)
        except (ValueError, OSError) as error:
            wrong[name] = one_line(error)
    refuse_all(wrong, names)
    lines = [tabulate([jobs[cell] for cell in runs], list(runs.values()), names)] if runs else []
    models = Counter((cell.model, reason) for cell, reason in away.items() if reason)
    lines += [f"{model} is not at hand, {count} runs are not planned: {why}" for (model, why), count in models.items()]
    return "\n".join(lines or ["nothing to run"])


def fill(jobs: Mapping[Cell, Job], typed: str) -> dict[Cell, Outcome]:
    """What the run of every cell measured, after running those that are not done and whose model is at hand.

    Mistakes if one of these cannot be run, and then none is; a run that fails is one cell's. `typed` is the command.
    """
    away = {cell: absent(job.config["model"]) for cell, job in jobs.items()}
    if ready := [job for cell, job in jobs.items() if not away[cell]]:
        multirun.run(ready, typed)
    return read(jobs)


def read(jobs: Mapping[Cell, Job]) -> dict[Cell, Outcome]:
    """What the run of every cell measured, as far as it is there."""
    return {cell: outcome(job, absent(job.config["model"])) for cell, job in jobs.items()}


def outcome(job: Job, away: str) -> Outcome:
    """What a run measured by the evaluations that are asked of it now; `away` tells why it could not be run."""
    run = job.run
    run.locate()
    if not (run.folder / "manifest.json").exists():
        return Outcome(error=away or NOT_RUN, away=bool(away))
    record = load(run.folder)
    results = record.results
    answers = {name: (path.stem, sealed(path)) for name, path in run.steps.items()}
    keys = {name: printed(results, stem, answer).values() for name, (stem, answer) in answers.items() if answer}
    shown = {key for own in keys.values() for key in own}
    metrics = {key: results["metrics"][key] for key in compared(results) if key in shown}
    if record.status != "done" or not metrics:
        reason = record.error or (NOT_RUN if record.status == "done" else record.status)
        return Outcome(error=away or reason, away=bool(away))
    key = next((key for key in keys.get("perplexity", ()) if key in metrics and key.startswith("ppl/")), "")
    perplexities = metrics.get(key), results.get("dense", {}).get(key)
    return Outcome(*perplexities, record.sparsity, record.code, record=record, metrics=metrics)


def absent(model: dict[str, Any], weights: bool = True) -> str:
    """Why a model is not at hand: no such folder, not complete, not had from the hub. Empty if it is.

    Without `weights` its config.json is enough, which says what a run will need. Nothing is downloaded.
    """
    return _absent(model["path"], model["revision"], weights)


@cache
def _absent(path: str, revision: str | None, weights: bool) -> str:
    """Once for all cells of a model."""
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
    try:
        HfApi().auth_check(path)
    except Exception as error:  # of whatever library the hub's client speaks through
        advice = "check its id, `hf auth login` if it is gated, or give model.path=FOLDER"
        return f"{path} is not downloaded, and not had from the hub ({first_line(error).rstrip('.')}); {advice}"
    return ""
