"""Which weights a method removes: histograms of weights and of its scores, removed and kept ones upon each other."""

from collections.abc import Sequence

from experiments.figures import canvas
from experiments.figures.values import pruned
from experiments.runs.record import WHATS, Histogram, joined_histograms, kind, with_histograms
from experiments.summary.seeds import Group

ROWS = 8
COLOURS = {"removed": canvas.COLOURS[1], "kept": canvas.COLOURS[0]}


def rows(groups: Sequence[Group]) -> dict[str, dict[str, Histogram]]:
    """For each of these its histograms over all matrices, "weight" and, where the method has one, "score".

    A single one has a row for each kind of matrix too.
    """
    titles = {}
    for group in groups:
        layers = [layer for record in group.records for layer in with_histograms(record.folder)]
        if layers:
            titles[_title(group)] = joined_histograms(layers)
        if len(groups) == 1:
            for name in dict.fromkeys(map(kind, layers)):
                titles[name] = joined_histograms([layer for layer in layers if kind(layer) == name])
    return titles


def _title(group: Group) -> str:
    return f"{group.method}, {group.model}, {group.budget}"


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """A row for each method, weights at the left, scores at the right; None where no run has histograms."""
    counted = [group for group in pruned(groups) if (group.records[0].folder / "steps" / "blocks").is_dir()]
    shown = dict(list(rows(counted[:ROWS]).items())[:ROWS])
    if not shown:
        return None
    whats = [what for what in WHATS if any(what in histograms for histograms in shown.values())]
    figure = canvas.figure(130 + 190 * len(shown))
    canvas.legend(figure, {name: canvas.area(colour) for name, colour in COLOURS.items()})
    grid = figure.subplots(len(shown), len(whats), squeeze=False, sharex="col")
    for line, (title, histograms) in zip(grid, shown.items(), strict=True):
        canvas.title(line[0], title)
        for axes, what in zip(line, whats, strict=True):
            if what in histograms:
                _draw(axes, histograms[what])
            else:
                axes.text(0.5, 0.5, "no score: its masks come from another run", ha="center", transform=axes.transAxes)
                axes.set_axis_off()
    for axes, what in zip(grid[-1], whats, strict=True):
        axes.set_xlabel(f"{WHATS[what]} / root mean square of its matrix")
        ends = [end for histograms in shown.values() if what in histograms for end in histograms[what].span]
        canvas.scale(axes, "x", ends, wide=1.0)
    canvas.footnote(figure, canvas.left_out({_title(group): () for group in counted}, ROWS))
    return figure


def _draw(axes: canvas.Axes, histogram: Histogram) -> None:
    removed = [100 * share for share in histogram.removed]
    total = [100 * (a + b) for a, b in zip(histogram.removed, histogram.kept, strict=True)]
    axes.stairs(removed, histogram.edges, fill=True, color=COLOURS["removed"])
    axes.stairs(total, histogram.edges, baseline=removed, fill=True, color=COLOURS["kept"])
    axes.set(ylim=(0, 1.5 * max(total)), ylabel="% of weights")
    note = f"{100 * histogram.misplaced:.0f} % of the removed\nlie above this cut"
    canvas.level(axes, histogram.cut, note, upright=True)
