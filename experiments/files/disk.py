"""Writes and reads a run's files: there as a whole or not at all, sealed with a hash, made by one process at a time."""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

from experiments.console.text import STEERING
from prune import ranks

PATIENCE = 1.0  # seconds to wait for a lock before it counts as held: `holder` takes it for an instant to find out
TAKEN = ("cache", "multirun", "tables", "figures", "")  # folders of `outputs` that hold no runs
log = logging.getLogger("experiments")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when the block ends, and goes if the block raises.

    It is on the disk before it is renamed: a power loss leaves the old file or the new one, never an empty one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_name(text: str) -> str:
    """A text as the name of a file or folder: without /, control characters and dots in front, at most 120 bytes.

    Where that changes it, or where `outputs` has a folder of that name for something else, ten digits of its hash
    follow, so that two texts never get one name.
    """
    plain = re.sub("[/\t\n]", "_", STEERING.sub("_", text)).lstrip(".")
    if plain == text and text not in TAKEN and len(text.encode()) <= 120:
        return text
    known = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{plain.encode()[:109].decode(errors='ignore')}-{known}"


def forget_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed processes were writing in this folder, of this name or all; only under the lock over it."""
    for part in folder.rglob(f".{escape(name)}*.part"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def now() -> str:
    """The time, for people."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """A JSON file that is there as a whole or not at all."""
    text = json.dumps(value, indent=1, default=str)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, default: Any = None) -> Any:
    """A JSON value from disk, or the default where there is none; ValueError naming a file that is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it to compute it again") from None


def seal(path: Path, value: dict[str, Any]) -> None:
    """A JSON object on disk, with a sha256 over it as one more entry."""
    write_json(path, value | {"sha256": _digest_json(value)})


def sealed(path: Path) -> dict[str, Any] | None:
    """What `seal` wrote; None where there is no file, and, said in one line, where it is not as it was written."""
    if not path.exists():
        return None
    try:
        value = read_json(path)
        if as_written(value):
            return {name: part for name, part in value.items() if name != "sha256"}
    except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, no seal, no object
        pass
    say_damaged(path, *state(path))
    return None


def as_written(value: dict[str, Any]) -> bool:
    """Whether an object that `seal` wrote is as it was; False for one without a seal."""
    return bool(value.get("sha256") == _digest_json({name: part for name, part in value.items() if name != "sha256"}))


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def once(path: Path, compute: Callable[[], dict[str, Any]], shared: bool = False) -> dict[str, Any]:
    """The sealed result of a step, a JSON object; computed and stored if it is not there or not as it was written.

    With `shared` (a cache that several runs use) one process computes it and the others wait for that. Ranks compute
    it together, and the first one stores it.
    """
    if (found := ranks.told(lambda: sealed(path))) is not None:
        return found
    if shared:
        lock = locked(path.with_name(f".{path.name}.lock"), wait=True, what=f"{path.parent.name}/{path.stem}")
        with ranks.entered(lock):
            ranks.told(lambda: forget_unfinished(path.parent, path.name))
            return once(path, compute)
    value = compute()
    ranks.told(lambda: seal(path, value))
    return {name: part for name, part in read_json(path).items() if name != "sha256"}


def state(file: Path) -> tuple[int, int, int]:
    """What is another after a file was written."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(65536)  # a damaged file is told of once
def say_damaged(file: Path, *_: int) -> None:
    """One line in the log for a file in this state that is not as it was written."""
    log.warning("%s is not as it was written; it is computed again", file)


def room(folder: str) -> int:
    """Free bytes where a folder is, or is going to be."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def locked(path: Path, wait: bool, what: str) -> Iterator[None]:
    """Only one process at a time is inside, by a lock on the file `path`, which the kernel drops when a process dies.

    Where another one is, wait for it (said in one line), or BlockingIOError saying who it is. Where a filesystem has
    no flock, filelock warns and takes a file's existence for the lock: a process that died on another machine then
    keeps it until that file is removed.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        by = "process {process} on {host} since {since}".format(**_owner(path))
        if not wait:
            raise BlockingIOError(f"{what} is in use by {by}; wait until that ends, or stop it") from None
        log.info("%s is in use by %s; waiting for it", what, by)
        lock.acquire()
    try:
        owner = {"host": socket.gethostname(), "process": os.getpid(), "since": now(), "what": what}
        path.with_name(f"{path.name}.owner").write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        path.with_name(f"{path.name}.owner").unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> dict[str, Any] | None:
    """Who is inside `locked(path)` now: host, process, since, what. None if nobody is, whatever a dead process left.

    Where this user may not write, the answer is who was there last and did not leave.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415

    if not path.exists():
        return None
    try:
        with FileLock(path).acquire(timeout=0):
            return None
    except Timeout:
        return _owner(path)
    except OSError:
        return _owner(path) if path.with_name(f"{path.name}.owner").exists() else None


def _owner(path: Path) -> dict[str, Any]:
    """What the file beside a lock says; it is not there yet in the instant after the lock was taken."""
    unknown = {"host": "an unknown host", "process": "?", "since": "just now", "what": ""}
    try:
        return unknown | read_json(path.with_name(f"{path.name}.owner"), {})
    except (OSError, ValueError, TypeError):
        return unknown
