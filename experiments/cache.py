"""What runs keep for one another and what is left over of dead ones: listed with sizes, and removed on request.

    python -m experiments.cache [OUTPUTS] [--clean [KIND]] [--older DAYS] [--broken]

Runs are never touched, and nothing is lost with what is removed here but the time to compute it again.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import safe_open

from experiments.console.arguments import Arguments
from experiments.console.errors import ending, one_line, unheard
from experiments.console.grid import grid
from experiments.console.text import duration, inline, size
from experiments.files.disk import holder, intact, lock_of, locked, sealed
from experiments.runs.record import runs

CACHED = {
    "tokens": "windows of calibration and evaluation texts",
    "dense": "evaluations of dense models",
    "predictions": "of dense models, which others are held against",
    "surveys": "gradients, traces and spectra of dense models",
}
KINDS = CACHED | {"parts": "what killed processes were writing"}
HEADER = ["kind", "entry", "size", "age", "what it is", "what is wrong"]


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
    for kind in CACHED:
        for path in sorted((outputs / "cache" / kind).glob("[!.]*")):
            try:
                what, wrong = describe(path, whole), ""
            except Exception as error:  # whatever a damaged file makes a reader say
                what, wrong = "", one_line(error)
            entry = Entry(kind, path, lock_of(path), what, wrong)
            if entry.files:
                yield entry
    for part in sorted(outputs.rglob(".*.part")):
        inside = [outputs / folder / ".lock" for folder in part.relative_to(outputs).parents]  # of a run, of a survey
        own = part.with_name(f"{part.name.rsplit('.', 2)[0]}.lock")  # .<name>.<process>.part
        yield Entry("parts", part, next((lock for lock in inside if lock.exists()), own), "", "half-written")


def describe(path: Path, whole: bool) -> str:
    """What an entry of the cache is, from its header; an error if it is cut or, with `whole`, altered in any byte."""
    if path.is_dir():
        if (facts := sealed(path / "complete.json")) is None:
            raise ValueError("unfinished")
        for block in facts["blocks"]:
            header(path / f"{block}.safetensors", whole)
        text = (facts["tokens"] or {}).get("name")
        return ", ".join(part for part in (facts["statistic"], facts.get("model"), text) if part)
    if path.suffix == ".safetensors":
        facts, (count, length, *more) = header(path, whole)
        if "what" in facts:  # of an image it is one prediction, of a window one for each token but the first
            read = f"{count} windows of {length + 1}" if more else f"{count} images"
            return f"{json.loads(facts['what'])}, {read}"
        return f"{json.loads(facts['part'])}, {count} windows of {length}"
    if (facts := sealed(path)) is None:
        raise ValueError("not as it was written")
    numbers = [f"{key} {value:.4g}" for key, value in facts["metrics"].items() if "stderr" not in key]
    return ", ".join([*([facts["model"]] if "model" in facts else []), *numbers])


def header(file: Path, whole: bool) -> tuple[dict[str, str], list[int]]:
    """Facts of a tensor file and the shape of its first tensor; SafetensorError or ValueError for a damaged one."""
    with safe_open(file, "numpy") as opened:
        facts, shape = opened.metadata(), opened.get_slice(next(iter(opened.keys()))).get_shape()
    if whole and not intact(file):
        raise ValueError(f"{file.name} is not as it was written")
    return facts, shape


def clean(entries: list[Entry], outputs: Path) -> list[str]:
    """Remove these entries; says how much is gone, and each entry that was left because it is in use.

    Runs read surveys and predictions at any time, and lock them while they are made: none goes while a run is at work.
    """
    lines, gone = [], []
    at_work = [run for run in runs(outputs) if holder(run / ".lock")]
    for entry in entries:
        try:
            if at_work and entry.kind in ("surveys", "predictions"):
                raise BlockingIOError(f"{entry.path} may be read by {at_work[0]}, which is running")
            freed = entry.size
            entry.remove()
            gone.append(freed)
        except OSError as error:
            lines.append(f"left: {one_line(error)}")
    return [*lines, f"removed {len(gone)} of {len(entries)} entries, {size(sum(gone))}"]


def render(outputs: Path, entries: list[Entry]) -> str:
    """The entries as a table, then the total of each kind and of all."""
    if not entries:
        return f"nothing of that kind is kept in {outputs}"
    rows = []
    for entry in entries:
        place, numbers = inline(entry.path.relative_to(outputs)), [size(entry.size), duration(entry.age)]
        rows.append([entry.kind, place, *numbers, inline(entry.what), inline(entry.wrong)])
    lines = [grid(HEADER, rows, "l", "simple"), ""]
    for kind, what in KINDS.items():
        if sizes := [entry.size for entry in entries if entry.kind == kind]:
            lines.append(f"{kind}: {len(sizes)} entries, {size(sum(sizes))}: {what}")
    return "\n".join([*lines, f"in all: {len(rows)} entries, {size(sum(entry.size for entry in entries))}"])


def parser() -> Arguments:
    """The command line."""
    line = Arguments(
        prog="python -m experiments.cache",
        description="List what the runs of a folder keep for one another, and what dead ones left: "
        + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        + ". The options choose entries; with --clean they are removed, but for those in use.",
        epilog="example: python -m experiments.cache outputs --clean surveys --older 30",
    )
    line.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"), metavar="OUTPUTS", help="outputs=")
    removed = "remove what is listed, of one kind or (all) of every kind"
    line.add_argument("--clean", nargs="?", const="all", choices=["all", *KINDS], metavar="KIND", help=removed)
    line.add_argument("--older", type=float, default=0.0, metavar="DAYS", help="only what was written so long ago")
    line.add_argument("--broken", action="store_true", help="only what is damaged or unfinished; reads every file")
    return line


@ending()
@unheard()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 for a mistake in the command line."""
    options = parser().parse_args(arguments)
    if not options.outputs.is_dir():
        raise FileNotFoundError(f"no folder {options.outputs}: expected one with runs, such as outputs")
    chosen = [
        entry
        for entry in entries(options.outputs, options.broken)
        if options.clean in (None, "all", entry.kind) and entry.age >= 86400 * options.older
    ]
    if options.broken:
        chosen = [entry for entry in chosen if entry.wrong]
    print(render(options.outputs, chosen))
    if options.clean and chosen:
        print("\n" + "\n".join(clean(chosen, options.outputs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
