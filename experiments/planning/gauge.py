"""What a method costs, counted while it solves small random layers and scaled to any size, and timed while it solves
those of the model's own shapes: no method is named here.

o = out_features, i = in_features of a matrix; statistics of the input [i] are shared by all linears that are fed it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from experiments.planning.counting import Counts, count
from experiments.planning.pace import alone
from prune.lowest import searched
from prune.method import Linear, Method, Pruned, Unit
from prune.statistic import Gathered, ModelStatistic, Stats
from prune.survey import Survey

SIZES = [(128, 256), (256, 256), (128, 384), (256, 384)]  # above the columns that updates take at once
COUNTED, TIMED = (8, 16), (4, 12)  # sequences, of which some may be held out
TOKENS = 512  # enough for a Gram matrix that can be factorised
MOST = {"cpu": 2**20, "cuda": 2**26}  # weights of a matrix that is timed
ONE = "blocks.0.one"  # what a matrix is called
Powers = tuple[tuple[int, int], ...]  # of o and of i in each term
PRODUCTS = ((1, 1), (1, 2), (0, 2), (0, 3))  # what operations grow with
SPACES = ((1, 1), (1, 0), (0, 2), (0, 1))  # what bytes grow with


@dataclass(frozen=True)
class Fit:
    """A count of a matrix [o, i] as a sum of terms, each a factor times powers of o and i."""

    powers: Powers
    factors: list[float]

    @classmethod
    def through(cls, powers: Powers, shapes: Sequence[tuple[int, int]], counts: Sequence[float]) -> "Fit":
        """The one that has these counts for these shapes, as many as there are terms."""
        terms = [[o**a * i**b for a, b in powers] for o, i in shapes]
        factors = torch.linalg.solve(*(torch.tensor(numbers, dtype=torch.float64) for numbers in (terms, counts)))
        return cls(powers, factors.tolist())

    def __call__(self, o: int, i: int) -> float:
        """The count for a matrix of any size, which is not below 0."""
        terms = zip(self.powers, self.factors, strict=True)
        return max(sum(factor * o**a * i**b for (a, b), factor in terms), 0.0)


@dataclass(frozen=True)
class Gauge:
    """What solving a matrix costs: floating-point operations, bytes at their peak, and bytes that it keeps while others
    are solved. deriving, derived: operations and bytes of what is made of the statistics of an input, once for all
    linears that are fed it. forward: runs of the block for each sequence; backward: those that are differentiated.
    """

    operations: Fit
    peak: Fit
    kept: Fit
    deriving: Fit
    derived: Fit
    forward: float
    backward: float


class Toy:
    """Random linears with everything that a method may ask of them, `called` as in a model, for some methods leave out
    some; `forward` and `backward` count runs of a block.
    """

    def __init__(
        self,
        method: Method,
        shape: tuple[int, int],
        given: bool,
        linears: int = 1,
        sequences: int = 1,
        device: str = "cpu",
        called: str = ONE,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        draw = lambda *size: torch.randn(size, generator=generator).to(device)
        if getattr(method.quantizer, "group", None):  # need not divide a small width, and costs what one grid does
            method = replace(method, quantizer=replace(method.quantizer, group=None))
        self.method, self.device, self.forward, self.backward = method, device, 0, 0
        x, names = draw(TOKENS, shape[1]), [called, *(f"{called}.{k}" for k in range(1, linears))]
        values: dict[Any, Any] = {s: s.of(x) for s in method.inputs}
        like = {s: s.empty(shape) for s in method.surveyed}
        look = {s: {name: draw(*e.shape).abs().to("cpu", e.dtype) for name in names} for s, e in like.items()}
        self.survey = Survey(dict.fromkeys(names, shape[0] * shape[1]), look)
        made = {}
        for name in names:
            stats = Stats(name, lambda: Gathered(values, TOKENS), look, torch.device(device))
            linear = Linear(name, draw(*shape), stats, method.metric, method.pattern, quantizer=method.quantizer)
            made[name.removeprefix("blocks.0.")] = linear
        if given:
            sparsity = torch.tensor([method.allocator.sparsity], device=device)  # type: ignore[attr-defined]
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
            linear.sparsity = allotted[name].sparsity.to(linear.weight.device)
            self.unit.linears[name] = self.method.quantizer.before(linear)
        return self.method.quantizer(self.unit, self.method.update(self.unit)), allotted

    def timed(self) -> float:
        """Seconds of solving, and the first time of deriving, too."""
        return alone(self.solve, self.device)

    def counted(self) -> tuple[Counts, Counts]:
        """What deriving and solving cost together, and solving again alone."""
        return count(self.solve)[1], count(self.solve)[1]


@cache
def gauge(method: Method, given: bool, device: str = "cpu") -> Gauge:
    """Solve small layers with this method on the CPU, the way the device goes, and count; `given`: masks are given."""
    with nullcontext() if device == "cpu" else searched():
        both, solving = zip(*(Toy(method, shape, given).counted() for shape in SIZES), strict=True)
        pairs = [Toy(method, shape, given, linears=2).counted()[1] for shape in SIZES[1::2]]
        few, many = (Toy(method, SIZES[-1], given, sequences=n) for n in COUNTED)
        few.solve(), many.solve()
    first = list(zip(both, solving, strict=True))[::2]  # one of each width
    return Gauge(
        operations=Fit.through(PRODUCTS, SIZES, [counts.operations for counts in solving]),
        peak=Fit.through(SPACES, SIZES, [counts.peak for counts in solving]),
        kept=Fit.through(
            SPACES[:2], SIZES[1::2], [two.peak - one.peak for two, one in zip(pairs, solving[1::2], strict=True)]
        ),
        deriving=Fit.through(PRODUCTS[2:], SIZES[::2], [more.operations - less.operations for more, less in first]),
        derived=Fit.through(SPACES[2:], SIZES[::2], [more.left - less.left for more, less in first]),
        forward=(many.forward - few.forward) / (COUNTED[1] - COUNTED[0]),
        backward=(many.backward - few.backward) / (COUNTED[1] - COUNTED[0]),
    )


@dataclass(frozen=True)
class Timing:
    """Measured seconds of solving a matrix behind one calibration sequence, of each further one, and of deriving what
    is made of the statistics of an input, once for all linears that are fed it.
    """

    solving: float
    each: float
    deriving: float


@cache
def timing(method: Method, given: bool, shape: tuple[int, int], device: str, called: str = ONE) -> Timing:
    """Solve a random matrix of this shape and name on the device; of a large one a part, scaled as its operations."""
    part, costs = _part(shape, MOST[torch.device(device).type]), gauge(method, given, device)
    toy = Toy(method, part, given, device=device, called=called)
    both, solving, each = toy.timed(), toy.timed(), 0.0
    if method.runs_block:
        few, many = (Toy(method, part, given, sequences=n, device=device, called=called) for n in TIMED)
        each = max(many.timed() - few.timed(), 0.0) / (TIMED[1] - TIMED[0])
    size = shape[0] * shape[1] / (part[0] * part[1])
    more, products = costs.operations(*shape), costs.operations(*part)
    deriving, derived = costs.deriving(*shape), costs.deriving(*part)
    wider = deriving / derived if derived else (shape[1] / part[1]) ** 2
    return Timing(
        solving * max(more / products if products else 0.0, size), each * size, max(both - solving, 0.0) * wider
    )


@cache
def surveying(statistic: ModelStatistic, shape: tuple[int, int], device: str) -> float:
    """Seconds that a statistic that reads no data takes for a matrix, measured as those of `timing`."""
    part = _part(shape, MOST[torch.device(device).type])
    model = OneMatrix(torch.randn(part, generator=torch.Generator().manual_seed(0)).to(device))
    whole, cubes = (o * i * min(o, i) for o, i in (shape, part))  # of a decomposition
    return alone(lambda: list(statistic.of(model, None)), device) * whole / cubes


class OneMatrix:
    """A network of one block with one matrix, as far as a statistic that reads no data asks it."""

    path = "blocks.0"

    def __init__(self, weight: Tensor) -> None:
        self.weights = {"one": weight}

    def walk(self) -> "list[OneMatrix]":
        """Its only block."""
        return [self]

    def refuse_damaged(self, names: Any) -> None:
        """It is not damaged."""

    def full_name(self, name: str) -> str:
        """A matrix by its name in the model."""
        return f"{self.path}.{name}"


def _part(shape: tuple[int, int], most: int) -> tuple[int, int]:
    """A shape of at most so many weights, of about the same ratio; whole groups of any pattern."""
    o, i = shape
    while o * i > most:
        o, i = -(-o // 2), -(-i // 32) * 16
    return o, i
