"""Pictures of runs: perplexity against sparsity, and one run by depth. The only module that imports matplotlib.

Colours are those of Okabe and Ito (2008), distinct for any colour vision; patterns differ by their markers as well.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.archive import Record
from experiments.panels import Panel, sparsities
from experiments.table import Row, Value, arrange

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 100  # a figure of 12.8 inches is 1280 pixels wide
LABELLED = 12  # with more points in a panel, their values would cover each other
WIDE = 5.0  # ratio of the largest to the smallest value from which an axis is logarithmic
DECADES = 1000.0  # the same ratio, from which only powers of ten are written
APART = 0.028  # of the axis, between points of several methods that all have one sparsity


@dataclass(frozen=True)
class Style:
    """The look of each method (hollow from the ninth on) and the marker of each pattern, alike in all panels."""

    looks: dict[str, dict[str, Any]]
    markers: dict[str, str]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Style":
        """Assigned in alphabetical order, so that the same runs always look the same."""
        pruned = [row for row in rows if row.method != "dense"]
        methods, patterns = sorted({row.method for row in pruned}), sorted({row.pattern for row in pruned})
        looks = {}
        for place, method in enumerate(methods):
            colour, full = COLOURS[place % len(COLOURS)], place < len(COLOURS)
            faces = {"markerfacecolor": colour if full else "white", "markeredgecolor": "white" if full else colour}
            looks[method] = {"color": colour, **faces}
        return cls(looks, {pattern: MARKERS[i % len(MARKERS)] for i, pattern in enumerate(patterns)})


def sparsity_perplexity(records: Iterable[Record], path: Path, width: int = 1280) -> bool:
    """Draws a panel per model and perplexity as a PNG `width` pixels wide; False if no pruned run has a perplexity.

    x is the realised sparsity, or the pattern where all runs of a panel have the same sparsity.
    """
    rows = arrange(records).rows
    keys = sorted({(row.model, metric) for row in rows for metric in row.values if metric.startswith("ppl/")})
    panels = [panel for model, metric in keys if (panel := Panel.of(model, metric, rows)).points or panel.lost]
    if not panels:
        return False
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, style = _figure(width, 80 + 420 * lines), Style.of(rows)
    for place, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(lines, columns, place), panel, style)
    _legend(figure, style, any(not panel.level for panel in panels))
    _save(figure, path)
    return True


def _draw(axes: Any, panel: Panel, style: Style) -> None:
    lost = f"\nnot finite, not shown: {', '.join(panel.lost)}" if panel.lost else ""
    axes.set_title(panel.title + lost, fontsize=12)
    (_strip if panel.level else _curves)(axes, panel, style)
    _scale(axes, panel)
    axes.set_ylabel("perplexity (lower is better)")
    _tidy(axes, "y")
    if panel.dense is not None:
        axes.axhline(panel.dense, color="black", linestyle="--", linewidth=1.2, zorder=1)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"dense\n{_short(panel.dense)}", (1, panel.dense), xytext=(4, 0), fontsize=9, **place)


def _curves(axes: Any, panel: Panel, style: Style) -> None:
    """Every run a point, a line through the means of each method under a pattern; lone points stand side by side."""
    series: dict[tuple[str, str], dict[float, list[tuple[Row, Value, float]]]] = defaultdict(lambda: defaultdict(list))
    for row, value, sparsity in panel.points:
        series[row.method, row.pattern][round(sparsity, 3)].append((row, value, sparsity))
    span = max(x for _, _, x in panel.points) - min(x for _, _, x in panel.points)
    methods = sorted({row.method for row, _, _ in panel.points})
    for (method, _), places in series.items():
        shift = APART * span * (methods.index(method) - (len(methods) - 1) / 2) * (len(places) == 1)
        means = [(x, sum(value.value for _, value, _ in places[x]) / len(places[x])) for x in sorted(places)]
        axes.plot(*zip(*means, strict=True), color=style.looks[method]["color"], linewidth=1.6, zorder=2)
        for point in (point for place in places.values() for point in place):
            _dot(axes, point[2] + shift, point[0], point[1], style)
    alone = any(len(places) == 1 for places in series.values())
    axes.set_xlabel("sparsity (share of weights removed)" + "; points without a line are set side by side" * alone)


def _strip(axes: Any, panel: Panel, style: Style) -> None:
    """Patterns side by side, in each of them the methods, their values written next to the points."""
    patterns = sorted({row.pattern for row, _, _ in panel.points})
    methods = sorted({row.method for row, _, _ in panel.points})
    repeated = len({(row.method, row.pattern) for row, _, _ in panel.points}) < len(panel.points)
    for row, value, _ in panel.points:
        x = patterns.index(row.pattern) + 0.8 * ((methods.index(row.method) + 0.5) / len(methods) - 0.5)
        _dot(axes, x, row, value, style)
        if not repeated and len(panel.points) <= LABELLED:
            beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(_short(value.value), (x, value.value), **beside)
    for edge in range(1, len(patterns)):
        axes.axvline(edge - 0.5, color="#DDDDDD", linewidth=0.8)
    axes.set_xlim(-0.5, max(len(patterns), 1) - 0.5)
    axes.set_xticks(range(len(patterns)), patterns)
    sparsity = "".join(f" (all at sparsity {sparsity:.2f})" for _, _, sparsity in panel.points[:1])
    axes.set_xlabel(f"pattern of the removed weights{sparsity}")


def _dot(axes: Any, x: float, row: Row, value: Value, style: Style) -> None:
    shape = {"marker": style.markers[row.pattern], "markersize": 8, "elinewidth": 1.2, "zorder": 3}
    axes.errorbar(x, value.value, yerr=value.error, **shape, **style.looks[row.method])


def _scale(axes: Any, panel: Panel) -> None:
    """A logarithmic axis for a large span, and some room at both ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - slow to load

    low, high = panel.span
    if high / low > WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < DECADES else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / (high / low) ** 0.07, high * (high / low) ** 0.07)
    else:
        room = 0.1 * ((high - low) or high)
        axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e5 else f"{value:.0e}"))


def _legend(figure: Any, style: Style, shapes: bool) -> None:
    """Colours are methods and shapes patterns; above the panels, where it covers nothing."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    entries = [Line2D([], [], marker="o", label=method, **look, **own) for method, own in style.looks.items()]
    if shapes and len(style.markers) > 1:
        entries += [
            Line2D([], [], color="#444444", marker=m, label=pattern, **look) for pattern, m in style.markers.items()
        ]
    figure.legend(handles=entries, loc="outside upper center", ncols=min(len(entries), 9), frameon=False)


def layers(results: dict[str, Any], path: Path, width: int = 1280) -> bool:
    """Draws one run by depth as a PNG: each block's relative output error above the sparsity of each of its matrices.

    results: the content of results.json; False when no matrix was pruned.
    """
    if not results.get("layers"):
        return False
    blocks = list(dict.fromkeys(layer["block"] for layer in results["layers"]))
    errors = {block["block"]: block["error"] for block in results.get("blocks", []) if block["error"] is not None}
    matrices = sparsities(results["layers"])
    heights = [230] * bool(errors) + [60 + 34 * len(matrices)]
    figure = _figure(width, 130 + sum(heights))
    grid = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    if errors:
        _errors(grid[0], [errors.get(block, math.nan) for block in blocks])
    _heat(figure, grid[-1], list(matrices), [[line.get(b, math.nan) for b in blocks] for line in matrices.values()])
    _save(figure, path)
    return True


def _errors(axes: Any, errors: list[float]) -> None:
    axes.plot(range(len(errors)), errors, color=COLOURS[0], marker="o", markersize=5, linewidth=1.6)
    finite = [error for error in errors if math.isfinite(error)]
    if min(finite, default=0.0) > 0 and max(finite) / min(finite) > WIDE:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("relative squared\nerror of the output")
    axes.set_title("distance of each block's output from the dense block's", fontsize=12)
    _tidy(axes, "both")


def _heat(figure: Any, axes: Any, matrices: list[str], cells: list[list[float]]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    shown = {(x, y): cell for y, line in enumerate(cells) for x, cell in enumerate(line) if not math.isnan(cell)}
    low, high = min(shown.values()), max(shown.values())
    middle, reach = (low + high) / 2, max(high - low, 0.1) / 2  # colours of a smaller range would show rounding
    picture = axes.imshow(cells, aspect="auto", cmap="cividis", vmin=middle - reach, vmax=middle + reach)
    axes.set_yticks(range(len(matrices)), matrices)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True))
    axes.set_xlabel("block, from the input to the output")
    axes.set_title(f"sparsity of each matrix ({low:.3f} to {high:.3f})", fontsize=12)
    figure.colorbar(picture, ax=axes, label="sparsity", pad=0.01)
    for (x, y), cell in shown.items() if len(cells[0]) <= 16 else ():
        colour = "white" if cell < middle else "black"
        axes.text(x, y, f"{cell:.3f}", ha="center", va="center", fontsize=9, color=colour)


def _tidy(axes: Any, lines: str) -> None:
    axes.grid(axis=lines, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: int, height: int) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}" if value < 1e5 else f"{value:.0e}"


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=DPI)
    temporary.replace(path)
