"""Which weights a method removes: histograms of weights and of its scores, removed and kept ones upon each other."""

from collections import Counter
from collections.abc import Sequence
from math import inf, isfinite, nan
from typing import Any

from experiments.console.text import some
from experiments.figures import canvas
from experiments.figures.values import pruned, sign
from experiments.runs.record import WHATS, Histogram, joined_histograms, kind, with_histograms
from experiments.summary.seeds import Group
from experiments.summary.shared import main_metrics

ROWS = 8
COLOURS = {"removed": "#8A8A8A", "kept": "#DCDCDC"}  # methods have colours


def chosen(groups: Sequence[Group]) -> tuple[list[Group], list[str]]:
    """The settings that have a row, and which of how many they are, and why these.

    Where not all have room: those of the model and budget that most share (of several, the first in the report), the
    best by the model's main metric first; then those of the next one.
    """
    counted = [group for group in pruned(groups) if (group.records[0].folder / "steps" / "blocks").is_dir()]
    counted = [group for group in counted if group.target]  # others are quantised alone: nothing is removed
    if len(counted) <= ROWS:
        return counted, []
    metrics, places = main_metrics(groups), Counter((group.model, group.budget) for group in counted)
    order = [place for place, _ in places.most_common()]

    def rank(group: Group) -> tuple[int, float]:
        metric = metrics.get(group.model, "")
        value = group.means[metric].value if metric in group.means else nan
        return order.index((group.model, group.budget)), sign(metric) * value if isfinite(value) else inf

    shown = sorted(counted, key=rank)[:ROWS]
    budgets = dict.fromkeys(f"{group.budget} of {group.model}" for group in shown)
    by = dict.fromkeys(metrics[group.model] for group in shown if group.model in metrics)
    return shown, [
        f"{ROWS} of {len(counted)} settings: the best by {some(by, 3)} at the budgets that most of them share:"
        f" {some(budgets, 3)}"
    ]


def rows(groups: Sequence[Group]) -> dict[str, dict[str, Histogram]]:
    """For each of these its histograms over all matrices, "weight" and, where the method has one, "score".

    A single one has a row for each kind of matrix too. Titles say how many matrices of how many runs were counted.
    """
    titles = {}
    for group in groups:
        layers = [layer for record in group.records for layer in with_histograms(record.folder)]
        if layers:
            name = f"{group.method}, {group.model}, {group.budget}"
            titles[f"{name}: {_counted(layers, group)}"] = joined_histograms(layers)
        if len(groups) == 1:
            for name in dict.fromkeys(map(kind, layers)):
                own = [layer for layer in layers if kind(layer) == name]
                titles[f"{name}: {_counted(own, group)}"] = joined_histograms(own)
    return titles


def _counted(layers: Sequence[dict[str, Any]], group: Group) -> str:
    number, seeds = len({layer["name"] for layer in layers}), len(group.records)
    matrices = "1 matrix" if number == 1 else f"{number} matrices"
    return f"{matrices}, {seeds} seeds" if seeds > 1 else matrices


def draw(groups: Sequence[Group]) -> canvas.Figure | None:
    """A row for each method, weights at the left, scores at the right; None where no run has histograms."""
    members, notes = chosen(groups)
    every = rows(members)
    shown = dict(list(every.items())[:ROWS])
    if not shown:
        return None
    whats = [what for what in WHATS if any(what in histograms for histograms in shown.values())]
    figure = canvas.figure(130 + 190 * len(shown))
    canvas.legend(figure, {name: canvas.area(colour) for name, colour in COLOURS.items()})
    grid = figure.subplots(len(shown), len(whats), squeeze=False, sharex="col")
    for line, (title, histograms) in zip(grid, shown.items(), strict=True):
        canvas.title(line[0], title, letters=300)  # nothing stands at its right
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
    canvas.footnote(figure, [*notes, *canvas.left_out(dict.fromkeys(every, ()), ROWS)])
    return figure


def _draw(axes: canvas.Axes, histogram: Histogram) -> None:
    removed = [100 * share for share in histogram.removed]
    total = [100 * (a + b) for a, b in zip(histogram.removed, histogram.kept, strict=True)]
    axes.stairs(removed, histogram.edges, fill=True, color=COLOURS["removed"])
    axes.stairs(total, histogram.edges, baseline=removed, fill=True, color=COLOURS["kept"])
    axes.set(ylim=(0, 1.5 * max(total)), ylabel="% of weights")
    note = f"{100 * histogram.misplaced:.0f} % of the removed\nlie above this cut"
    canvas.level(axes, histogram.cut, note, upright=True)
