"""Sparsity by block and matrix, of methods that spread it unevenly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments.figures import canvas, heat, style
from experiments.figures.values import pruned
from experiments.runs.matrices import sparsities
from experiments.summary.rows import UNEVEN
from experiments.summary.seeds import Group

PANELS = 12
WRITTEN = 8  # blocks up to which a small panel has the values in its cells


@dataclass(frozen=True)
class Panel:
    """Matrix -> block -> sparsity, means over the seeds of one method."""

    title: str
    budget: str
    asked: float
    seeds: int
    blocks: list[str]
    matrices: dict[str, dict[str, float]]

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest sparsity of a matrix."""
        values = [value for line in self.matrices.values() for value in line.values()]
        return min(values), max(values)

    @property
    def reach(self) -> float:
        """How far a matrix is from the asked sparsity, at most."""
        return max(abs(end - self.asked) for end in self.span)


def endings(matrices: Sequence[str]) -> list[str]:
    """The last part of each name, where that tells them all apart."""
    last = [name.rpartition(".")[2] for name in matrices]
    return last if len(set(last)) == len(last) else list(matrices)


def panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each method whose matrices do not all have one sparsity."""
    found = []
    for one in pruned(groups):
        maps = [sparsities(record.results["layers"]) for record in one.records if record.results.get("layers")]
        each = [value for lines in maps for line in lines.values() for value in line.values()]
        if each and max(each) - min(each) >= UNEVEN:
            blocks = list(dict.fromkeys(layer["block"] for layer in one.records[0].results["layers"]))
            mean = {
                matrix: {block: fmean(lines[matrix][block] for lines in maps) for block in maps[0][matrix]}
                for matrix in maps[0]
            }
            titles = f"{one.method}, {one.model}", one.budget
            found.append(Panel(*titles, one.asked, len(maps), blocks, mean))
    return found


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws the panels, all with the same colours; False where every run has one sparsity throughout."""
    found = panels(groups)
    if not found:
        return False
    shown, columns = found[:PANELS], min(3, len(found))
    lines, most = -(-len(shown) // columns), max(len(panel.matrices) for panel in shown)
    figure = canvas.figure(height=120 + lines * (110 + 26 * max(most, 5)))
    reach = median(panel.reach for panel in shown)  # one extreme method must not take the colour from all others
    drawn = canvas.grid(figure, len(shown), columns)
    for axes, panel in zip(drawn, shown, strict=True):
        picture = _draw(axes, panel, max(reach, 0.05))
        canvas.title(axes, f"{panel.title}\n{panel.budget}: {panel.span[0]:.2f} to {panel.span[1]:.2f}", 1 / columns)
        axes.set_xlabel("block" * (panel in shown[-columns:]))
    bar = {"label": "sparsity above that asked", "extend": "both", "aspect": 40, "fraction": 0.03}
    figure.colorbar(picture, ax=drawn, pad=0.01, **bar)
    means = [f"means over {panel.seeds} seeds" for panel in shown if panel.seeds > 1][:1]
    canvas.footnote(figure, style.first([f"{p.title}, {p.budget}" for p in found], PANELS, "methods") + means)
    canvas.save(figure, place)
    return True


def _draw(axes: Any, panel: Panel, reach: float) -> Any:
    """Coloured is the distance from the asked sparsity, written is the sparsity."""
    cells = [[cell - panel.asked for cell in line] for line in heat.square(panel.matrices, panel.blocks)]
    write = (lambda cell: f"{cell + panel.asked:.2f}") if len(panel.blocks) <= WRITTEN else None
    return heat.heat(axes, endings(list(panel.matrices)), cells, (-reach, reach), write)
