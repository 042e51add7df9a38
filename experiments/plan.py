"""What a run will do and take, before it is queued:  python -m experiments.plan experiment=sparsegpt model=llama2_7b

Reads config.json and no weight. Shapes and passes are exact; operations and bytes are estimates, for what methods
compute is counted on small layers, and so is the time: of this machine, measured meanwhile.
"""

import gc
import sys
from collections.abc import Sequence

from experiments.composing import command
from experiments.console.arguments import Arguments
from experiments.console.errors import ending
from experiments.runs.results import finished


def parser() -> Arguments:
    """The command line: this command's own help, and everything else as experiments.run takes it."""
    return Arguments(
        prog="python -m experiments.plan",
        description="Print what a run of experiments.run will prune, compute and need, and how long it takes"
        " here with nothing else running, without running it; with -m one"
        " line for each run and the totals. Wrong settings fail as they would there. Nothing is written but"
        " hashes of large files, in OUTPUTS/cache.",
        epilog="example: python -m experiments.plan -m experiment=wanda,sparsegpt model=llama2_7b data=c4",
        usage="%(prog)s [-m] [NAME=VALUE ...]",
    )


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 for a mistake in the command line or a run that could not work."""
    lines = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(lines):
        parser().print_help()
        return 0
    print(planned(lines))
    return 0


def planned(arguments: list[str]) -> str:
    """The plan of all runs that a command line asks for."""
    jobs = command.jobs(arguments)
    if jobs is None:
        raise ValueError("expected settings of experiments.run; its own flags, as --cfg, belong there")
    gc.disable()  # searching what torch and transformers import for cycles is a sixth of the time that a plan takes
    try:
        from experiments.planning import describe, outlook  # noqa: PLC0415 - help and typing mistakes do without torch

        known: set[str] = set()
        runs = [None if finished(job.run) else outlook.outlook(job.config, known) for job in jobs]
        return describe.describe(runs[0]) if len(jobs) == 1 else describe.tabulate(jobs, runs)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
