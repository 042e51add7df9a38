"""What a plan tells of a run, in plain numbers, and where they are kept: the same question needs no torch again.

They are kept in <outputs>/cache/plans, by all that they depend on: the settings with the content of what these name,
which evaluations of the dense model are there, this project's code, the installed packages, and the machine.
"""

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments import provenance, results
from experiments.command import Job
from experiments.contents import digest
from experiments.disk import seal, sealed
from experiments.identity import fingerprint
from experiments.record import Run

ROOT = Path(__file__).parents[2]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")  # what a speed depends on beside the machine


@dataclass(frozen=True)
class Prospect:
    """One run as it is going to be. Sizes in bytes; all but shapes and counts of passes are estimates."""

    device: str
    blocks: int
    size: float  # of the whole model, as it is stored
    numbers: float  # parameters and buffers of it
    outside: float  # embeddings, norms and head
    weights: int  # that can be pruned
    matrices: list[tuple[str, list[int], int]]  # name with * for a number, [o, i], how many
    skipped: dict[str, int]  # "name: reason" of what is not pruned, how many
    passes: tuple[int, int]  # forward, backward over the calibration data
    sequences: int
    length: int  # tokens
    surveys: list[tuple[str, int, int]]  # found once for all runs: name, sequences forward, backward
    peaks: dict[str, tuple[float, float]]  # device and host, for each place of the activations
    stages: list[tuple[str, dict[str, float]]]  # what makes up the peak of each part, for the place that is asked for
    disk: list[tuple[str, str, float]]  # the setting that names the folder, what is written there, bytes
    spent: list[tuple[str, float, float]]  # name, floating-point operations, seconds
    rates: tuple[float, float, float]  # operations per second in the model's dtype and in float32; bytes per second
    assumed: list[tuple[str, int]]  # evaluations and the windows that they are guessed to have
    zeroshot: bool

    @property
    def seconds(self) -> float:
        """All that is estimated of the time."""
        return sum(seconds for _, _, seconds in self.spent)


def foresee(jobs: list[Job], tries: int) -> list[Prospect | None]:
    """What each run will need, None for one that is done; ValueError or OSError in one line for one that cannot work.

    `tries` is how often the machine's speed is measured after a first time. What several runs need is told of the first
    one; where nothing can be written, all is found anew.
    """
    records = [Run.open(job.config, job.names) for job in jobs]
    todo = [None if record.done else job for job, record in zip(jobs, records, strict=True)]
    asked = [job and _question(job, record) for job, record in zip(todo, records, strict=True)]
    name = fingerprint([_circumstances(), asked])
    file = Path(jobs[0].config["outputs"]) / "cache" / "plans" / f"{name}.json"
    if (known := sealed(file)) is not None:
        return [run and Prospect(**run) for run in known["runs"]]
    from experiments.planning.outlook import Outlook  # noqa: PLC0415 - torch takes seconds

    outlook = Outlook(tries)
    found = [job and outlook.prospect(job.config) for job in todo]
    with suppress(OSError):
        seal(file, {"model": _label(jobs), "runs": [run and asdict(run) for run in found]})
    return found


def _label(jobs: list[Job]) -> str:
    """What people call these runs, in a few words."""
    more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
    return f"{jobs[0].names.model} {jobs[0].names.method}{more}"


def _question(job: Job, record: Run) -> list[Any]:
    """All of a run's settings, what its files hold, and what of it is there."""
    config = job.config
    steps = [results.dense_step(config, name) for name in config.get("eval") or {}]
    there = [[step.name, step.exists()] for step in steps]
    return [config, record.manifest["identity"], there, Path(config["scratch"] or ".").is_dir()]


def _circumstances() -> list[Any]:
    """This project's code, the packages and the machine."""
    folders = sorted({file.parent for part in ("prune", "experiments") for file in (ROOT / part).rglob("*.py")})
    code = [[digest(file) for file in sorted(folder.glob("*.py"))] for folder in folders]
    chips = [provenance.processor(), os.cpu_count(), sorted(map(str, Path("/dev").glob("nvidia*")))]
    settings = [os.environ.get(name) for name in THREADS]
    return [code, provenance.versions(), platform.node(), platform.platform(), chips, settings]
