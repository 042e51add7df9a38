"""Runs the jobs of a multirun that are not done yet, by one of Hydra's launchers, and tells what became of them."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from experiments.composing import command
from experiments.composing.job import Job
from experiments.composing.options import composing
from experiments.console.errors import apart, differences, first_line, one_line, refuse_all
from experiments.console.text import shown
from experiments.files.disk import now, read_json, write_json
from experiments.running import launch
from experiments.runs.results import finished

COLUMNS = ("model", "model.path", "pattern", "sparsity")  # of every table
failures: list[str] = []  # of the jobs that ran in this process
log = logging.getLogger("experiments")


@shown()  # a launcher may have put it into a process of its own
def task(cfg: DictConfig) -> None:
    """One job, in whatever process Hydra's launcher put it. A failure is recorded and told, and its siblings go on."""
    from experiments.running import components, pipeline  # noqa: PLC0415 - torch and transformers take seconds that --help need not wait
    from experiments.summary import rows  # noqa: PLC0415 - torch and transformers take seconds that --help need not wait

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # submitit has a handler of its own
    asked = HydraConfig.get()
    os.chdir(asked.runtime.cwd)  # a worker of Ray stands where `ray start` was typed
    overrides = list(asked.overrides.task)
    names = command.name_run(cfg, asked.runtime.choices, overrides)
    try:
        cfg.device = components.device(cfg.device)
        config = command.with_given(command.resolve(cfg), overrides)
        print(launch.progress(config, overrides) or launch.settings(config, asked.runtime.choices), flush=True)
        folder = pipeline.run(config, names).folder
        print(launch.vouches(folder) + rows.single(folder), flush=True)
    except Exception as error:
        print(f"failed: {one_line(error)}", file=sys.stderr, flush=True)
        failures.append(one_line(error))


def run(asked: list[Job], typed: str | None = None) -> int:
    """All jobs of a multirun; 0 if every one of them is done, 1 if one is not. ValueError if one cannot be run.

    `typed` is the command line that asks for them, if it is not this process's for experiments.run.
    """
    wanted = lambda each: (each.run.manifest["identity"], repr(each.config.get("eval")), each.config["save_model"])
    jobs = list({wanted(each): each for each in asked}.values())
    named = zip(jobs, differences(each.overrides for each in jobs), strict=True)
    todo = {own: each for each, own in named if not finished(each.run)}
    if len(places := {each.config["outputs"] for each in asked}) > 1:
        raise ValueError(f"outputs: expected one folder for all runs of a multirun, found {', '.join(sorted(places))}")
    if todo:
        refuse_tags(asked[0])
    check(todo)
    twice = f"; {len(asked) - len(jobs)} asked for twice run once" if len(asked) > len(jobs) else ""
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are done already{twice}", file=sys.stderr, flush=True)
    note(jobs, typed)
    if todo:
        start(list(todo.values()))
    if typed is None:
        print(f"\n{summary(jobs)}", flush=True)
    return tell(jobs)


def refuse_tags(asked: Job) -> None:
    """ValueError where submitit, or Slurm, would read a job's number out of the path in which its logs are to lie."""
    launcher, place = asked.choices["hydra/launcher"], Path(asked.config["outputs"], asked.names.sweep).absolute()
    if launcher.startswith("submitit") and "%" in str(place):
        raise ValueError(
            f"hydra/launcher={launcher}: logs in {place}, but submitit puts a job's number for %j and the like; "
            "choose outputs and sweep without %"
        )


def retell(asked: Job) -> int:
    """What a run that is done has found, without Hydra's second composition and what would compute it; exit code 0."""
    from experiments.summary import rows  # noqa: PLC0415

    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    device = {
        "device": asked.run.stored()["config"]["device"]
    }  # the one it was done on, if any will do: auto is torch's
    shown = asked.config | {"model": asked.config["model"] | device} | device
    print(launch.settings(shown, asked.choices), flush=True)
    asked.run.say_done()
    print(launch.vouches(asked.run.folder) + rows.single(asked.run.folder), flush=True)
    return 0


def check(jobs: dict[str, Job]) -> None:
    """All that can be found wrong with runs, by name, before the first begins: Mistakes, and nothing is written."""
    if not jobs:
        return
    from experiments.running import components  # noqa: PLC0415 - torch takes seconds that what is done need not wait for
    from experiments.running.preflight import preflight  # noqa: PLC0415

    wrong = {}
    for own, asked in jobs.items():
        try:
            components.device(asked.config["device"])
            preflight(asked.config, components.build(asked.config), asked.run.folder)
        except (ValueError, OSError) as error:
            wrong[own] = one_line(error)
    refuse_all(wrong, jobs)


def note(jobs: list[Job], typed: str | None = None) -> None:
    """Write what the multirun asks for to outputs/multirun/<sweep>.json, beside what it asked for before."""
    outputs, sweep = Path(jobs[0].config["outputs"]), jobs[0].names.sweep
    path = outputs / "multirun" / f"{sweep}.json"
    before = read_json(path, {})
    entries = {job["folder"]: job for job in before.get("jobs", [])}
    for asked in jobs:
        entry = {"overrides": own(asked), "folder": str(asked.run.folder.relative_to(outputs))}
        facts = ("identity", "model", "method", "pattern", "sparsity")
        entries[entry["folder"]] = entry | {fact: asked.run.manifest[fact] for fact in facts}
    line = typed or launch.typed(sys.argv[1:])
    times = {"started": before.get("started", now()), "launched": now()}
    write_json(path, {"sweep": sweep, "command": line, **times, "jobs": list(entries.values())})


def own(asked: Job) -> list[str]:
    """The overrides of a job without those that are the launcher's."""
    return [line for line in asked.overrides if not command.name_of(line).startswith("hydra")]


def start(jobs: list[Job]) -> None:
    """Give the jobs to the launcher. ValueError if it starts none; if a process of it dies, the rest run one by one."""
    with composing():
        launcher, name, at_once = prepare(jobs[0])
        for first in range(0, len(jobs), at_once or len(jobs)):
            batch, began = jobs[first : first + (at_once or len(jobs))], datetime.now(UTC).replace(microsecond=0)
            try:
                with patient(name):
                    launcher.launch([own(each) for each in batch], first)
            except Exception as error:  # a worker that was killed, a queue that refuses
                if not any(told(each, began) for each in batch):
                    raise ValueError(f"hydra/launcher={name}: {first_line(error)}") from error
                log.warning("hydra/launcher=%s: %s; what it left undone is run one by one", name, first_line(error))
                for number, each in enumerate(batch, first):
                    again(launcher, each, number, began)


def prepare(asked: Job) -> tuple[Launcher, str, int | None]:
    """The launcher that was chosen, its name, and how many jobs it may have at once (None: its own rule)."""
    import torch  # noqa: PLC0415

    config = compose("config", overrides=list(asked.overrides), return_hydra_config=True)
    with open_dict(config.hydra.launcher):
        at_once = config.hydra.launcher.pop("at_once", None)
        if "ray" in config.hydra.launcher and config.hydra.launcher.ray.remote.num_gpus is None:
            config.hydra.launcher.ray.remote.num_gpus = min(1, torch.cuda.device_count())
    name = config.hydra.runtime.choices["hydra/launcher"]
    context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(config))
    try:
        return Plugins.instance().instantiate_launcher(context, task, config), name, at_once
    except (ImportError, RuntimeError) as error:
        extra = "ray" if name == "ray" else "launchers"
        raise ValueError(f"hydra/launcher={name}: not installed; pip install -e '.[{extra}]'") from error


def again(launcher: Launcher, asked: Job, number: int, began: datetime) -> None:
    """One more try for a job that has not ended since then: its process died, or that of a sibling."""
    if told(asked, began) not in ("done", "failed"):
        try:
            launcher.launch([own(asked)], number)
        except Exception as error:
            log.warning("%s: %s", " ".join(own(asked)), first_line(error))


def told(asked: Job, began: datetime) -> str | None:
    """The status of a run that some process began or ended since then; None if none did."""
    manifest = asked.run.stored()
    last = max((manifest[fact] for fact in ("started", "finished") if manifest.get(fact)), default=None)
    return manifest["status"] if last and datetime.fromisoformat(last) >= began else None


@contextmanager
def patient(name: str) -> Iterator[None]:
    """Makes submitit wait for all jobs: its launcher gives up at the first whose process died; the others run on."""
    if not name.startswith("submitit"):
        yield
        return
    from submitit import AutoExecutor  # noqa: PLC0415

    def wait(executor: AutoExecutor, *arguments: Any) -> list[Any]:
        jobs = submit(executor, *arguments)
        for each in jobs:
            each.wait()
        return jobs

    submit = AutoExecutor.map_array
    AutoExecutor.map_array = wait
    try:
        yield
    finally:
        AutoExecutor.map_array = submit


def summary(jobs: list[Job]) -> str:
    """A table over the finished runs of a multirun, in its order, each named by what it was asked that not all were."""
    from experiments.runs.record import load  # noqa: PLC0415 - of no use before the runs are done
    from experiments.summary import rows  # noqa: PLC0415 - of no use before the runs are done

    own = apart(each.overrides for each in jobs)
    names = {each.run.folder: words for each, words in zip(jobs, own, strict=True)}
    found = rows.arrange(record for record in map(load, names) if record.status == "done")
    models, places = list(dict.fromkeys(row.model for row in found.rows)), list(names)
    ordered = []
    for row in found.rows:
        words = names[row.record.folder] if row.method != "dense" else []
        said = [word.removeprefix("experiment=") for word in words if command.name_of(word) not in COLUMNS]
        place = places.index(row.record.folder) if row.method != "dense" else -1
        ordered.append((models.index(row.model), place, replace(row, method=" ".join(said) or row.method)))
    return rows.render(replace(found, rows=[row for *_, row in sorted(ordered, key=lambda row: row[:2])]))


def tell(jobs: list[Job]) -> int:
    """Say how many runs are done, and of each that is not its reason and its folder; 1 if there is one."""
    missing = [each for each in jobs if not finished(each.run)]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are done", file=sys.stderr)
    from experiments.summary.state import look  # noqa: PLC0415 - it imports what makes tables

    for each in missing:
        reason = look(each.run.folder).said or "it was not started"
        said = f"{each.names.method} {each.names.pattern} {each.config['sparsity']:g}: {reason}"
        print(f"failed: {said} ({each.run.folder})", file=sys.stderr)
    return 1 if missing else 0
