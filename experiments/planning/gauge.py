"""What a method costs, counted while it solves small random layers, and scaled to any size: no method is named here.

o = out_features, i = in_features of a matrix; statistics of the input [i] are shared by all linears that are fed it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from experiments.planning.counting import Counts, count
from prune.lowest import searched
from prune.method import Linear, Method, Pruned, Survey, Unit
from prune.statistic import Gathered, Stats

SIZES = [(128, 256), (256, 256), (128, 384), (256, 384)]  # above the columns that updates take at once
TOKENS = 512  # enough for a Gram matrix that can be factorised
NAMES = ("blocks.0.one", "blocks.0.two")


@dataclass(frozen=True)
class Gauge:
    """What solving costs, as functions of the matrix [o, i].

    own: terms of each matrix, by count, for o i, o, i^2, i; operations for o i, o i^2, i^2, i^3. shared: terms of what
    is derived from the statistics of an input, for i and i^2; operations for i^2 and i^3. held: bytes for each weight
    and each row that stay while the other matrices are solved. forward: runs of the block for each sequence; backward:
    those that are differentiated.
    """

    own: dict[str, list[float]]
    shared: dict[str, list[float]]
    held: tuple[float, float]
    forward: int
    backward: int

    def of(self, name: str, o: int, i: int) -> float:
        """A count for one matrix whose statistics are there."""
        terms = [o * i, o * i**2, i**2, i**3] if name == "operations" else [o * i, o, i**2, i]
        return max(sum(a * b for a, b in zip(self.own[name], terms, strict=True)), 0.0)

    def holding(self, weights: int, rows: int) -> float:
        """Bytes that stay of matrices with so many weights and rows in all."""
        return max(self.held[0] * weights + self.held[1] * rows, 0.0)

    def deriving(self, name: str, i: int) -> float:
        """A count for what is derived from the statistics of one input."""
        low, high = (i**2, i**3) if name == "operations" else (i, i**2)
        return max(self.shared[name][0] * low + self.shared[name][1] * high, 0.0)


class Toy:
    """Random linears with everything that a method may ask of them; `forward` and `backward` count runs of a block."""

    def __init__(
        self, method: Method, shape: tuple[int, int], given: bool, linears: int = 1, sequences: int = 1
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        draw = lambda *size: torch.randn(size, generator=generator)
        self.method, self.forward, self.backward = method, 0, 0
        x, names = draw(TOKENS, shape[1]), NAMES[:linears]
        values: dict[Any, Any] = {s: s.of(x) for s in method.inputs}
        like = {s: s.empty(shape) for s in method.surveyed}
        look = {s: {name: draw(*e.shape).abs().to(e.dtype) for name in names} for s, e in like.items()}
        self.survey = Survey(dict.fromkeys(names, shape[0] * shape[1]), look)
        made = {}
        for name in names:
            stats = Stats(name, lambda: Gathered(values, TOKENS), look, torch.device("cpu"))
            made[name.rpartition(".")[2]] = Linear(name, draw(*shape), stats, method.metric, method.pattern)
        if given:
            sparsity = torch.tensor([method.allocator.sparsity])  # type: ignore[attr-defined]
            for linear in made.values():
                mask = method.pattern.select(linear.weight.abs(), sparsity)
                linear.given = Pruned(linear.weight.masked_fill(~mask, 0.0), mask)
        calls = [draw(1, 2, shape[1]) for _ in range(sequences)]
        self.unit = Unit(made, lambda: iter(calls), self._run, lambda call: call)

    def _run(self, call: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Stands for the block, which is counted elsewhere: every weight gets a gradient, and no product is made."""
        self.forward += 1
        self.backward += torch.is_grad_enabled()
        return call + torch.stack([weight.sum(0) for weight in weights.values()]).sum(0)

    def solve(self) -> Any:
        """The answers, and what was allotted."""
        allotted = self.method.allocator(self.unit, self.survey)
        for name, linear in self.unit.linears.items():
            linear.sparsity = allotted[name].sparsity
        return self.method.update(self.unit), allotted

    def counted(self) -> tuple[Counts, Counts]:
        """What deriving and solving cost together, and solving again alone."""
        return count(self.solve)[1], count(self.solve)[1]


@cache
def gauge(method: Method, given: bool, device: str = "cpu") -> Gauge:
    """Solve small layers with this method on the CPU, the way the device goes, and count; `given`: masks are given."""
    with nullcontext() if device == "cpu" else searched():
        deriving, solving = zip(*(Toy(method, shape, given).counted() for shape in SIZES), strict=True)
        two = [Toy(method, shape, given, linears=2).counted()[1].peak for shape in SIZES[1::2]]
        once, twice = (Toy(method, SIZES[-1], given, sequences=n) for n in (1, 2))
        once.solve(), twice.solve()
    beside = [peak - one.peak for peak, one in zip(two, solving[1::2], strict=True)]
    forward, backward = twice.forward - once.forward, twice.backward - once.backward
    shared = _shared([(deriving[k], solving[k]) for k in (0, 2)])
    return Gauge(
        {name: _own(name, solving) for name in ("operations", "peak")}, shared, _held(*beside), forward, backward
    )


def _own(name: str, solving: Sequence[Counts]) -> list[float]:
    """The terms that give these counts for SIZES."""
    rows = [[o * i, o * i**2, i**2, i**3] if name == "operations" else [o * i, o, i**2, i] for o, i in SIZES]
    return _fit(rows, [getattr(counts, name) for counts in solving])


def _held(narrow: float, wide: float) -> tuple[float, float]:
    """Bytes for each weight and each row, from what a second matrix of two widths takes beside the first."""
    (o, one), (_, other) = SIZES[1::2]
    weight = (wide - narrow) / (o * (other - one))
    return weight, narrow / o - weight * one


def _shared(pairs: Sequence[tuple[Counts, Counts]]) -> dict[str, list[float]]:
    """The terms of deriving, from counts with and without it for the two widths."""
    widths = [SIZES[0][1], SIZES[2][1]]
    costs = {
        "operations": [both.operations - alone.operations for both, alone in pairs],
        "left": [both.left - alone.left for both, alone in pairs],
        "peak": [  # of deriving alone, where that is the higher one
            both.peak if both.peak > alone.peak + (both.left - alone.left) else 0.0 for both, alone in pairs
        ],
    }
    powers = {"operations": (2, 3), "left": (1, 2), "peak": (1, 2)}
    return {name: _fit([[i**power for power in powers[name]] for i in widths], costs[name]) for name in costs}


def _fit(rows: list[list[int]], values: list[float]) -> list[float]:
    """The factors of the terms, a row of them for each value."""
    terms, sums = (torch.tensor(numbers, dtype=torch.float64) for numbers in (rows, values))
    return torch.linalg.solve(terms, sums).tolist()
