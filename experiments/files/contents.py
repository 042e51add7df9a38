"""What files hold, by sha256: a file is read once as long as it is the same, and a large one once for all processes.

Size and time of change do not tell whether a file is the same, for they can be set; its inode and the time at which the
system last saw it change cannot. A file that changed a moment ago may change again within a tick of that clock, so that
it is read each time.
"""

import hashlib
import logging
import time
from contextlib import suppress
from pathlib import Path

from experiments.console.text import size
from experiments.files.disk import seal, sealed

WHOLE = 64 * 2**20  # bytes above which a file's hash is kept on disk
SLOW = 4 * 2**30  # bytes whose reading takes seconds, so that a line says so
FRESH = 2.0  # seconds
known: dict[tuple[str, int, int, int, int], str] = {}
log = logging.getLogger("experiments")


def digest(path: Path, keep: Path | None = None) -> str:
    """sha256 of a file, or over the names and contents of the files directly in a folder.

    Those of large files are kept in the folder `keep`, if there is one.
    """
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256("".join(f"{file.name}\0{_file(file, keep)}\n" for file in inside).encode()).hexdigest()
    return _file(path, keep)


def _file(file: Path, keep: Path | None) -> str:
    status = file.stat()
    state = (str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if state in known:
        return known[state]
    place = keep / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:20]}.json" if keep else None
    there = sealed(place) if place and status.st_size > WHOLE else None
    settled = time.time() - status.st_ctime_ns / 1e9 > FRESH
    if there is None and status.st_size > SLOW:
        log.info("%s: %s are read once, to know them by their content", file, size(status.st_size))
    found = there["content"] if there else hashed(file)
    if settled and file.stat().st_ctime_ns == status.st_ctime_ns:
        known[state] = found
        if place and there is None and status.st_size > WHOLE:
            with suppress(OSError):  # a folder where nothing can be written: it is read again
                seal(place, {"model": str(file), "content": found})
    return found


def hashed(file: Path) -> str:
    """sha256 of a file, read now."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
