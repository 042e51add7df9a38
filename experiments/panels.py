"""What the pictures show, as numbers."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from experiments.table import Row, Value


@dataclass(frozen=True)
class Panel:
    """The pruned runs that share a model and a metric (finite values, realised sparsities), and the dense value."""

    title: str
    dense: float | None
    points: list[tuple[Row, Value, float]]
    lost: list[str]

    @classmethod
    def of(cls, model: str, metric: str, rows: list[Row]) -> "Panel":
        """Takes what belongs to it from the table's rows; `lost` names the runs that diverged."""
        mine = [row for row in rows if row.model == model and metric in row.values]
        dense = [row.values[metric].value for row in mine if row.method == "dense"]
        known = [
            (row, row.values[metric], row.sparsity)
            for row in mine
            if row.method != "dense" and row.sparsity is not None
        ]
        lost = sorted({f"{row.method} {row.pattern}" for row, value, _ in known if not math.isfinite(value.value)})
        baseline = next(filter(math.isfinite, dense), None)
        return cls(f"{model}, {metric}", baseline, [point for point in known if math.isfinite(point[1].value)], lost)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value, standard errors and the dense value included."""
        ends = [value.value + sign * (value.error or 0.0) for _, value, _ in self.points for sign in (-1, 0, 1)]
        values = [end for end in ends if 0 < end < math.inf] + ([] if self.dense is None else [self.dense])
        return min(values, default=1.0), max(values, default=1.0)

    @property
    def level(self) -> bool:
        """Whether all points have the same sparsity."""
        return len({round(sparsity, 2) for _, _, sparsity in self.points}) < 2


def sparsities(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Matrix -> block -> sparsity. Numbered siblings (experts) share a line, on which their mean by size stands."""
    sums: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for layer in entries:
        matrix = re.sub(r"\.\d+(?=\.|$)", ".*", layer["name"].removeprefix(layer["block"])).removeprefix(".")
        size = layer["shape"][0] * layer["shape"][1]
        removed, total = sums[matrix].get(layer["block"], (0.0, 0.0))
        sums[matrix][layer["block"]] = removed + layer["sparsity"] * size, total + size
    return {matrix: {block: a / b for block, (a, b) in places.items()} for matrix, places in sums.items()}
