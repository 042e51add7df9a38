"""Text for people: numbers in their units, each by one rule, and nothing that would steer a terminal.

A name, a tensor, an error of a file that came from elsewhere may hold anything; it is told, and it is not obeyed: what
would steer a terminal or turn letters round is shown as escapes.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

# Control characters but tab and line feed, separators of lines, marks of direction, halves of surrogate pairs.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
CLEAR = "\x1b[2J\x1b[H"  # of the terminal
OWN = re.compile(rf"(?:\r|\x1b\[A|{re.escape(CLEAR)})*")  # what progress bars and we write ahead of a text


def size(number: float) -> str:
    """Bytes, to three digits: "288 KiB", "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def count(number: float) -> str:
    """A number of weights, to three digits: "6.74 billion"."""
    power = next((k for k in range(4) if number < 1000 ** (k + 1)), 3)
    return f"{number / 1000**power:.3g} {('', 'thousand', 'million', 'billion')[power]}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which they are one and a half: "1.5 s", "80 s", "1.7 min", "2.0 h", "3.5 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def visible(text: str) -> str:
    """The text with escapes such as \\x1b in place of what is not shown but obeyed; lines stay lines."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def inline(text: object) -> str:
    """The same in one line: a name from elsewhere must not begin a line of its own."""
    return visible(" ".join(str(text).split()))


class Shown:
    """A text stream to which everything is written as `visible` has it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes it; a progress bar may go back to the start of its line, and a watch clear the terminal."""
        own = OWN.match(text)
        ahead = own.end() if own else 0
        self.stream.write(text[:ahead] + visible(text[ahead:]))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def shown() -> Iterator[None]:
    """What is printed and logged meanwhile is `visible`."""
    out: Any = Shown(sys.stdout)
    err: Any = Shown(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        yield
