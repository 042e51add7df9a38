"""Two runs by depth: errors and sparsities of both, and how much of what they removed is the same."""

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, nan

from experiments.comparing.comparison import Comparison
from experiments.comparing.layers import Layer, grouped
from experiments.figures import canvas

LOOKS = tuple(look | {"linestyle": line} for look, line in zip(canvas.looks("AB").values(), ("-", "--"), strict=True))
LONGEST = 70  # letters of a name in the legend
MARKED = 32  # blocks up to which each is a dot on the line
EVEN = 0.1  # least span of an axis of sparsities and of the colours: a smaller one would show rounding
SPARSITY, ERROR = "sparsity", "relative squared error"
TITLES = {ERROR: "distance from the dense block's output", SPARSITY: "share of each block's weights removed"}
Side = Mapping[str, float]  # block -> value of one run


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Lines of both runs above a heat map of what they have in common; None where there are no errors and no layers."""
    by_block = grouped(comparison.layers, lambda layer: layer.block)
    blocks = list(dict.fromkeys([*by_block, *comparison.errors[0], *comparison.errors[1]]))
    sparsities = [{name: layer.sparsities[side] for name, layer in by_block.items()} for side in (0, 1)]
    panels = {ERROR: comparison.errors, SPARSITY: sparsities}
    panels = {unit: sides for unit, sides in panels.items() if any(map(_finite, sides))}
    if not panels:
        return None
    masks = [layer for layer in comparison.layers if not isnan(layer.common)]
    kinds = list(grouped(masks, lambda layer: layer.kind))
    heights = [300, 70 + 34 * len(kinds)] if kinds else [300]
    figure = canvas.figure(90 + sum(heights))
    grid = figure.add_gridspec(len(heights), len(panels), height_ratios=heights)
    for column, (unit, sides) in enumerate(panels.items()):
        _lines(figure.add_subplot(grid[0, column]), unit, sides, blocks)
    if kinds:
        _overlap(figure.add_subplot(grid[1, :]), masks, blocks, kinds)
    canvas.legend(figure, dict(zip(comparison.names, LOOKS, strict=True)), LONGEST)
    return figure


def _finite(side: Side) -> list[float]:
    return [value for value in side.values() if isfinite(value)]


def _lines(axes: canvas.Axes, unit: str, sides: Sequence[Side], blocks: list[str]) -> None:
    for side, look in zip(sides, LOOKS, strict=True):
        marker = look["marker"] if len(blocks) <= MARKED else ""
        values = [side.get(block, nan) for block in blocks]
        axes.plot(range(len(blocks)), values, linewidth=1.8, **look | {"marker": marker})
    values = [value for side in sides for value in _finite(side)]
    canvas.scale(axes, "y", canvas.limits(values, EVEN) if unit == SPARSITY else values)
    axes.set(xlabel="block, from the input to the output", ylabel=unit, xlim=(-0.5, len(blocks) - 0.5))
    canvas.whole(axes)
    canvas.title(axes, TITLES[unit])


def _overlap(axes: canvas.Axes, masks: Sequence[Layer], blocks: list[str], kinds: list[str]) -> None:
    """Share of the removed weights that both removed: a row for each kind of matrix, a column for each block."""
    cells = {}
    for kind in kinds:
        members = grouped((layer for layer in masks if layer.kind == kind), lambda layer: layer.block)
        cells[kind] = {block: layer.common for block, layer in members.items()}
    low, high = canvas.limits((share for line in cells.values() for share in line.values()), EVEN)
    over = max(high - 1.0, 0.0)
    picture = canvas.heat(axes, cells, blocks, "{:.2f}".format, clim=(low - over, high - over))
    chances = [layer.random for layer in masks]
    random = " to ".join(dict.fromkeys(f"{chance:.2f}" for chance in (min(chances), max(chances))))
    canvas.title(axes, f"share of the removed weights that both runs removed (random masks: {random})")
    axes.set_xlabel("block, from the input to the output")
    axes.figure.colorbar(picture, ax=axes, label="share in common", pad=0.01)
