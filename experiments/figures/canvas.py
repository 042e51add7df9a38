"""Where pictures are drawn and saved, and how all of them look; the only module that imports matplotlib.

The same figure gives the same bytes: no dates, no random names. Letters in an SVG are outlines, so that it looks the
same, and no text runs into another, whatever fonts the reader's machine has. The colours of lines are those of Okabe
and Ito (2008) and are methods, those of heat maps and areas are cividis: any colour vision tells them apart, and shapes
differ as well.
"""

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from experiments.console.text import rounded, visible
from experiments.files.disk import replacing

WIDTH = 1280  # pixels of the PNG
DPI = 100
FORMATS: dict[str, dict[str, Any]] = {  # ending -> what would differ from one time to the next, left out
    "png": {},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}
PANELS = 6  # in a picture
METHODS = 24  # in a panel
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p")
SMALL = 11.5  # points of labels; at 7 inches, a page's width, letters have half of their size here
CELL = 10  # points of numbers in a heat map
LONGEST = 24  # letters of a name beside an axis
LABEL = 34  # letters of a line beside an axis
WIDE = 5.0  # ratio of the largest to the smallest value from which an axis is logarithmic
DECADES = 100.0  # the same ratio, from which only powers of ten are written
WRITTEN = 28  # columns of a heat map as wide as the picture up to which values are written into its cells
rcParams.update(  # read when text is made and when it is saved; nobody else draws with matplotlib
    {
        "svg.hashsalt": "prune",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
        "text.parse_math": False,  # names are shown as they are, dollars too
        "font.family": "DejaVu Sans",
        "font.size": 13.5,
        "axes.titlesize": 14.5,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "grid.color": "#DDDDDD",
        "legend.frameon": False,
    }
)


def figure(height: int) -> Figure:
    """An empty figure of so many pixels, laid out so that nothing covers anything else."""
    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")


def composed(
    panels: Mapping[str, Any],
    draw: Callable[[Axes, Any], None],
    height: int,
    methods: Mapping[str, Collection[str]] | None = None,
    notes: Sequence[str] = (),
    columns: int = 2,
    most: int = PANELS,
) -> Figure:
    """Panels (title -> what `draw` shows there) row by row, each so many pixels high; below them notes.

    These tell also which panels, and which methods of a panel (title -> methods), have no room.
    """
    columns = min(columns, len(panels))
    shown = list(panels.items())[:most]
    rows = -(-len(shown) // columns)
    picture = figure(120 + rows * height)
    for place, (text, panel) in enumerate(shown, 1):
        axes = picture.add_subplot(rows, columns, place)
        draw(axes, panel)
        title(axes, text, letters=100)  # names at the left of a panel take their part of it
    footnote(picture, [*left_out(methods or dict.fromkeys(panels, ()), most), *notes])
    return picture


def lines(methods: Mapping[str, Collection[str]]) -> int:
    """How many methods are shown in the fullest panel (title -> methods)."""
    return min(METHODS, max(len(names) for names in list(methods.values())[:PANELS]))


def save(figure: Figure, place: Path) -> None:
    """Writes place.png, place.pdf and place.svg (`place` has no ending); each is there as a whole or not at all."""
    settle(figure)
    for ending, metadata in FORMATS.items():
        with replacing(place.with_name(f"{place.name}.{ending}")) as temporary:
            figure.savefig(temporary, format=ending, dpi=DPI, metadata=metadata)
            if ending == "svg":  # its comments repeat each text, and XML has no control characters
                temporary.write_text(visible(temporary.read_text(encoding="utf-8")), encoding="utf-8")


def settle(figure: Figure) -> None:
    """Lays the figure out, once: nothing that is added later moves anything, and the layout is the slow part."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            _hide_crowded(axes)


def _hide_crowded(axes: Axes) -> None:
    """Takes the numbers out of a heat map in which one is wider than its cell."""
    cells = [text for text in axes.texts if not text.get_in_layout()]
    if cells:
        longest = max(cells, key=lambda text: len(text.get_text()))
        if longest.get_window_extent().width + 4 > axes.bbox.width / axes.images[0].get_array().shape[1]:
            for text in cells:
                text.remove()


def title(axes: Axes, text: str, letters: int = 124) -> None:
    """Above a panel; its lines are wrapped where they are longer than it is wide. letters: of the picture's width."""
    width = int(letters * axes.get_position().width)
    axes.set_title("\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in text.splitlines()))


def beside(text: str) -> str:
    """The label of an axis, in lines that are no longer than a panel is high; what is in brackets stays together."""
    together = re.sub(r"\([^)]*\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return textwrap.fill(together, LABEL).replace("\N{NO-BREAK SPACE}", " ")


def scale(axes: Axes, which: str, values: Iterable[float], wide: float = WIDE) -> None:
    """Limits of axis "x" or "y" around the finite values, with some room; logarithmic where they span more than `wide`.

    A scale of values that begin at zero does too.
    """
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low > 0 and high / low > wide:
        ratio = high / low
        room = ratio**0.07
        axes.set(**{f"{which}scale": "log", f"{which}lim": (low / room, high * room)})
        log_ticks(axes.xaxis if which == "x" else axes.yaxis, ratio)
    else:
        room = 0.08 * ((high - low) or abs(high) or 1.0)
        axes.set(**{f"{which}lim": (low - room if low else 0.0, high + room)})


def whole(axes: Axes) -> None:
    """Ticks of the x axis, such as blocks, at whole numbers only."""
    axes.locator_params(axis="x", nbins=8, integer=True, min_n_ticks=1)


def log_ticks(axis: Any, ratio: float) -> None:
    """Few ticks with plain numbers, on a logarithmic axis on which the largest value is so many times the smallest."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < DECADES else (1,)))
    axis.set_minor_locator(NullLocator())  # each tick takes as long as a label
    axis.set_major_formatter(lambda value, _: rounded(value))


def level(axes: Axes, value: float, label: str = "", upright: bool = False) -> None:
    """A dashed line across the panel at a value of y, or of x if `upright`; its label is at the right or top."""
    line: Any = {"color": "black", "linestyle": (0, (6, 3)), "linewidth": 1.2, "zorder": 1}
    text: Any = {"textcoords": "offset points", "va": "top", "fontsize": SMALL}
    if upright:
        axes.axvline(value, **line)
        axes.annotate(label, (value, 1), (4, -2), xycoords=axes.get_xaxis_transform(), **text)
    else:
        axes.axhline(value, **line)
        axes.annotate(label, (1, value), (-4, -4), xycoords=axes.get_yaxis_transform(), ha="right", **text)


def aside(axes: Axes, number: int, of: int, points: float = 3.0) -> Transform:
    """Where something of a panel is drawn, moved sideways: `of` marks of one place stand side by side.

    The panel's limits must be set, for what is drawn so does not move them.
    """
    away = (number - (of - 1) / 2) * points / 72
    return axes.transData + ScaledTranslation(away, 0, axes.figure.dpi_scale_trans)


def heat(
    axes: Axes,
    rows: Mapping[str, Mapping[str, float]],
    columns: Sequence[str],
    write: Callable[[float], str],
    **colours: Any,
) -> Any:
    """A heat map of {row: {column: value}}, white where nothing is known; `write` makes the text in a cell.

    colours: `clim` or `norm` of matplotlib's imshow. Where columns are narrow, nothing is written.
    """
    cells = [[line.get(column, nan) for column in columns] for line in rows.values()]
    picture = axes.imshow(cells, aspect="auto", cmap="cividis", interpolation="nearest", **colours)
    axes.set_yticks(range(len(rows)), [short(name) for name in rows])
    whole(axes)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if len(columns) > WRITTEN * axes.get_position().width:
        return picture
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if not isnan(cell):
                colour = "white" if picture.norm(cell) < 0.5 else "black"
                axes.text(x, y, write(cell), ha="center", va="center", fontsize=CELL, color=colour, in_layout=False)
    return picture


def limits(values: Iterable[float], least: float) -> tuple[float, float]:
    """Smallest and largest value, at least so far apart: colours of a smaller range would show rounding."""
    values = list(values)
    low, high = min(values), max(values)
    middle, reach = (low + high) / 2, max(high - low, least) / 2
    return middle - reach, middle + reach


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> colour and marker, in alphabetical order: the same runs always look the same.

    From the ninth name on, colours come again, hollow and with another marker.
    """
    styles: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(sorted(set(names))):
        again, place = divmod(number, len(COLOURS))
        colour = COLOURS[place]
        face = {"markerfacecolor": "white", "markeredgecolor": colour} if again else {"markeredgecolor": "white"}
        styles[name] = {"color": colour, "marker": MARKERS[(place + again) % len(MARKERS)], "markersize": 8, **face}
    return styles


def shades(names: Iterable[str]) -> dict[str, str]:
    """Name -> colour, from dark to light in this order: for what is no method."""
    names = list(dict.fromkeys(names))
    return {name: to_hex(colormaps["cividis"](0.9 * k / max(1, len(names) - 1))) for k, name in enumerate(names)}


def legend(figure: Figure, entries: Mapping[str, dict[str, Any]], longest: int = LONGEST) -> None:
    """Above all panels, where it covers nothing: each name with its look."""
    handles = [Line2D([], [], label=short(name, longest), **look) for name, look in entries.items()]
    if handles:
        widest = max(len(handle.get_label()) for handle in handles)
        lines = -(-len(handles) * (9 * widest + 74) // WIDTH)
        figure.legend(handles=handles, loc="outside upper center", ncols=-(-len(handles) // lines))


def area(colour: str) -> dict[str, Any]:
    """The look of an area in a legend."""
    return {"color": colour, "marker": "s", "markersize": 12, "linestyle": "none"}


def footnote(figure: Figure, sentences: Iterable[str]) -> None:
    """What a reader must know, below all panels; nothing where there is nothing to say."""
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, int(figure.get_figwidth() * 11))]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=SMALL, color="#444444")


def left_out(methods: Mapping[str, Collection[str]], most: int = PANELS) -> list[str]:
    """Sentences on the panels, and on the methods of each (title -> methods), for which there is no room."""
    sentences = _not_shown(list(methods), most, "panels")
    for panel in list(methods)[:most]:
        sentences += _not_shown(list(methods[panel]), METHODS, f"methods of {panel}")
    return sentences


def _not_shown(names: Sequence[str], shown: int, what: str) -> list[str]:
    rest = names[shown:]
    more = f" and {len(rest) - 6} more" if len(rest) > 6 else ""
    return [f"not shown, for want of room: {len(rest)} {what} ({', '.join(rest[:6])}{more})"] if rest else []


def short(name: str, longest: int = LONGEST) -> str:
    """A name that fits beside an axis: what is too long loses its middle."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
