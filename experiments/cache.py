"""What runs keep for one another and what is left over of dead ones: listed with sizes, and removed on request.

    python -m experiments.cache [OUTPUTS] [--clean [KIND]] [--older DAYS] [--broken]

Runs are never touched, and nothing is lost with what is removed here but the time to compute it again.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.console.errors import ending, one_line, unheard
from experiments.console.grid import grid
from experiments.console.text import duration, inline, size
from experiments.files.disk import holder, lock_of, locked, sealed
from experiments.files.tensors import intact
from experiments.runs import record

KINDS = {
    "tokens": "windows of calibration and evaluation texts",
    "dense": "evaluations of dense models",
    "surveys": "gradients, traces and spectra of dense models",
    "digests": "hashes of large files",
    "parts": "what killed processes were writing",
    "blocks": "weights of finished runs that others build on (given)",
}
READ_LATER = ("surveys", "blocks")  # runs read these at any time, and lock them only while they are made


@dataclass(frozen=True)
class Entry:
    """One thing that can be removed; whoever makes it holds the lock. wrong: why it is of no use, if it is not."""

    kind: str
    path: Path
    lock: Path
    what: str = ""
    wrong: str = ""

    @cached_property
    def files(self) -> list[Path]:
        """The entry's files; not its locks."""
        inside = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return [file for file in inside if file.is_file() and not file.name.startswith(".lock")]

    @cached_property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def age(self) -> float:
        """Seconds since it was last written to."""
        return max(0.0, time.time() - max(file.stat().st_mtime for file in [self.path, *self.files]))

    def remove(self) -> None:
        """Remove it; BlockingIOError saying who is making it. Its lock stays, for somebody may be waiting at it."""
        with locked(self.lock, wait=False, what=str(self.path)):
            for file in self.files:
                file.unlink(missing_ok=True)
            if self.path.is_dir() and not (self.path / ".lock").exists():
                shutil.rmtree(self.path, ignore_errors=True)


def entries(outputs: Path, whole: bool) -> Iterator[Entry]:
    """All entries below the folder, by kind; with `whole` the cache is read and compared to its hashes."""
    for kind in ("tokens", "dense", "surveys", "digests"):
        for path in sorted((outputs / "cache" / kind).glob("[!.]*")):
            what, wrong = examine(path, whole)
            if path.is_file() or any(not file.name.startswith(".lock") for file in path.iterdir()):
                yield Entry(kind, path, lock_of(path), what, wrong)
    for name, folders, files in os.walk(outputs):
        folder = Path(name)
        parts = [folder / part for part in [*folders, *files] if part.startswith(".") and part.endswith(".part")]
        yield from (Entry("parts", part, _lock_of(part, outputs), "", "half-written") for part in parts)
        if "manifest.json" in files and (folder / "blocks").is_dir() and _done(folder):
            yield Entry("blocks", folder / "blocks", folder / ".lock", "for runs with given=")


def examine(path: Path, whole: bool) -> tuple[str, str]:
    """What an entry of the cache is, and what is wrong with it, from its header or, with `whole`, all its bytes."""
    try:
        if path.is_dir():
            return _survey(path, whole)
        return _windows(path, whole) if path.suffix == ".safetensors" else _evaluation(path)
    except Exception as error:  # whatever a damaged file makes a reader say
        return "", one_line(error)


def _evaluation(path: Path) -> tuple[str, str]:
    if (found := sealed(path)) is None:
        return "", "not as it was written"
    numbers = [f"{key} {value:.4g}" for key, value in found.get("metrics", {}).items() if "stderr" not in key]
    return ", ".join([*([found["model"]] if "model" in found else []), *numbers]), ""


def _windows(path: Path, whole: bool) -> tuple[str, str]:
    facts, shapes = _header(path, whole)
    count, length = shapes["tokens"]
    return f"{json.loads(facts['part'])}, {count} windows of {length}", ""


def _survey(path: Path, whole: bool) -> tuple[str, str]:
    if (told := sealed(path / "complete.json")) is None:
        by = holder(path / ".lock")
        return ("", "unfinished") if by is None else ("being made by process {process} on {host}".format(**by), "")
    for block in told["blocks"]:
        _header(path / f"{block}.safetensors", whole)
    text = (told["tokens"] or {}).get("name")
    return ", ".join(part for part in (told["statistic"], told.get("model"), text) if part), ""


def _header(file: Path, whole: bool) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Facts and shapes of a tensor file; ValueError if it is shorter than it says or, with `whole`, altered."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(file, "numpy") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - it is no dict
            facts = opened.metadata()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name}: {one_line(error)}") from error
    if whole and not intact(file):
        raise ValueError(f"{file.name} is not as it was written")
    return facts, shapes


def _lock_of(part: Path, outputs: Path) -> Path:
    """The lock of whoever writes `.<name>.<process>.part`: that of its run or survey, or the one of its file."""
    for folder in part.relative_to(outputs).parents:
        if (outputs / folder / ".lock").exists():
            return outputs / folder / ".lock"
    return part.with_name(f"{part.name.rsplit('.', 2)[0]}.lock")


def _done(run: Path) -> bool:
    try:
        return record.told(run).get("status") == "done"
    except (OSError, ValueError):
        return False


def running(outputs: Path) -> list[Path]:
    """The runs below this folder in which a process is at work now."""
    found = []
    for name, folders, files in os.walk(outputs):
        if ".lock" in files and "cache" not in Path(name).relative_to(outputs).parts:
            folders.clear()
            found += [Path(name)] * (holder(Path(name) / ".lock") is not None)
    return found


def clean(found: list[Entry], at_work: list[Path]) -> list[str]:
    """Remove these entries; says how much is gone, and each entry that was left because it is in use."""
    lines, gone = [], []
    for entry in found:
        try:
            if at_work and entry.kind in READ_LATER:
                raise BlockingIOError(f"{entry.path} may be read by {at_work[0]}, which is running")
            freed = entry.size
            entry.remove()
            gone.append(freed)
        except OSError as error:
            lines.append(f"left: {one_line(error)}")
    return [*lines, f"removed {len(gone)} of {len(found)} entries, {size(sum(gone))}"]


def render(outputs: Path, found: list[Entry]) -> str:
    """The entries as a table, then the total of each kind and of all."""
    rows = [
        (e.kind, inline(e.path.relative_to(outputs)), size(e.size), duration(e.age), inline(e.what), inline(e.wrong))
        for e in found
    ]
    if not rows:
        return f"nothing of that kind is kept in {outputs}"
    totals = []
    for kind, what in KINDS.items():
        if sizes := [entry.size for entry in found if entry.kind == kind]:
            totals.append(f"{kind}: {len(sizes)} entries, {size(sum(sizes))}: {what}")
    total = f"in all: {len(rows)} entries, {size(sum(entry.size for entry in found))}"
    header = ["kind", "entry", "size", "age", "what it is", "what is wrong"]
    return "\n".join([grid(header, [list(row) for row in rows], "l", "simple"), "", *totals, total])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.cache",
        description="List what the runs of a folder keep for one another, and what dead ones left: "
        + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        + ". The options choose entries; with --clean they are removed, but for those in use.",
        epilog="example: python -m experiments.cache outputs --clean surveys --older 30",
    )
    found.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), metavar="OUTPUTS", help="outputs=")
    everything = "remove what is listed: of one kind, or (all) of every kind but blocks"
    found.add_argument("--clean", nargs="?", const="all", choices=["all", *KINDS], metavar="KIND", help=everything)
    found.add_argument("--older", type=float, default=0.0, metavar="DAYS", help="only what was written so long ago")
    found.add_argument("--broken", action="store_true", help="only what is damaged or unfinished; reads every file")
    return found


@ending()
@unheard()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 for a mistake in the command line."""
    asked = parser().parse_args(arguments)
    kinds = {None: [*KINDS], "all": [kind for kind in KINDS if kind != "blocks"]}.get(asked.clean, [asked.clean])
    if not asked.outputs.is_dir():
        raise FileNotFoundError(f"no folder {asked.outputs}: expected one with runs, such as outputs")
    found = [e for e in entries(asked.outputs, asked.broken) if e.kind in kinds and e.age >= 86400 * asked.older]
    found = [entry for entry in found if entry.wrong or not asked.broken]
    print(render(asked.outputs, found))
    if asked.clean is not None and found:
        print("\n" + "\n".join(clean(found, running(asked.outputs))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
