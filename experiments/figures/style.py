"""The look of methods, budgets and patterns, alike in all panels; colours that any colour vision tells apart.

The colours are those of Okabe and Ito (2008), the map of the heat maps is cividis; shapes and lines differ as well.
"""

from collections.abc import Iterable, Sequence
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
HEAT = "cividis"
LONGEST = 26  # letters of a name beside an axis


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> colour, marker and line, in alphabetical order: the same runs always look the same.

    From the ninth name on, colours come again with another shape, hollow, and another line.
    """
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(sorted(set(names))):
        colour, again = COLOURS[place % len(COLOURS)], place // len(COLOURS)
        faces = {"markerfacecolor": "white", "markeredgecolor": colour} if again else {"markeredgecolor": "white"}
        found[name] = {"color": colour, "marker": MARKERS[again % len(MARKERS)], **faces}
        found[name] |= {"linestyle": LINES[again % len(LINES)], "markersize": 8}
    return found


def shapes(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The looks of a few names that lie upon each other, such as budgets: each has a shape of its own."""
    found = looks(names)
    return {name: look | {"marker": MARKERS[i % len(MARKERS)]} for i, (name, look) in enumerate(found.items())}


def short(name: str, longest: int = LONGEST) -> str:
    """A name that fits beside an axis: what is too long loses its middle."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def first(names: Sequence[str], shown: int, what: str) -> list[str]:
    """A sentence on what is left out where only so many are shown; empty where all are."""
    rest = list(names[shown:])
    named = ", ".join(rest[:6]) + f" and {len(rest) - 6} more" * (len(rest) > 6)
    return [f"not shown, for want of room: {len(rest)} {what} ({named})"] if rest else []
