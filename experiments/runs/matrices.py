"""The matrices of a run by what they are in their block: how sparse each is, and which of its weights were removed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.console.text import inline

BINS = 60  # as results.json has them, each a tenth of a decade
LOWEST = -4.0  # decades from the root mean square at which the first bin begins
WHATS = {"weight": "absolute weight", "score": "score"}


def sparsities(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Matrix -> block -> sparsity. Numbered siblings (experts) share a line, on which their mean by size stands."""
    sums: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for layer in entries:
        matrix, size = kind(layer), layer["shape"][0] * layer["shape"][1]
        removed, total = sums[matrix].get(layer["block"], (0.0, 0.0))
        sums[matrix][layer["block"]] = removed + layer["sparsity"] * size, total + size
    return {matrix: {block: a / b for block, (a, b) in places.items()} for matrix, places in sums.items()}


def kind(layer: dict[str, Any]) -> str:
    """What a matrix is in its block, such as mlp.up_proj, or mlp.experts.*.up_proj for a numbered one."""
    return inline(re.sub(r"\.\d+(?=\.|$)", ".*", layer["name"].removeprefix(layer["block"])).removeprefix("."))


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


def both(layers: Sequence[dict[str, Any]]) -> dict[str, Histogram]:
    """What was counted of these matrices, "weight" and "score": one histogram each over all of them."""
    return {what: histogram for what in WHATS if (histogram := add(layers, what)) is not None}
