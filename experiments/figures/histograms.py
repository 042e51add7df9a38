"""Which weights a method removes: histograms of weights and of its scores, removed and kept ones upon each other."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.figures import canvas, style
from experiments.figures.allocation import kind
from experiments.figures.values import pruned
from experiments.runs.archive import with_histograms
from experiments.summary.seeds import Group

ROWS = 8
BINS = 60  # as results.json has them, each a tenth of a decade
LOWEST = -4.0  # decades from the root mean square at which the first bin begins
WHATS = {"weight": "absolute weight", "score": "score"}


@dataclass(frozen=True)
class Histogram:
    """Shares of all weights in each bin, those removed and those kept: together they sum to 1."""

    removed: list[float]
    kept: list[float]

    @property
    def edges(self) -> list[float]:
        """The bins' edges in units of each matrix's root mean square; one more than there are bins."""
        return [10 ** (LOWEST + place / 10) for place in range(BINS + 1)]

    @property
    def span(self) -> tuple[float, float]:
        """The edges between which all bins lie that hold a thousandth of the weights."""
        full = [place for place in range(BINS) if self.removed[place] + self.kept[place] >= 1e-3]
        return self.edges[full[0]], self.edges[full[-1] + 1]

    @property
    def cut(self) -> float:
        """Where a cut by this number alone would remove as many weights."""
        goal, passed = sum(self.removed), 0.0
        for place, share in enumerate(map(sum, zip(self.removed, self.kept, strict=True))):
            if share and passed + share >= goal:
                return float(10 ** (LOWEST + (place + (goal - passed) / share) / 10))
            passed += share
        return self.edges[-1]

    @property
    def misplaced(self) -> float:
        """Share of the removed weights that lie above the cut: zero for a method that cuts by this number alone."""
        goal = sum(self.removed)
        passed = within = 0.0
        for removed, kept in zip(self.removed, self.kept, strict=True):
            if passed + removed + kept > goal:
                break
            passed, within = passed + removed + kept, within + removed
        inside = min(goal - passed, removed)
        return max(0.0, 1 - (within + inside) / goal) if goal else 0.0


@dataclass(frozen=True)
class Line:
    """A row of the picture: what it shows, and its histograms, "weight" and, where the method has one, "score"."""

    title: str
    histograms: dict[str, Histogram]


def add(layers: Iterable[dict[str, Any]], what: str) -> Histogram | None:
    """One histogram over matrices, each with its size as its weight; None where none has one."""
    removed, kept, total = [0.0] * BINS, [0.0] * BINS, 0.0
    for layer in layers:
        found = layer.get("histograms", {}).get(what)
        counted = sum(found["removed"]) + sum(found["kept"]) if found else 0
        if counted:
            size = layer["shape"][0] * layer["shape"][1]
            total += size
            for bins, counts in ((removed, found["removed"]), (kept, found["kept"])):
                for place, count in enumerate(counts):
                    bins[place] += count * size / counted
    return Histogram([b / total for b in removed], [b / total for b in kept]) if total else None


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


def both(layers: Sequence[dict[str, Any]]) -> dict[str, Histogram]:
    """What was counted of these matrices, "weight" and "score": one histogram each over all of them."""
    return {what: histogram for what in WHATS if (histogram := add(layers, what)) is not None}


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
