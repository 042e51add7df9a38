"""How a command ends: its exit status, and one line for what its user can mend."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

from experiments.alike import Mistakes
from experiments.console import shown
from experiments.hints import one_line

Arguments = ParamSpec("Arguments")
Main = Callable[Arguments, int]


def ending(others: tuple[type[Exception], ...] = (), without: str = "") -> Callable[[Main[Arguments]], Main[Arguments]]:
    """Makes a `main` return 2 after one line for a ValueError, an OSError or one of the `others`.

    So of every command: 0 is yes or done, 1 is no or not done, 2 a mistake or what cannot be read, 130 Ctrl-C, as
    shells have it. Mistakes get a line each; `without` is a name in front of them that this command does not know.
    Other errors are ours, and keep their traceback. What is printed cannot steer the terminal.
    """

    def decorate(main: Main[Arguments]) -> Main[Arguments]:
        @wraps(main)
        def ended(*arguments: Arguments.args, **named: Arguments.kwargs) -> int:
            with shown():
                try:
                    return main(*arguments, **named)
                except (ValueError, OSError, *others) as error:
                    lines = str(error).splitlines() if isinstance(error, Mistakes) else [one_line(error)]
                    print("\n".join(f"error: {line.removeprefix(without)}" for line in lines), file=sys.stderr)
                    return 2
                except KeyboardInterrupt:
                    print("interrupted", file=sys.stderr)
                    return 130

        return ended

    return decorate


@contextmanager
def unheard() -> Iterator[None]:
    """What this project logs meanwhile is not shown, for a command whose table has it."""
    log = logging.getLogger("experiments")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
