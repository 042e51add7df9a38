"""Runs jobs that are not done yet, here or by one of Hydra's launchers, and tells what became of them."""

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from experiments.composing.groups import composing
from experiments.composing.job import Job, compose_job
from experiments.composing.overrides import name_of
from experiments.console.errors import apart, differences, first_line, one_line, refuse_all
from experiments.console.text import duration, shown
from experiments.files.disk import now, read_json, write_json
from experiments.reporting.findings import Findings
from experiments.reporting.paper_table import first_tables
from experiments.running import components, pipeline, printing
from experiments.running.preflight import preflight
from experiments.runs.record import load
from experiments.runs.results import finished
from experiments.summary import rows
from experiments.summary.state import look
from prune import ranks

PERIOD = 1.0  # seconds between two looks at submitit's jobs
COLUMNS = ("model", "model.path", "pattern", "sparsity")  # of every table
log = logging.getLogger("experiments")


def run_one(job: Job) -> int:
    """The job of a command line that asks for one; 0 if it is done, 1 if it failed. ValueError if it cannot be run."""
    check({"": job})
    return 0 if perform(job) and ranks.told(lambda: finished(job.run)) else 1


def run(jobs: list[Job], typed: str | None = None) -> int:
    """All jobs of a multirun; 0 if every one of them is done, 1 if one is not. ValueError if one cannot be run.

    `typed` is the command line that asks for them, if it is not this process's for experiments.run.
    """
    if len(places := {job.config["outputs"] for job in jobs}) > 1:
        raise ValueError(f"outputs: expected one folder for all runs of a multirun, found {', '.join(sorted(places))}")
    wanted = lambda job: (job.run.manifest["identity"], repr(job.config.get("eval")), job.config["save_model"])
    jobs = list({wanted(job): job for job in jobs}.values())
    names = differences(job.words for job in jobs)
    todo = {name: job for name, job in zip(names, jobs, strict=True) if not finished(job.run)}
    check(todo)
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are done already", file=sys.stderr, flush=True)
    note(jobs, typed or shlex.join(["python", "-m", "experiments.run", *sys.argv[1:]]))
    if jobs[0].choices["hydra/launcher"] == "basic":
        for job in todo.values():
            perform(job)
    elif todo:
        launch(list(todo.values()))
    if typed is None:
        print(f"\n{summary(jobs)}", flush=True)
    return tell(jobs)


def check(jobs: dict[str, Job]) -> None:
    """All that can be found wrong with jobs, by name, before the first begins: Mistakes, and nothing is written."""
    wrong = {}
    for name, job in jobs.items():
        try:
            components.device(job.config["device"])
            preflight(job.config, components.build(job.config), job.run.folder)
        except (ValueError, OSError) as error:
            wrong[name] = one_line(error)
    refuse_all(wrong, jobs)


def perform(job: Job) -> bool:
    """Does a job in this process; whether it came to its end. A failure is recorded and told."""
    printing.log_plainly()
    try:
        components.settle_device(job.config)
        print(printing.heading(job), flush=True)
        print(printing.outcome(pipeline.run(job.run).folder), flush=True)
    except Exception as error:
        print(f"failed: {one_line(error)}", file=sys.stderr, flush=True)
        return False
    return True


@shown()
def task(_: DictConfig) -> None:
    """One job in a process in which Hydra's launcher put it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # submitit has a handler of its own
    settings = HydraConfig.get()
    os.chdir(settings.runtime.cwd)  # a worker of Ray stands where `ray start` was typed
    perform(compose_job(list(settings.overrides.task)))  # by the Hydra that the launcher handed over


def note(jobs: list[Job], typed: str) -> None:
    """Write the jobs of a multirun to outputs/multirun/<sweep>.json, beside those of earlier commands."""
    outputs, sweep = Path(jobs[0].config["outputs"]), jobs[0].names.sweep
    path = outputs / "multirun" / f"{sweep}.json"
    before = read_json(path, {})
    entries = {entry["folder"]: entry for entry in before.get("jobs", [])}
    for job in jobs:
        facts = {fact: job.run.manifest[fact] for fact in ("identity", "model", "method", "pattern", "sparsity")}
        folder = str(job.run.folder.relative_to(outputs))
        entries[folder] = {"overrides": job.words, "folder": folder, **facts}
    started = before.get("started", now())
    write_json(path, {"sweep": sweep, "command": typed, "started": started, "jobs": list(entries.values())})


def launch(jobs: list[Job]) -> None:
    """Give the jobs to the launcher, so many at a time as its preset says (`at_once`; by default all)."""
    with composing(jobs[0].overrides):
        launcher, at_once = prepare(jobs[0])
        for first in range(0, len(jobs), at_once or len(jobs)):
            launch_batch(launcher, jobs[first : first + (at_once or len(jobs))], first)


def launch_batch(launcher: Launcher, jobs: list[Job], first: int) -> None:
    """Give jobs, the first of which has this number, to the launcher at once.

    ValueError if it starts none; if a process of it dies, those that have not come to an end are given to it once more,
    one by one.
    """
    name, before = jobs[0].choices["hydra/launcher"], [job.run.stored() for job in jobs]
    try:
        with patient(name, jobs):
            launcher.launch([job.handed_over for job in jobs], first)
    except Exception as error:  # a worker that was killed, a queue that refuses
        if [job.run.stored() for job in jobs] == before:
            raise ValueError(f"hydra/launcher={name}: {first_line(error)}") from error
        log.warning("hydra/launcher=%s: %s; what it left undone is run one by one", name, first_line(error))
        for number, (job, earlier) in enumerate(zip(jobs, before, strict=True), first):
            manifest = job.run.stored()
            if manifest == earlier or manifest["status"] == "running":
                try:
                    with patient(name, [job]):
                        launcher.launch([job.handed_over], number)
                except Exception as again:
                    log.warning("%s: %s", " ".join(job.words), first_line(again))


def prepare(job: Job) -> tuple[Launcher, int | None]:
    """The launcher that was chosen, and how many jobs it may have at once (None: its own rule)."""
    config = compose("config", overrides=list(job.overrides), return_hydra_config=True)
    with open_dict(config.hydra.launcher):
        at_once = config.hydra.launcher.pop("at_once", None)
        if "ray" in config.hydra.launcher and config.hydra.launcher.ray.remote.num_gpus is None:
            config.hydra.launcher.ray.remote.num_gpus = min(1, torch.cuda.device_count())
    context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(config))
    try:
        return Plugins.instance().instantiate_launcher(context, task, config), at_once
    except (ImportError, RuntimeError) as error:
        name = job.choices["hydra/launcher"]
        extra = "ray" if name == "ray" else "launchers"
        raise ValueError(f"hydra/launcher={name}: not installed; pip install -e '.[{extra}]'") from error


@contextmanager
def patient(name: str, jobs: list[Job]) -> Iterator[None]:
    """Makes submitit wait for all jobs: its launcher gives up at the first whose process died; the others run on.

    Their output is in files: it says where each one's is, and what became of each as soon as it ends.
    """
    if not name.startswith("submitit"):
        yield
        return
    from submitit import AutoExecutor  # noqa: PLC0415 - of the extra `launchers`, which need not be installed

    def wait(executor: AutoExecutor, *arguments: Any) -> list[Any]:
        processes = submit(executor, *arguments)
        follow(jobs, processes)
        return processes

    submit = AutoExecutor.map_array
    AutoExecutor.map_array = wait
    try:
        yield
    finally:
        AutoExecutor.map_array = submit


def follow(jobs: list[Job], processes: list[Any]) -> None:
    """Waits for these runs and submitit's jobs of them, and says of each where its log is, and what became of it."""
    left = {printing.heading(job).strip(): (job, process) for job, process in zip(jobs, processes, strict=True)}
    for name, (_, process) in left.items():
        print(f"{name}: log {process.paths.stdout}", file=sys.stderr, flush=True)
    while left:
        for name, (job, _) in [entry for entry in left.items() if entry[1][1].done()]:
            del left[name]
            state = look(job.run.folder)
            took = f" in {duration(state.seconds)}" if state.status == "done" and state.seconds is not None else ""
            why = f" ({state.detail})" if state.detail else ""
            print(f"{name}: {state.status}{took}{why}, {len(left)} at work", file=sys.stderr, flush=True)
        time.sleep(PERIOD if left else 0)


def summary(jobs: list[Job]) -> str:
    """A table over the finished runs of a multirun, in its order, each named by the words that not all of them have.

    Behind it methods by budget, where there are several of both.
    """
    own = apart(job.words for job in jobs)
    names = {job.run.folder: words for job, words in zip(jobs, own, strict=True)}
    findings = Findings([record for record in map(load, names) if record.status == "done"])
    table = findings.table
    models, places = list(dict.fromkeys(row.model for row in table.rows)), list(names)
    ordered = []
    for row in table.rows:
        place, words = -1, list[str]()
        if row.method != "dense":
            place, words = places.index(row.record.folder), names[row.record.folder]
        title = " ".join(w.removeprefix("experiment=") for w in words if name_of(w) not in COLUMNS)
        ordered.append((models.index(row.model), place, replace(row, method=title or row.method)))
    every = rows.render(replace(table, rows=[row for *_, row in sorted(ordered, key=lambda entry: entry[:2])]))
    return "\n\n".join([every, *first_tables(findings)])


def tell(jobs: list[Job]) -> int:
    """Say how many runs are done, and of each that is not its reason and its folder; 1 if there is one."""
    missing = [job for job in jobs if not finished(job.run)]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are done", file=sys.stderr)
    for job in missing:
        manifest = job.run.stored()
        reason = (
            manifest.get("error")
            or manifest.get("unsaved")
            or ("its process died" if manifest else "it was not started")
        )
        run = f"{job.names.method} {job.names.pattern} {job.config['sparsity']:g}"
        print(f"failed: {run}: {reason} ({job.run.folder})", file=sys.stderr)
    return 1 if missing else 0
