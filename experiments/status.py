"""Where every run of a folder stands: done, running, failed, interrupted, or asked for and never begun.

    python -m experiments.status OUTPUTS [--sweep NAME] [--watch SECONDS]

Only manifests, locks and the notes on solved blocks are read.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from experiments.console.arguments import Arguments
from experiments.console.errors import ending, nearest
from experiments.console.grid import grid
from experiments.console.text import CLEAR, duration, inline
from experiments.summary.state import ORDER, State, survey


def summary(name: str, states: list[State]) -> str:
    """A line on some runs: how many are in which state, and about how long those that can go on will take.

    The estimate is the mean time of the done ones times what is left, over as many at once as are running now.
    """
    counts = Counter(state.status for state in states)
    parts = [f"{counts[status]} {status}" for status in reversed(ORDER) if counts[status]]
    line = f"{name}: {', '.join(parts)}, {len(states)} in all"
    took = [state.seconds for state in states if state.status == "done" and state.seconds is not None]
    left = sum(1 - state.share for state in states if state.status in ("interrupted", "missing", "running"))
    if took and left:
        time_left = duration(mean(took) * left / max(1, counts["running"]))
        line += f"; about {time_left} left" + ("" if counts["running"] else " when it is started again")
    return line


def render(top: Path, sweep: str | None = None) -> tuple[str, bool]:
    """The table and the totals as text, and whether everything is done. ValueError for a sweep that is not known."""
    states, sweeps = survey(top)
    if sweep is not None:
        if sweep not in sweeps:
            there = f"there are {', '.join(sweeps)}"
            raise ValueError(f"sweep={sweep}: no such sweep in {top}{nearest(sweep, sweeps)}; {there}")
        states, sweeps = sweeps[sweep], {sweep: sweeps[sweep]}
    body = [[state.status, inline(state.folder.relative_to(top)), inline(detail(state))] for state in states]
    lines = [summary(name, members) for name, members in sweeps.items()]
    if sweep is None:
        lines.append(summary("all runs", states))
    table = grid(["status", "run", ""], body, "l", "simple")
    return "\n".join([table, "", *lines]), all(state.status == "done" for state in states)


def detail(state: State) -> str:
    """How long a run took that is done, and what else there is to know."""
    took = duration(state.seconds) if state.status == "done" and state.seconds is not None else ""
    return "; ".join(part for part in (took, state.detail) if part)


def parser() -> Arguments:
    """The command line."""
    options = Arguments(
        prog="python -m experiments.status",
        description="Show where every run below a folder stands, those that need a person first, and the time left."
        " The exit code is 0 if all are done, 1 if not.",
        epilog="example: python -m experiments.status outputs --watch 30",
    )
    options.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), metavar="OUTPUTS", help="outputs=")
    options.add_argument("--sweep", metavar="NAME", help="the runs of this multirun alone")
    options.add_argument("--watch", type=float, metavar="SECONDS", help="look again so often, until all are done")
    return options


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if every run is done, 1 if one is not, 2 for a mistake in the command line."""
    options = parser().parse_args(arguments)
    while True:
        text, done = render(options.outputs, options.sweep)
        print(f"{CLEAR}{text}" if options.watch and sys.stdout.isatty() else text, flush=True)
        if done or not options.watch:
            return 0 if done else 1
        time.sleep(max(0.1, options.watch))


if __name__ == "__main__":
    sys.exit(main())
