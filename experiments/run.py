"""Prune a model and measure what is left:  python -m experiments.run experiment=wanda sparsity=0.6  (see --help)."""

import signal
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments import command
from experiments.hints import one_line
from experiments.record import Run

failures: list[str] = []  # of the jobs that ran in this process


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def task(cfg: DictConfig) -> None:
    """One job, in whatever process Hydra's launcher put it. A failure is recorded and told, and its siblings go on."""
    from experiments import job, table  # noqa: PLC0415 - torch and transformers take seconds that --help need not wait

    asked = HydraConfig.get()
    names = command.name_run(cfg, asked.runtime.choices, list(asked.overrides.task))
    try:
        cfg.device = job.device(cfg.device)
        overrides = list(asked.overrides.task)
        config = command.with_given(command.resolve(cfg), overrides)
        print(heading(config, overrides, asked.job.get("num", 0)), flush=True)
        print(table.single(job.run(config, names).folder), flush=True)
    except Exception as error:
        print(f"failed: {one_line(error)}", file=sys.stderr, flush=True)
        failures.append(one_line(error))


def heading(config: dict[str, Any], overrides: list[str], number: int) -> str:
    """What is about to run: the whole configuration, and for the later jobs of a multirun what they were asked for."""
    given = config["given"] and config["given"]["names"]["method"]
    return f"\n[{number + 1}] {' '.join(overrides)}" if number else OmegaConf.to_yaml(config | {"given": given})


def main() -> int:
    """The command line; exit code 0 if every run it asks for is done, 1 if one is not, 2 for a mistake in it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how clusters stop a job: as if by Ctrl-C
    try:
        jobs = command.jobs(sys.argv[1:]) or []
        if len(jobs) == 1 and not done(jobs[0]):
            check(jobs[0])
        sys.argv[1:] = command.arranged(sys.argv[1:])
        task()
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    missing = [job for job in jobs if not done(job)]
    if missing and len(jobs) > 1:
        failed = ", ".join(f"{job.names.method} {job.names.pattern} {job.config['sparsity']:g}" for job in missing)
        print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are done; failed: {failed}", file=sys.stderr)
    return 1 if missing or failures else 0


def check(asked: command.Job) -> None:
    """All that can be found wrong with a run before it begins: ValueError or OSError, and nothing is written."""
    from experiments import job  # noqa: PLC0415

    job.device(asked.config["device"])
    job.build(asked.config)


def done(asked: command.Job) -> bool:
    """Whether the job's folder says that it is done, in whatever process it ran."""
    try:
        return Run.open(asked.config, asked.names).done
    except (ValueError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
