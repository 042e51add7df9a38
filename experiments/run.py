"""Prune a model and measure what is left:  python -m experiments.run experiment=wanda sparsity=0.6  (see --help)."""

import signal
import sys

import hydra
from omegaconf import DictConfig

from experiments.composing import command
from experiments.console.errors import ending
from experiments.running import printing
from experiments.running.process import large_pages, together
from experiments.runs.results import finished
from prune import ranks


def main() -> int:
    """The command line, by one process or by every rank that torchrun starts."""
    large_pages()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how clusters stop a job: as if by Ctrl-C
    return together(answer)


@ending()
def answer() -> int:
    """Exit code 0 if every run that the command line asks for is done, 1 if one is not, 2 for a mistake in it."""
    jobs = command.jobs(sys.argv[1:])
    if jobs is None:
        sys.argv[1:] = command.question(sys.argv[1:])
        help_by_hydra()
        return 0
    first = jobs[0]
    if not first.names.sweep and ranks.told(lambda: finished(first.run)):
        printing.answer_again(first)
        return 0
    from experiments.running import multirun  # noqa: PLC0415 - torch, which help, mistakes and finished runs do without

    if not first.names.sweep:
        return multirun.run_one(first)
    if ranks.world() > 1:
        raise ValueError("torchrun starts one run on several ranks, not a multirun (-m); give each run its own command")
    return multirun.run(jobs)


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def help_by_hydra(_: DictConfig) -> None:
    """Answers --help, --cfg and the like, which do not come to this body."""


if __name__ == "__main__":
    sys.exit(main())
