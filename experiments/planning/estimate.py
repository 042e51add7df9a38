"""What a run will take, from the model's shapes, the method's counts on small layers, and this machine's speed.

n = calibration sequences, t = tokens of each, h = hidden size.
"""

from dataclasses import dataclass
from typing import Any

from experiments import results
from experiments.evals.evaluator import Evaluator
from experiments.footprint import Written, amount, evaluated, footprint
from experiments.parts import Parts
from experiments.planning.anatomy import Anatomy, Body, Layer
from experiments.planning.gauge import SIZES, Gauge
from experiments.planning.speed import Speed
from experiments.planning.summing import PROBED, summing
from prune.method import Method
from prune.statistic import ModelStatistic


@dataclass(frozen=True)
class Windows:
    """Token windows that are evaluated. assumed: their number is a guess; dense: the dense model needs them, too."""

    name: str
    count: int
    length: int
    assumed: bool
    dense: bool


@dataclass(frozen=True)
class Work:
    """One run as it is going to be: n = sequences, t = length; 0 of them where a method reads no data."""

    body: Body
    method: Method
    gauge: Gauge
    sequences: int
    length: int
    batch: int
    granularity: str
    twin: bool
    given: bool
    together: int  # sequences in a batch of an evaluation
    windows: list[Windows]
    whole: bool  # whether an evaluation needs the whole model on the device
    surveyed: list[ModelStatistic]  # those that no run before it has found
    written: list[Written]  # on disk

    def units(self, block: Anatomy) -> list[list[Layer]]:
        """Linears that are solved behind the same statistics."""
        if self.granularity == "block":
            return [block.layers]
        inner = lambda layer: layer.name.removeprefix(f"{block.path}.").partition(".")[0]
        owner = inner if self.granularity == "submodule" else lambda layer: layer.leader
        found: dict[str, list[Layer]] = {}
        for layer in block.layers:
            found.setdefault(owner(layer), []).append(layer)
        return list(found.values())

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes over the calibration data, those that a survey makes once left out."""
        if not self.method.calibrated:
            return 0, 0
        units = len(self.units(self.body.blocks[0]))
        again = int(self.method.runs_block and units > 1)  # what enters the second unit is computed once more
        gathered = units if self.method.inputs else 1  # once tells which linears tokens reach
        return gathered + 1 + int(self.twin) + again + self.gauge.forward, self.gauge.backward

    @property
    def surveys(self) -> list[tuple[str, int, int]]:
        """What is found once on the dense model: its name, forward and backward passes of one sequence."""
        return [(type(s).__name__, *s.passes(self.sequences)) for s in self.surveyed]


def work(config: dict[str, Any], parts: Parts, body: Body, gauge: Gauge, known: set[str] | None = None) -> Work:
    """The run that a configuration asks for; `known`: what the runs before it leave in the cache, which it adds to."""
    known = set() if known is None else known
    rows, length = amount(parts.data, body.limit) if parts.method.calibrated else (0, 0)
    ahead = {name: e for name, e in parts.evaluators.items() if e.source}
    return Work(
        body,
        parts.method,
        gauge,
        rows,
        length,
        1 if parts.method.runs_block else min(config["batch"], max(rows, 1)),
        config["granularity"],
        parts.method.allocator.reference == "dense",
        bool(config["given"]),
        config["batch"],
        [_windows(config, name, e, body.limit, known) for name, e in ahead.items()],
        any(e.whole for e in parts.evaluators.values()),
        [s for s in parts.method.surveyed if _first(f"{config['model']} {config['data']} {s}", known)],
        footprint(config, parts, body.sizes),
    )


def _first(what: str, known: set[str]) -> bool:
    """Whether this is new; it is not the next time."""
    return not (what in known or known.add(what))


def _windows(config: dict[str, Any], name: str, evaluator: Evaluator, limit: int, known: set[str]) -> Windows:
    """What an evaluation reads, as far as its files tell: of a text its size alone."""
    step = results.dense_step(config, name)
    dense = _first(str(step), known) and not step.exists()
    return Windows(name, *evaluated(evaluator, limit), dense)


@dataclass(frozen=True)
class Spent:
    """A part of a run: floating-point operations, and seconds. least: if nothing but its matrix products took time."""

    name: str
    operations: float
    seconds: float
    least: float


def spent(work: Work, speed: Speed) -> list[Spent]:
    """The parts of a run that take time. Loading, tokenizing, writing and zero-shot tasks are not among them."""
    parts = [_survey(work, speed, *survey) for survey in work.surveys]
    if work.sequences:
        parts.append(_walked(work, speed))
    parts.append(_solved(work, speed))
    for windows in work.windows:
        parts.append(_evaluated(work.body, windows, speed))
    return parts


def _survey(work: Work, speed: Speed, name: str, forward: int, backward: int) -> Spent:
    operations = (forward + 2 * backward) * sum(block.graph.operations for block in work.body.blocks)
    return Spent(f"{name}, once", operations, operations / speed.running, operations / speed.running)


def _walked(work: Work, speed: Speed) -> Spent:
    """The passes over the calibration data, and what is added up on the way."""
    forward, backward = work.passes
    plain, n = forward - work.gauge.forward, work.sequences
    operations = seconds = least = 0.0
    for block in work.body.blocks:
        walked = plain * n * block.forward.operations
        run = (work.gauge.forward + 2 * backward) * n * block.graph.operations
        summed = 0.0
        traffic = plain * n * block.forward.traffic + (work.gauge.forward + 2 * backward) * n * block.graph.traffic
        for layer in inputs(block):
            for s in work.method.inputs:
                once = summing(s, layer.shape[1])
                tokens = layer.tokens * n * work.length / PROBED
                summed, traffic = summed + once[0] * tokens, traffic + once[1] * tokens
        calls = plain * block.forward.kernels * -(-n // work.batch) + (forward - plain) * n * block.graph.kernels
        operations += walked + run + summed
        least += walked / speed.rate + run / speed.running + summed / speed.summing
        seconds += traffic / speed.bandwidth + calls * speed.call
    return Spent("calibration", operations, least + seconds, least)


def _solved(work: Work, speed: Speed) -> Spent:
    """Deriving, scoring, choosing, updating."""
    operations = traffic = calls = 0.0
    gauge = work.gauge
    for block in work.body.blocks:
        for layer in block.layers:
            operations += gauge.of("operations", *layer.shape)
            traffic += gauge.of("traffic", *layer.shape)
            traffic += gauge.each * layer.shape[0] * layer.shape[1] * work.sequences
            calls += gauge.kernels[0] + gauge.kernels[1] * layer.shape[1]
        for layer in inputs(block):
            operations += gauge.deriving("operations", layer.shape[1])
            traffic += gauge.deriving("traffic", layer.shape[1])
    seconds = operations / speed.wide + slowness(gauge, speed) * traffic / speed.bandwidth + calls * speed.call
    return Spent("solving", operations, seconds, operations / speed.wide)


def slowness(gauge: Gauge, speed: Speed) -> float:
    """Measured seconds of a small layer over what its bytes would take: sorting is slower than copying."""
    o, i = SIZES[-1]
    products = gauge.of("operations", o, i) + gauge.deriving("operations", i)
    calls = gauge.kernels[0] + gauge.kernels[1] * i
    traffic = gauge.of("traffic", o, i) + gauge.deriving("traffic", i) + gauge.each * o * i
    left = gauge.seconds - products / speed.wide - calls * speed.call
    return min(max(left * speed.bandwidth / traffic, 1.0), 30.0) if traffic else 1.0


def _evaluated(body: Body, windows: Windows, speed: Speed) -> Spent:
    """Perplexity of the pruned model, and of the dense one where nobody has measured it."""
    head = 2.0 * windows.length * body.hidden * body.vocabulary
    times = windows.count * (1 + windows.dense)
    scale = windows.length / body.length
    operations = times * (scale * sum(block.forward.operations for block in body.blocks) + head)
    traffic = times * (
        scale * sum(block.forward.traffic for block in body.blocks) + 16 * windows.length * body.vocabulary
    )
    least = operations / speed.rate
    return Spent(f"eval={windows.name}", operations, least + traffic / speed.bandwidth, least)


def inputs(block: Anatomy) -> list[Layer]:
    """One linear for each tensor that linears of the block are fed."""
    return list({layer.leader: layer for layer in block.layers}.values())
