"""Writes and reads a run's files: there as a whole or not at all, sealed with a hash, made by one process at a time.

Other people's files are known by the sha256 of what they hold (`digest`). A file is read once as long as it is the
same, and a large one once for all processes. Size and time of change do not tell whether it is the same, for they can
be set; its inode and the time at which the system last saw it change cannot. A file that changed a moment ago may
change again within a tick of that clock, so that it is read each time.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from glob import escape
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from experiments.console.text import STEERING, size
from prune import ranks

Value = TypeVar("Value")
PATIENCE = 1.0  # seconds to wait for a lock before it counts as held: `holder` takes it for an instant to find out
TAKEN = ("cache", "multirun", "tables", "figures", "")  # folders of `outputs` that hold no runs
WHOLE = 64 * 2**20  # bytes above which a file's hash is kept on disk
SLOW = 4 * 2**30  # bytes whose reading takes seconds, so that a line says so
FRESH = 2.0  # seconds in which a file may change again unseen
# What torch calls a tensor that safetensors marks so.
DTYPES = {"BOOL": "bool", "U8": "uint8", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
known: dict[tuple[str, int, int, int, int], str] = {}  # sha256 of files
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
    digits = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{plain.encode()[:109].decode(errors='ignore')}-{digits}"


def forget_unfinished(place: Path) -> None:
    """Remove what killed processes were writing in a folder, or of a file; only under the lock over it."""
    folder, name = (place, "") if place.is_dir() else (place.parent, place.name)
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
    with suppress(ValueError):  # no JSON
        if as_written(value := read_json(path)):
            return {name: part for name, part in value.items() if name != "sha256"}
    say_damaged(path, *state(path))
    return None


def as_written(value: Any) -> bool:
    """Whether a JSON value is an object that `seal` wrote, as it was; False for one without a seal."""
    if not isinstance(value, dict):
        return False
    return bool(value.get("sha256") == _digest_json({name: part for name, part in value.items() if name != "sha256"}))


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def once(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The sealed result of a step, a JSON object; computed and stored if it is not there or not as it was written.

    Ranks compute it together, and the first one stores it.
    """
    if ranks.told(lambda: sealed(path)) is None:
        value = compute()
        ranks.told(lambda: seal(path, value))
    return {name: part for name, part in read_json(path).items() if name != "sha256"}


def shared(place: Path, look: Callable[[], Value], make: Callable[[], Any]) -> Value:
    """What `look` finds at a file or folder that several runs use; where that is nothing, after it was made.

    One process makes it and the others wait for that. Its ranks make it together; the first one alone looks.
    """
    if value := ranks.told(look):
        return value
    with ranks.entered(locked(lock_of(place), wait=True, what=f"{place.parent.name}/{place.name}")):
        ranks.told(lambda: forget_unfinished(place))
        if not ranks.told(look):
            make()
        return ranks.told(look)


def lock_of(place: Path) -> Path:
    """The lock of whoever makes this file, beside it; that of a folder is in it."""
    return place / ".lock" if place.is_dir() else place.with_name(f".{place.name}.lock")


def state(file: Path) -> tuple[int, int, int]:
    """What is another after a file was written."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(65536)  # a damaged file is told of once
def say_damaged(file: Path, *_: int) -> None:
    """One line in the log for a file in this state that is not as it was written."""
    log.warning("%s is not as it was written; it is computed again", file)


def intact(file: Path) -> bool:
    """Whether a file holds what `write_tensors` wrote; one line is logged if there is one that does not.

    It is read without torch, which whoever asks about a finished run need not wait for.
    """
    return file.exists() and _intact(file, *state(file))


@lru_cache(65536)  # a file is read once, not for every question about it, unless it changes
def _intact(file: Path, *stamp: int) -> bool:
    with suppress(SafetensorError, OSError):
        with safe_open(file, "numpy") as opened:  # refuses what is not whole
            metadata = opened.metadata() or {}
        if metadata.pop("sha256", None) == digest_tensors(_tensors(file), metadata):
            return True
    say_damaged(file, *stamp)
    return False


def _tensors(file: Path) -> Iterator[tuple[str, memoryview]]:
    """Name, dtype and shape of each tensor of a whole safetensors file, as torch writes them, and its bytes."""
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as whole, memoryview(whole) as view:
        begin = 8 + int.from_bytes(view[:8], "little")
        for name, entry in sorted(json.loads(bytes(view[8:begin])).items()):
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                with view[begin + first : begin + last] as content:
                    yield f"{name} torch.{DTYPES.get(entry['dtype'])} {entry['shape']}", content


def digest_tensors(tensors: Iterable[tuple[str, Any]], metadata: dict[str, str]) -> str:
    """sha256 over metadata, and over what each tensor is and its bytes, in the order of their names."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for header, content in tensors:
        digest.update(header.encode())
        digest.update(content)
    return digest.hexdigest()


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


def digest(path: Path, keep: Path | None = None) -> str:
    """sha256 of a file, or over the names and contents of all files in a folder.

    Those of large files are kept in the folder `keep`, if there is one.
    """
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        names = "".join(f"{file.relative_to(path).as_posix()}\0{_digest_file(file, keep)}\n" for file in inside)
        return hashlib.sha256(names.encode()).hexdigest()
    return _digest_file(path, keep)


def _digest_file(file: Path, keep: Path | None) -> str:
    status = file.stat()
    version = (str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if version in known:
        return known[version]
    place = None
    if keep and status.st_size > WHOLE:
        place = keep / f"{hashlib.sha256(repr(version).encode()).hexdigest()[:20]}.json"
    stored = sealed(place) if place else None
    if stored is None and status.st_size > SLOW:
        log.info("%s: %s are read once, to know them by their content", file, size(status.st_size))
    settled = time.time() - status.st_ctime_ns / 1e9 > FRESH
    content = stored["content"] if stored else hashed(file)
    if settled and file.stat().st_ctime_ns == status.st_ctime_ns:
        known[version] = content
        if place and stored is None:
            with suppress(OSError):  # a folder where nothing can be written: it is read again
                seal(place, {"model": str(file), "content": content})
    return content


def hashed(file: Path) -> str:
    """sha256 of a file, read now."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
