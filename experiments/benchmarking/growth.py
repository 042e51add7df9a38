"""How cost grows with tokens, width and depth: the exponent of a power law through the measured times."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from experiments.benchmarking import cases
from experiments.benchmarking.cases import SIZES, Case
from experiments.benchmarking.costs import Cost, costs

FACTORS = {"tokens": (1, 4, 16), "width": (1, 2, 4), "depth": (1, 2, 4)}
BASE = Case("small", 1, 4, 128)


def grown(what: str, factor: int) -> Case:
    """The base case with so many times more tokens, width or depth."""
    if what == "tokens":
        return replace(BASE, sequences=BASE.sequences * factor)
    if what == "depth":
        return replace(BASE, blocks=factor)
    hidden, inner, heads, shared, depth = SIZES[BASE.size]
    cases.SIZES[f"small*{factor}"] = (hidden * factor, inner * factor, heads * factor, shared * factor, depth)
    return replace(BASE, size=f"small*{factor}")


def growth(
    methods: Iterable[str], device: str, dtype: str, folder: Path, repeats: int
) -> Iterator[tuple[str, str, list[Cost], float]]:
    """For each method and axis: the costs at each factor, and the exponent of time."""
    for method in methods:
        for what, factors in FACTORS.items():
            found = [next(iter(costs(grown(what, f), [method], device, dtype, folder, repeats))) for f in factors]
            yield method, what, found, exponent(factors, [cost.seconds for cost in found])


def exponent(factors: Iterable[float], seconds: Iterable[float]) -> float:
    """The slope of log seconds over log factor, by least squares."""
    points = [(math.log(x), math.log(y)) for x, y in zip(factors, seconds, strict=True)]
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    return sum((x - middle[0]) * (y - middle[1]) for x, y in points) / sum((x - middle[0]) ** 2 for x, _ in points)
