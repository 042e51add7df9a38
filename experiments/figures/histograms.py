"""Which weights a method removes: histograms of weights and of its scores, removed and kept ones upon each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.figures import canvas, style
from experiments.figures.values import pruned
from experiments.runs.matrices import WHATS, Histogram, both, kind
from experiments.runs.record import with_histograms
from experiments.summary.seeds import Group

ROWS = 8


@dataclass(frozen=True)
class Line:
    """A row of the picture: what it shows, and its histograms, "weight" and, where the method has one, "score"."""

    title: str
    histograms: dict[str, Histogram]


def lines(groups: Sequence[Group]) -> list[Line]:
    """A row for each of these over all its matrices; for a single one, one for each kind of matrix too."""
    found = []
    for group in groups:
        layers = [layer for record in group.records for layer in with_histograms(record.folder)]
        found += [Line(_title(group), both(layers))] if layers else []
        for name in dict.fromkeys(map(kind, layers)) if len(groups) == 1 else ():
            found.append(Line(name, both([layer for layer in layers if kind(layer) == name])))
    return found


def _title(group: Group) -> str:
    return f"{group.method}, {group.model}, {group.budget}"


def draw(groups: Sequence[Group], place: Path) -> bool:
    """Draws a row for each method, weights at the left, scores at the right; False where no run has histograms."""
    told = [group for group in pruned(groups) if (group.records[0].folder / "steps" / "blocks").is_dir()]
    shown = lines(_chosen(told))[:ROWS]
    if not shown:
        return False
    whats = [what for what in WHATS if any(what in line.histograms for line in shown)]
    figure = canvas.figure(height=130 + 190 * len(shown))
    colours = {"removed": style.COLOURS[1], "kept": style.COLOURS[0]}
    canvas.legend(figure, [(name, {"bar": colour}) for name, colour in colours.items()])
    grid = figure.subplots(len(shown), len(whats), squeeze=False, sharex="col")
    for row, line in zip(grid, shown, strict=True):
        canvas.title(row[0], line.title, 1 / len(whats))
        for axes, what in zip(row, whats, strict=True):
            if what in line.histograms:
                _draw(axes, line.histograms[what], colours)
            else:
                axes.text(0.5, 0.5, "no score: its masks come from another run", ha="center", transform=axes.transAxes)
                axes.set_axis_off()
    for axes, what in zip(grid[-1], whats, strict=True):
        axes.set_xlabel(f"{WHATS[what]} / root mean square of its matrix")
        ends = [end for line in shown if what in line.histograms for end in line.histograms[what].span]
        canvas.scale(axes.xaxis, min(ends), max(ends), wide=1)
    left = [title for title in map(_title, told) if title not in {line.title for line in shown}]
    canvas.footnote(figure, style.first(left, 0, "methods and budgets"))
    canvas.save(figure, place)
    return True


def _chosen(groups: Sequence[Group]) -> list[Group]:
    """So many groups, first one of every method, then the others, in their order."""
    turns: Counter[str] = Counter()
    places = []
    for place, group in enumerate(groups):
        places.append((turns[group.method], place))
        turns[group.method] += 1
    return [groups[place] for place in sorted(place for _, place in sorted(places)[:ROWS])]


def _draw(axes: Any, histogram: Histogram, colours: dict[str, str]) -> None:
    edges = histogram.edges
    removed = [100 * share for share in histogram.removed]
    kept = [100 * share for share in histogram.kept]
    axes.stairs(removed, edges, fill=True, color=colours["removed"])
    both = [a + b for a, b in zip(removed, kept, strict=True)]
    axes.stairs(both, edges, baseline=removed, fill=True, color=colours["kept"])
    axes.set_ylim(0, 1.5 * max(both))
    axes.axvline(histogram.cut, color="black", linestyle=(0, (6, 3)), linewidth=1.2)
    note = f"{100 * histogram.misplaced:.0f} % of the removed\nlie above this cut"
    axes.annotate(note, (histogram.cut, 1), xycoords=("data", "axes fraction"), xytext=(5, -3), va="top", fontsize=9,
                  textcoords="offset points")  # fmt: skip
    canvas.tidy(axes, "y")
    axes.set_ylabel("% of weights")
