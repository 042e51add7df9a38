"""A heat map in one panel: cividis, values written where there is room, white cells where nothing is known."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan
from typing import Any

from experiments.figures import canvas, style


def heat(
    axes: Any,
    rows: Sequence[str],
    cells: list[list[float]],
    limits: tuple[float, float],
    write: Callable[[float], str] | None = None,
) -> Any:
    """Draws cells[row][column], coloured between the limits; `write` makes the text in a cell, None for no text."""
    picture = axes.imshow(cells, aspect="auto", cmap=style.HEAT, interpolation="nearest", clim=limits)
    axes.set_yticks(range(len(rows)), rows)
    canvas.whole(axes.xaxis, 8)
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if write and not isnan(cell):
                colour = "white" if cell < sum(limits) / 2 else "black"
                axes.text(x, y, write(cell), ha="center", va="center", fontsize=9, color=colour, in_layout=False)
    return picture


def limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Smallest and largest value, at least so far apart: colours of a smaller range would show rounding."""
    low, high = min(values), max(values)
    middle, reach = (low + high) / 2, max(high - low, least) / 2
    return middle - reach, middle + reach


def square(lines: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> list[list[float]]:
    """The cells of {row: {column: value}}; NaN where there is none."""
    return [[line.get(column, nan) for column in columns] for line in lines.values()]
