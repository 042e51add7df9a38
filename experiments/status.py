"""Where every run of a folder stands: done, running, failed, interrupted, or asked for and never begun.

    python -m experiments.status OUTPUTS [--sweep NAME] [--watch SECONDS]

Only manifests, locks and the notes on solved blocks are read.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from os.path import normpath
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.console.errors import ending, nearest, one_line
from experiments.console.text import duration
from experiments.console.visible import CLEAR, inline
from experiments.files.disk import holder
from experiments.runs import archive, schema
from experiments.summary.overview import grid

ORDER = ("failed", "unreadable", "interrupted", "missing", "running", "done")  # what needs a person first


@dataclass(frozen=True)
class State:
    """Where one run stands; `outputs` is the folder whose cache and sweeps it shares."""

    folder: Path
    identity: str
    status: str
    said: str = ""  # why it is not done, or how far it is
    seconds: float | None = None  # a done run took, a running one needs for the rest of its blocks
    share: float = 0.0  # of its blocks that are solved

    @property
    def key(self) -> tuple[Path, str]:
        """What a run is known by, whatever its folder is called."""
        return Path(normpath(self.folder / "../..")), self.identity


def look(folder: Path) -> State:
    """The state of the run in this folder."""
    known = folder.name.rpartition("-")[2]
    try:
        begun = (folder / "manifest.json").exists()  # a run whose lock is taken may not have one yet
        manifest, by = archive.told(folder) if begun else {}, holder(folder / ".lock")
    except (OSError, ValueError) as error:
        return State(folder, known, "unreadable", one_line(error))
    known, status, error = manifest.get("identity", known), manifest.get("status"), manifest.get("error", "")
    if by is None and status == "done":
        if not (folder / "results.json").exists():
            return State(folder, known, "unreadable", "results.json is missing; the same command makes it again")
        return State(folder, known, "done", error and f"a later command failed: {error}", _took(manifest), 1.0)
    if by is None and status == "failed" and not error.startswith("interrupted"):
        return State(folder, known, "failed", error)
    share, where, left = _progress(folder, manifest)
    if by is None:
        how = "stopped" if status == "failed" else "killed, or its machine is gone"
        return State(folder, known, "interrupted", f"{where}: {how}; the same command goes on from there", None, share)
    where += f", {duration(left)} left" if left else ""
    said = "{}; process {process} on {host} since {since}".format(where, **by)
    return State(folder, known, "running", said, left, share)


def _progress(folder: Path, manifest: dict[str, Any]) -> tuple[float, str, float | None]:
    """The share of the blocks that are solved, how to say it, and the seconds that the others will take."""
    notes = []
    for note in (folder / "steps" / "blocks").glob("*.json"):
        with suppress(ValueError, OSError):  # a damaged one does not count: its block is solved again
            notes.append(schema.read(note, schema.NOTE).get("seconds", 0.0))
    solved, of = len(notes), manifest.get("blocks")
    if not of:
        return 0.0, f"{solved} blocks are solved" if solved else "before its first block", None
    left = (of - solved) * mean(notes) if notes else None
    where = f"block {solved + 1} of {of}" if solved < of else "behind its last block"
    return min(1.0, solved / of), where, left


def _took(manifest: dict[str, Any]) -> float | None:
    """Seconds from start to end of a run's last command; None where the manifest does not tell."""
    try:
        start, end = (datetime.fromisoformat(manifest[moment]) for moment in ("started", "finished"))
    except (KeyError, TypeError, ValueError):
        return None
    return (end - start).total_seconds()


def survey(top: Path) -> tuple[list[State], dict[str, list[State]]]:
    """Every run below the folder, those asked for and never begun among them, and the runs of each sweep by its name.

    FileNotFoundError for a folder that does not exist, ValueError without runs and sweeps.
    """
    if not top.is_dir():
        raise FileNotFoundError(f"no folder {top}: expected one with runs, such as outputs")
    found: dict[tuple[Path, str], State] = {}
    asked: list[Path] = []
    for folder, children, files in archive.walk(top):
        if "manifest.json" in (*files, *children) or (folder / ".lock").exists():
            state = look(folder)
            found[state.key] = state
            children.clear()
        elif folder.name == "multirun":
            asked += [folder / file for file in sorted(files) if file.endswith(".json")]
        children[:] = [child for child in children if child != "cache" and folder.name != "multirun"]
    sweeps = {file.stem: _sweep(file, found) for file in asked}
    if not found:
        raise ValueError(f"no runs in {top}: expected folders with a manifest.json below it")
    return sorted(found.values(), key=_place), sweeps


def _sweep(file: Path, found: dict[tuple[Path, str], State]) -> list[State]:
    """The runs that a sweep asked for; those that are not found become known as missing."""
    outputs, members = file.parents[1], {}
    try:
        jobs = [(job["identity"], outputs / job["folder"]) for job in schema.read(file, schema.SWEEP)["jobs"]]
    except (ValueError, OSError) as error:
        members[file] = found[outputs, file.name] = State(file, file.name, "unreadable", one_line(error))
        jobs = []
    for known, folder in jobs:
        state = State(folder, known, "missing", f"asked for by {file.stem}")
        members[known] = found.setdefault((outputs, known), state)
    return sorted(members.values(), key=_place)


def _place(state: State) -> tuple[int, Path]:
    return ORDER.index(state.status), state.folder


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
    if sweep is not None and sweep not in sweeps:
        raise ValueError(
            f"sweep={sweep}: no such sweep in {top}{nearest(sweep, sweeps)}; there are {', '.join(sweeps)}"
        )
    shown = states if sweep is None else sweeps[sweep]
    body = [[state.status, inline(state.folder.relative_to(top)), inline(_told(state))] for state in shown]
    lines = [summary(name, members) for name, members in sweeps.items() if sweep in (None, name)]
    lines += [summary("all runs", states)] * (sweep is None)
    return grid(["status", "run", ""], body, 3, "simple") + "\n\n" + "\n".join(lines), all(
        state.status == "done" for state in shown
    )


def _told(state: State) -> str:
    took = duration(state.seconds) if state.status == "done" and state.seconds is not None else ""
    return "; ".join(part for part in (took, state.said) if part)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description="Show where every run below a folder stands, those that need a person first, and the time left."
        " The exit code is 0 if all are done, 1 if not.",
        epilog="example: python -m experiments.status outputs --watch 30",
    )
    found.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), metavar="OUTPUTS", help="outputs=")
    found.add_argument("--sweep", metavar="NAME", help="the runs of this multirun alone")
    found.add_argument("--watch", type=float, metavar="SECONDS", help="look again so often, until all are done")
    return found


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if every run is done, 1 if one is not, 2 for a mistake in the command line."""
    asked = parser().parse_args(arguments)
    while True:
        text, done = render(asked.outputs, asked.sweep)
        print(f"{CLEAR}{text}" if asked.watch and sys.stdout.isatty() else text, flush=True)
        if done or not asked.watch:
            return 0 if done else 1
        time.sleep(max(0.1, asked.watch))


if __name__ == "__main__":
    sys.exit(main())
