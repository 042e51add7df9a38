"""How a mistake is told: a line with the nearest thing that exists, for each job that has it; and how commands end."""

import difflib
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from experiments.console.text import Unread, shown

Main = Callable[..., int]
log = logging.getLogger("experiments")


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the most similar known word; empty if nothing is similar."""
    similar = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f", did you mean {similar[0]}?" if similar else ""


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


class Mistakes(ValueError):
    """What is wrong with the jobs of a multirun, one line for each."""


def refuse_all(wrong: dict[str, str], among: Collection[str]) -> None:
    """Mistakes with the reasons of all wrong jobs (name -> reason) of those named in `among`."""
    if wrong:
        raise Mistakes("\n".join(explain(wrong, among)))


def explain(wrong: dict[str, str], among: Collection[str]) -> list[str]:
    """A line for each reason: alone if all jobs share it, else behind the words that only those who share it have.

    Where no word tells them apart from the others, each job has a line of its own.
    """
    lines = []
    for reason in dict.fromkeys(wrong.values()):
        names = [name for name in wrong if wrong[name] == reason]
        others = {word for name in among if wrong.get(name) != reason for word in name.split()}
        own = dict.fromkeys(word for name in names for word in name.split() if word not in others)
        if len(names) == len(among):
            names = [""]
        elif all(own.keys() & name.split() for name in names):
            names = [" or ".join(own)]
        lines += [reason if name in reason else f"{name}: {reason}" for name in names]
    return lines


def differences(lines: Iterable[Iterable[str]]) -> list[str]:
    """The words of each job of a multirun that not all of them have, in one line."""
    return list(map(" ".join, apart(lines)))


def apart(lines: Iterable[Iterable[str]]) -> list[list[str]]:
    """The same, word by word."""
    lines = [list(line) for line in lines]
    shared = set.intersection(*map(set, lines))
    return [[word for word in line if word not in shared] for line in lines]


def ending(others: tuple[type[Exception], ...] = (), without: str = "") -> Callable[[Main], Main]:
    """Makes a `main` return 2 after one line for a ValueError, an OSError or one of the `others`.

    So of every command: 0 is yes or done, 1 is no or not done, 2 a mistake or what cannot be read; as shells have it
    130 Ctrl-C, and 141 without a word where nobody reads on (`| head`). Mistakes get a line each; `without` is a name
    in front of them that this command does not know. Other errors are ours, and keep their traceback. What is printed
    cannot steer the terminal.
    """

    def decorate(main: Main) -> Main:
        @wraps(main)
        def ended(*arguments: Any, **named: Any) -> int:
            with shown():
                try:
                    try:
                        return main(*arguments, **named)
                    finally:
                        sys.stdout.flush()  # where nobody reads it, that is known here and not behind the last line
                except Unread:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes nowhere
                    return 141
                except (ValueError, OSError, *others) as error:
                    lines = str(error).splitlines() if isinstance(error, Mistakes) else [one_line(error)]
                    print("\n".join(f"error: {line.removeprefix(without)}" for line in lines), file=sys.stderr)
                    return 2
                except KeyboardInterrupt as error:
                    print(one_line(error), file=sys.stderr)
                    return 130

        return ended

    return decorate


@contextmanager
def unheard() -> Iterator[None]:
    """What this project logs meanwhile is not shown, for a command whose table has it."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
