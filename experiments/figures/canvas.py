"""Where pictures are drawn and saved, as PNG, PDF and SVG; the only module that imports matplotlib, when first used.

The same figure gives the same bytes: no dates, no random names. Letters in an SVG are outlines, so that it looks the
same, and no text runs into another, whatever fonts the reader's machine has.
"""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.console.text import rounded, visible
from experiments.files.disk import replacing

WIDTH = 1280  # pixels of the PNG
DPI = 100
FORMATS: dict[str, dict[str, Any]] = {  # ending -> what would differ from one time to the next, left out
    "png": {},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}
SETTINGS: Any = {
    "svg.hashsalt": "prune",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names are shown as they are, dollars too
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
}
NAMED = 0.72  # of a panel is left where names stand at its left
WIDE = 5.0  # ratio of the largest to the smallest value from which an axis is logarithmic
DECADES = 100.0  # the same ratio, from which only powers of ten are written


def figure(width: int = WIDTH, height: int = 480) -> Any:
    """An empty matplotlib figure of so many pixels, laid out so that nothing covers anything else."""
    from matplotlib import rcParams  # noqa: PLC0415 - slow to load, here and below
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    rcParams.update(SETTINGS)  # read when text is made and when it is saved; nobody else draws with matplotlib
    drawn = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    FigureCanvasAgg(drawn)  # measures text
    return drawn


def save(figure: Any, place: Path) -> None:
    """Writes place.png, place.pdf and place.svg (`place` has no ending); each is there as a whole or not at all."""
    settle(figure)
    for ending in FORMATS:
        save_as(figure, place.with_name(f"{place.name}.{ending}"))


def save_as(figure: Any, path: Path) -> None:
    """Writes one file, in the format that its ending names: png, pdf or svg."""
    ending = path.suffix[1:]
    with replacing(path) as temporary:
        figure.savefig(temporary, format=ending, dpi=DPI, metadata=FORMATS[ending])
        if ending == "svg":  # its comments repeat each text, and XML has no control characters
            temporary.write_text(visible(temporary.read_text(encoding="utf-8")), encoding="utf-8")


def settle(figure: Any) -> None:
    """Lays the figure out, once: nothing that is added later moves anything, and the layout is the slow part."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def grid(figure: Any, panels: int, columns: int = 2) -> list[Any]:
    """So many axes, row by row."""
    columns = min(columns, panels)
    return [figure.add_subplot(-(-panels // columns), columns, place + 1) for place in range(panels)]


def scale(axis: Any, low: float, high: float, wide: float = WIDE) -> None:
    """Limits with some room at both ends; logarithmic where the values are positive and span more than `wide`.

    axis: axes.xaxis or axes.yaxis.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter  # noqa: PLC0415

    bound = getattr(axis.axes, f"set_{axis.axis_name}lim")
    if low > 0 and high / low > wide:
        ratio = high / low
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        steps = (1, 2, 5) if ratio < DECADES else (1,)
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if ratio < WIDE else steps))
        axis.set_minor_locator(NullLocator())  # each tick takes as long as a label
        axis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value)))
        bound(low / ratio**0.07, high * ratio**0.07)
    else:
        room = 0.08 * ((high - low) or abs(high) or 1.0)
        bound(low - room if low else 0.0, high + room)  # a scale that is to begin at zero does
        axis.set_major_locator(MaxNLocator(nbins=6))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def whole(axis: Any, most: int = 12) -> None:
    """Ticks at whole numbers only, at most so many."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def title(axes: Any, text: str, width: float = 1.0) -> None:
    """Above a panel that has this share of the figure's width; each of its lines is wrapped where it is long."""
    lines = [textwrap.fill(line, int(94 * width), break_on_hyphens=False) for line in text.splitlines()]
    axes.set_title("\n".join(lines), loc="left", pad=10)


def level(axes: Any, value: float, label: str, upright: bool = False) -> None:
    """A dashed line across the panel at a value of y, or of x if `upright`; its label is inside, at the left or top."""
    line, dashed = (axes.axvline if upright else axes.axhline), (0, (6, 3))
    line(value, color="black", linestyle=dashed, linewidth=1.2, zorder=1)
    place = ((value, 1), ("data", "axes fraction")) if upright else ((0, value), ("axes fraction", "data"))
    hang: dict[str, Any] = {"xytext": (4, -2), "va": "top"} if upright else {"xytext": (4, 3), "va": "bottom"}
    axes.annotate(label, place[0], xycoords=place[1], textcoords="offset points", fontsize=10, **hang)


def tidy(axes: Any, lines: str) -> None:
    """Fine lines behind the data across "x", "y" or "both", and no frame."""
    axes.grid(axis=lines, which="major", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Any, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Above all panels, where it covers nothing: labels with the look of their line or, with "bar", of their area."""
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles = [
        Patch(label=label, facecolor=look["bar"]) if "bar" in look else Line2D([], [], label=label, **look)
        for label, look in entries
    ]
    widest = max((len(label) for label, _ in entries), default=1)
    most = max(1, int(figure.get_figwidth() * DPI / (8 * widest + 70)))
    if handles:
        columns = -(-len(handles) // -(-len(handles) // most))  # so that the last line is not a short one
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def footnote(figure: Any, sentences: Iterable[str]) -> None:
    """What a reader must know, below all panels; nothing where there is nothing to say."""
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, int(figure.get_figwidth() * 12))]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=10, color="#444444")


def beside(axes: Any, points: Sequence[tuple[float, float, str]], sides: int = 8) -> None:
    """Writes each point's label where it covers no point and no earlier label; none where there is no room.

    sides: how many of the places around a point are tried; 1: at its right alone. All panels must be drawn before.
    """
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    settle(axes.figure)
    renderer, inside = axes.figure.canvas.get_renderer(), axes.get_window_extent()
    places = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in places]
    for x, y, label in points:
        for align in SIDES[:sides]:
            text = axes.annotate(label, (x, y), textcoords="offset points", fontsize=10, bbox=PAPER, **align)
            box = text.get_window_extent(renderer)
            contained = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if contained and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}  # hides lines behind
SIDES: tuple[dict[str, Any], ...] = (  # where a label hangs, the best place first; offsets in points
    {"xytext": (8, 0), "ha": "left", "va": "center"},
    {"xytext": (-8, 0), "ha": "right", "va": "center"},
    {"xytext": (0, 7), "ha": "center", "va": "bottom"},
    {"xytext": (0, -7), "ha": "center", "va": "top"},
    {"xytext": (6, 6), "ha": "left", "va": "bottom"},
    {"xytext": (6, -6), "ha": "left", "va": "top"},
    {"xytext": (-6, 6), "ha": "right", "va": "bottom"},
    {"xytext": (-6, -6), "ha": "right", "va": "top"},
)
