"""What a run will do, from the model's shapes and the method's counts on small layers.

n = calibration sequences, t = tokens of each, h = hidden size.
"""

from dataclasses import dataclass
from typing import Any

from experiments.evals.evaluator import Evaluator
from experiments.planning.anatomy import Anatomy, Body, Layer
from experiments.planning.counting import summing
from experiments.planning.gauge import Gauge
from experiments.running.components import Parts
from experiments.running.footprint import Written, amount, evaluated, footprint
from experiments.runs import results
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


def operations(work: Work) -> dict[str, dict[str, float]]:
    """Floating-point operations by part of the run, then by the rate of `Speed` that they are done at.

    Zero-shot tasks are not among them.
    """
    graph = sum(block.graph.operations for block in work.body.blocks)
    parts = {f"{name}, once": {"running": (out + 2 * back) * graph} for name, out, back in work.surveys}
    if work.sequences:
        parts["calibration"] = _walked(work, graph)
    parts["solving"] = {"wide": sum(_solved(work.gauge, block) for block in work.body.blocks)}
    return parts | {f"eval={windows.name}": _evaluated(work.body, windows) for windows in work.windows}


def total_operations(work: Work) -> float:
    """Those of all parts."""
    return sum(sum(rates.values()) for rates in operations(work).values())


def _walked(work: Work, graph: float) -> dict[str, float]:
    """The passes over the calibration data, and what is added up on the way."""
    forward, backward = work.passes
    plain, n = forward - work.gauge.forward, work.sequences
    rate = plain * n * sum(block.forward.operations for block in work.body.blocks)
    fed = [layer for block in work.body.blocks for layer in inputs(block)]
    tokens = sum(summing(s, layer.shape[1]) * layer.tokens for layer in fed for s in work.method.inputs)
    running = (work.gauge.forward + 2 * backward) * n * graph
    return {"rate": rate, "running": running, "summing": tokens * n * work.length}


def _solved(gauge: Gauge, block: Anatomy) -> float:
    """Deriving, scoring, choosing, updating."""
    derived = sum(gauge.deriving("operations", layer.shape[1]) for layer in inputs(block))
    return derived + sum(gauge.of("operations", *layer.shape) for layer in block.layers)


def _evaluated(body: Body, windows: Windows) -> dict[str, float]:
    """Perplexity of the pruned model, and of the dense one where nobody has measured it."""
    blocks = windows.length / body.length * sum(block.forward.operations for block in body.blocks)
    head = 2.0 * windows.length * body.hidden * body.vocabulary
    return {"rate": windows.count * (1 + windows.dense) * (blocks + head)}


def inputs(block: Anatomy) -> list[Layer]:
    """One linear for each tensor that linears of the block are fed."""
    return list({layer.leader: layer for layer in block.layers}.values())
