"""Where runs stand, by their manifests, locks and the notes on solved blocks."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from os.path import normpath
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.console.errors import one_line
from experiments.console.text import duration
from experiments.files.disk import holder
from experiments.runs import record, schema

ORDER = ("failed", "unreadable", "interrupted", "missing", "running", "done")  # what needs a person first


@dataclass(frozen=True)
class State:
    """Where one run stands; `outputs` is the folder whose cache and sweeps it shares."""

    folder: Path
    identity: str
    status: str
    detail: str = ""  # why it is not done, or how far it is
    seconds: float | None = None  # a done run took, a running one needs for the rest of its blocks
    share: float = 0.0  # of its blocks that are solved

    @property
    def key(self) -> tuple[Path, str]:
        """What a run is known by, whatever its folder is called."""
        return Path(normpath(self.folder / "../..")), self.identity


def look(folder: Path) -> State:
    """The state of the run in this folder."""
    identity = folder.name.rpartition("-")[2]
    try:
        begun = (folder / "manifest.json").exists()  # a run whose lock is taken may not have one yet
        manifest, process = record.read_manifest(folder) if begun else {}, holder(folder / ".lock")
    except (OSError, ValueError) as error:
        return State(folder, identity, "unreadable", one_line(error))
    identity, status, error = manifest.get("identity", identity), manifest.get("status"), manifest.get("error", "")
    if process is None and status == "done":
        if not (folder / "results.json").exists():
            return State(folder, identity, "unreadable", "results.json is missing; the same command makes it again")
        return State(folder, identity, "done", error and f"a later command failed: {error}", _took(manifest), 1.0)
    if process is None and status == "failed" and not error.startswith("interrupted"):
        return State(folder, identity, "failed", error)
    share, where, left = _progress(folder, manifest)
    if process is None:
        how = "stopped" if status == "failed" else "killed, or its machine is gone"
        detail = f"{where}: {how}; the same command goes on from there"
        return State(folder, identity, "interrupted", detail, None, share)
    if left:
        where += f", {duration(left)} left for its blocks"
    detail = "{}; process {process} on {host} since {since}".format(where, **process)
    return State(folder, identity, "running", detail, left, share)


def told(run: record.Record) -> tuple[str, str]:
    """Status and reason of a run without results: what its folder says now, for a killed run cannot say so itself."""
    if run.status == "unreadable":
        return run.status, run.error
    state = look(run.folder)
    if state.status == "done":
        return run.status, "it ended while its results were read: do that again"
    return state.status, state.detail or run.error


def _progress(folder: Path, manifest: dict[str, Any]) -> tuple[float, str, float | None]:
    """The share of the blocks that are solved, how to say it, and the seconds that the others will take."""
    seconds = []
    for note in (folder / "steps" / "blocks").glob("*.json"):
        with suppress(ValueError, OSError):  # a damaged one does not count: its block is solved again
            seconds.append(schema.read(note, schema.NOTE).get("seconds", 0.0))
    solved, blocks, stage = len(seconds), manifest.get("blocks"), manifest.get("stage") or "prune"
    at = "" if stage == "prune" else f"at {stage}"
    if not blocks:
        return 0.0, at or (f"{solved} blocks are solved" if solved else "before its first block"), None
    left = (blocks - solved) * mean(seconds) if seconds else None
    where = f"block {solved + 1} of {blocks}" if solved < blocks else "behind its last block"
    return min(1.0, solved / blocks), at or where, left


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
    states: dict[tuple[Path, str], State] = {}
    lists: list[Path] = []  # what sweeps asked for
    for folder, children, files in record.walk(top):
        if "manifest.json" in (*files, *children) or (folder / ".lock").exists():
            state = look(folder)
            states[state.key] = state
            children.clear()
        elif folder.name == "multirun":
            lists += [folder / file for file in sorted(files) if file.endswith(".json")]
            children.clear()
        elif "cache" in children:
            children.remove("cache")
    sweeps = {file.stem: _sweep(file, states) for file in lists}
    if not states:
        raise ValueError(f"no runs in {top}: expected folders with a manifest.json below it")
    return sorted(states.values(), key=_place), sweeps


def _sweep(file: Path, states: dict[tuple[Path, str], State]) -> list[State]:
    """The runs that a sweep asked for; those that are not in `states` are added as missing."""
    outputs = file.parents[1]
    try:
        jobs = [(job["identity"], outputs / job["folder"]) for job in schema.read(file, schema.SWEEP)["jobs"]]
    except (ValueError, OSError) as error:
        states[outputs, file.name] = State(file, file.name, "unreadable", one_line(error))
        return [states[outputs, file.name]]
    missing = {name: State(folder, name, "missing", f"asked for by {file.stem}") for name, folder in jobs}
    return sorted((states.setdefault((outputs, name), state) for name, state in missing.items()), key=_place)


def _place(state: State) -> tuple[int, Path]:
    return ORDER.index(state.status), state.folder
