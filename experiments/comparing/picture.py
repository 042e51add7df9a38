"""Two runs by depth: errors and sparsities of both, and how much of what they removed is the same."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from experiments.comparing.layers import Layer, grouped
from experiments.figures import canvas, heat, style

LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.COLOURS[0], "marker": "o", "linestyle": "-", "markeredgecolor": "white", "markersize": 8},
    {"color": style.COLOURS[1], "marker": "s", "linestyle": "--", "markeredgecolor": "white", "markersize": 7},
)
LONGEST = 70  # letters of a name in the legend
WRITTEN = 16  # blocks up to which the shares are written into their cells
MARKED = 32  # blocks up to which each is a dot on the line
EVEN = 0.1  # least span of an axis of sparsities and of the colours: a smaller one would show rounding


def draw(names: tuple[str, str], errors: Sequence[Mapping[str, float]], layers: Sequence[Layer], place: Path) -> bool:
    """Writes <place>.png, .pdf and .svg; False where there are no errors and no layers.

    names: of A and B; errors: of each, block -> relative squared error of its output.
    """
    by_block = grouped(layers, lambda layer: layer.block)
    blocks = list(dict.fromkeys([*by_block, *errors[0], *errors[1]]))
    sparsities = [{name: layer.sparsities[side] for name, layer in by_block.items()} for side in (0, 1)]
    lines = [
        ("distance from the dense block's output", "relative squared error", errors),
        ("share of each block's weights removed", "sparsity", sparsities),
    ]
    lines = [panel for panel in lines if any(map(_known, (value for side in panel[2] for value in side.values())))]
    kinds = list(grouped((layer for layer in layers if layer.common is not None), lambda layer: layer.matrix))
    if not blocks or not lines:
        return False
    heights = [300] + [70 + 34 * len(kinds)] * bool(kinds)
    figure = canvas.figure(height=90 + sum(heights))
    grid = figure.add_gridspec(len(heights), len(lines), height_ratios=heights)
    for column, panel in enumerate(lines):
        _lines(figure.add_subplot(grid[0, column]), panel, blocks, 1 / len(lines))
    if kinds:
        _overlap(figure, figure.add_subplot(grid[1, :]), layers, blocks, kinds)
    canvas.legend(figure, [(style.short(name, LONGEST), look) for name, look in zip(names, LOOKS, strict=True)])
    canvas.save(figure, place)
    return True


def _known(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _lines(axes: Any, panel: tuple[str, str, Any], blocks: list[str], width: float) -> None:
    title, unit, sides = panel
    values = [[side[block] if _known(side.get(block)) else nan for block in blocks] for side in sides]
    plain = {"marker": ""} if len(blocks) > MARKED else {}
    for line, look in zip(values, LOOKS, strict=True):
        axes.plot(range(len(blocks)), line, linewidth=1.8, **(look | plain))
    known = [value for line in values for value in line if isfinite(value)]
    canvas.scale(axes.yaxis, *heat.limits(known, EVEN if unit == "sparsity" else 0.0))
    axes.set(xlabel="block, from the input to the output", ylabel=unit, xlim=(-0.5, len(blocks) - 0.5))
    canvas.whole(axes.xaxis)
    canvas.title(axes, title, width)
    canvas.tidy(axes, "both")


def _overlap(figure: Any, axes: Any, layers: Sequence[Layer], blocks: list[str], kinds: list[str]) -> None:
    """Share of the removed weights that both removed: a row for each kind of matrix, a column for each block."""
    cells: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    for kind in kinds:
        members = grouped([layer for layer in layers if layer.matrix == kind], lambda layer: layer.block)
        cells[kind] = {block: layer.common for block, layer in members.items() if layer.common is not None}
    write = "{:.2f}".format if len(blocks) <= WRITTEN else None
    limits = heat.limits([share for line in cells.values() for share in line.values()], EVEN)
    over = max(limits[1] - 1.0, 0.0)
    limits = limits[0] - over, limits[1] - over
    picture = heat.heat(axes, [style.short(kind) for kind in kinds], heat.square(cells, blocks), limits, write)
    chances = [layer.random for layer in layers if layer.random is not None]
    random = f"{min(chances):.2f}" + f" to {max(chances):.2f}" * (max(chances) - min(chances) >= 0.005)
    canvas.title(axes, f"share of the removed weights that both runs removed (random masks: {random})")
    axes.set_xlabel("block, from the input to the output")
    figure.colorbar(picture, ax=axes, label="share in common", pad=0.01)
