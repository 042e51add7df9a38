"""Prune a model and measure what is left:  python -m experiments.run experiment=wanda sparsity=0.6  (see --help)."""

import os
import signal
import sys

import hydra
from omegaconf import DictConfig

from experiments.composing import command
from experiments.console.errors import Mistakes, one_line
from experiments.console.text import shown
from experiments.running.process import large_pages, together
from experiments.runs.results import finished
from prune import ranks


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def task(cfg: DictConfig) -> None:
    """The one run that the command line asks for."""
    from experiments.running import multirun  # noqa: PLC0415

    multirun.task(cfg)


def main() -> int:
    """The command line, by one process or by every rank that torchrun starts."""
    return together(answer)


@shown()
def answer() -> int:
    """Exit code 0 if every run that the command line asks for is done, 1 if one is not, 2 for a mistake in it."""
    large_pages()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how clusters stop a job: as if by Ctrl-C
    try:
        return obey()
    except (ValueError, OSError) as error:
        for line in str(error).splitlines() if isinstance(error, Mistakes) else [one_line(error)]:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:  # a mistake of ours: still one line
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {one_line(error)}; this is a fault of ours, HYDRA_FULL_ERROR=1 shows where", file=sys.stderr)
        return 1


def obey() -> int:
    """Does what the command line asks for; the exit code is 0 if every run of it is done, else 1."""
    sys.argv[1:] = command.arranged(sys.argv[1:])
    jobs = command.jobs(sys.argv[1:])
    if jobs is None:
        task()  # --help and the like are Hydra's to answer
        return 0
    from experiments.running import multirun  # noqa: PLC0415 - later than a typing mistake

    if jobs[0].names.sweep and ranks.world() > 1:
        raise ValueError("torchrun starts one run on several ranks, not a multirun (-m); give each run its own command")
    if jobs[0].names.sweep:
        return multirun.run(jobs)
    if ranks.told(lambda: finished(jobs[0].run)):
        return multirun.retell(jobs[0])
    multirun.check({"": jobs[0]})
    task()
    return 0 if not multirun.failures and ranks.told(lambda: finished(jobs[0].run)) else 1


if __name__ == "__main__":
    sys.exit(main())
