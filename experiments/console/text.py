"""Text for people: each kind of number by one rule, and nothing that would steer a terminal.

A name, a tensor, an error of a file that came from elsewhere may hold anything; it is told, and it is not obeyed: what
would steer a terminal or turn letters round is shown as escapes.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from experiments.console.families import PERPLEXITY, family

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


def anywhere(name: str) -> str:
    """A module's name with * for every number, as it is called in any block: "layers.*.mlp.experts.*.up_proj"."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which they are one and a half: "1.5 s", "80 s", "1.7 min", "2.0 h", "3.5 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def timing(number: float | None) -> str:
    """Seconds in a column of seconds: to the hundredth, or to two digits where that is less; empty for None."""
    if number is None:
        return ""
    return f"{number:.2f}" if number >= 0.1 or number == 0 else f"{number:.2g}"


def digits(key: str, value: float | None, sign: str = "") -> str:
    """A metric, or a difference of one (sign "+"): shares in percent, perplexities with the digits that mean
    something, others that tables compare to five places, the rest (an audit's) to six digits; empty for None.
    """
    known = family(key)
    if value is None:
        return ""
    if known is None:
        return f"{value:{sign}g}"
    if known.percent:
        return f"{100 * value:{sign}.2f}"
    if abs(value) < 1000:
        return f"{value:{sign}.3f}" if known == PERPLEXITY else f"{value:{sign}.5f}"
    return f"{value:{sign}.1f}" if abs(value) < 1e6 else f"{value:{sign}.2e}"


def plus_minus(key: str, value: float | None, error: float | None, sign: str = "") -> str:
    """A metric and how sure it is: "17.500 ± 0.250", without an error the metric alone."""
    return digits(key, value, sign) + ("" if error is None else f" ± {digits(key, error)}")


def fraction(value: float | None) -> str:
    """A share of weights, such as a sparsity: "0.5001"; empty for None."""
    return "" if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    """A share in percent, such as a recovery: "94.8"; empty for None."""
    return "" if value is None else f"{100 * value:.1f}"


def rounded(value: float, places: int = 4) -> str:
    """A number in so few digits, as an axis or a label in a picture has room for: "17.5", "0.0012", "1.5e7"."""
    near = float(f"{value:.{places}g}")
    if near == 0 or 1e-4 <= abs(near) < 1e4:
        return f"{near:g}"
    mantissa, _, power = f"{near:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(power)}"


def plural(number: int, noun: str) -> str:
    """A number of things: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Iterable[str], most: int) -> str:
    """The first names of a list, and how many more there are: "a, b and 3 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def visible(text: str) -> str:
    """The text with escapes such as \\x1b in place of what is not shown but obeyed; lines stay lines."""
    return STEERING.sub(lambda steering: ascii(steering[0])[1:-1], text)


def inline(text: object) -> str:
    """The same in one line: a name from elsewhere must not begin a line of its own."""
    return visible(" ".join(str(text).split()))


class Unread(KeyboardInterrupt):
    """Nobody reads what is printed any longer, as behind `| head`: whatever prints ends as by Ctrl-C."""


class Shown:
    """A text stream to which everything is written as `visible` has it; Unread once its reader is gone, if `ends`."""

    def __init__(self, stream: Any, ends: bool = False) -> None:
        self.stream, self.gone = stream, BrokenPipeError if ends else ()

    def write(self, text: str) -> int:
        """Writes it; a progress bar may go back to the start of its line, and a watch clear the terminal."""
        own = OWN.match(text)
        ahead = own.end() if own else 0
        try:
            self.stream.write(text[:ahead] + visible(text[ahead:]))
        except self.gone:
            raise Unread from None
        return len(text)

    def flush(self) -> None:
        """Sends what is written to its reader."""
        try:
            self.stream.flush()
        except self.gone:
            raise Unread from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def shown() -> Iterator[None]:
    """What is printed and logged meanwhile is `visible`."""
    out: Any = Shown(sys.stdout, ends=True)
    err: Any = Shown(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        yield
