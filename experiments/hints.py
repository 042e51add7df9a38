"""Words for what went wrong: one line, with the nearest thing that exists."""

import difflib
import logging
from collections.abc import Iterable
from functools import cache

log = logging.getLogger("experiments")


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the most similar known word; empty if nothing is similar."""
    found = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f", did you mean {found[0]}?" if found else ""


def one_line(error: BaseException) -> str:
    """What went wrong, in one line; our own mistakes and those of libraries keep the name of their class."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt | SystemExit):  # the latter is submitit's, before a job is queued again
        return "interrupted; the same command goes on from here"
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def first_line(error: Exception) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@cache
def note(line: str) -> None:
    """Says what a person should know, once in a process: a folder is looked at before a run and again when it loads."""
    log.warning("%s", line)
