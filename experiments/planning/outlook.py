"""The run that a configuration asks for, before it runs: the model's shapes, and the method's counts on small layers.

n = calibration sequences, t = tokens of each, h = hidden size.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from experiments.evals.evaluator import Evaluator
from experiments.models.load import unread
from experiments.planning.anatomy import Anatomy, Body, Layer, dissect
from experiments.planning.counting import summing
from experiments.planning.gauge import Gauge, gauge
from experiments.running import components
from experiments.running.components import Parts
from experiments.running.footprint import Sizes, Written, amount, evaluated, footprint
from experiments.runs import results
from prune.feeder import UNLIMITED
from prune.method import Method
from prune.statistic import ModelStatistic, PairedStatistic

LONGEST = 2048  # tokens of the sequence that blocks are run on where no data are read


@dataclass(frozen=True)
class Windows:
    """Token windows that are evaluated. assumed: their number is a guess; dense: the dense model needs them, too.

    copies: of the logits of a window in float32, beside them. reference: bytes of what a model is held against.
    what: what they are called.
    """

    name: str
    count: int
    length: int
    assumed: bool
    dense: bool
    copies: int = 1
    reference: float = 0.0
    what: str = "windows"


@dataclass(frozen=True)
class Work:
    """One run as it is going to be: n = sequences, t = length; 0 of them where a method reads no data.

    surveyed: the statistics of the dense model that no run before it has made. written: on disk. generated: whether the
    model writes its calibration text first, which no run before it has had it do.
    """

    config: dict[str, Any]
    parts: Parts
    body: Body
    gauge: Gauge
    sequences: int
    length: int
    windows: list[Windows]
    surveyed: list[ModelStatistic]
    written: list[Written]
    generated: bool = False

    @property
    def method(self) -> Method:
        """How it prunes."""
        return self.parts.method

    @property
    def twin(self) -> bool:
        """Whether the dense model's own stream is followed beside that of the pruned one."""
        return self.method.reference == "dense"

    @property
    def batch(self) -> int:
        """Calibration sequences that go through a block at once."""
        return 1 if self.method.runs_block else min(self.config["batch"], max(self.sequences, 1))

    @property
    def untimed(self) -> bool:
        """Whether it has tasks of lm-eval, of whose length nothing is known."""
        return any(evaluator.whole and evaluator.source is None for evaluator in self.parts.evaluators.values())

    def units(self, block: Anatomy) -> list[list[Layer]]:
        """Linears that are solved behind the same statistics."""
        if self.config["granularity"] == "block":
            return [block.layers]
        units: dict[str, list[Layer]] = {}
        for layer in block.layers:
            inner = layer.name.removeprefix(f"{block.path}.").partition(".")[0]
            units.setdefault(inner if self.config["granularity"] == "submodule" else layer.leader, []).append(layer)
        return list(units.values())

    @property
    def passes(self) -> tuple[float, float]:
        """Forward and backward passes over the calibration data, those that a survey makes once left out."""
        if not self.method.calibrated:
            return 0, 0
        units = len(self.units(self.body.blocks[0]))
        again = int(self.method.runs_block and units > 1)  # what enters the second unit is computed once more
        gathered = units if self.method.inputs else 1  # once tells which linears tokens reach
        gathered += int(any(isinstance(s, PairedStatistic) for s in self.method.inputs))
        return gathered + 1 + int(self.twin) + again + self.gauge.forward, self.gauge.backward

    @property
    def surveys(self) -> list[tuple[str, int, int]]:
        """What is learned once of the dense model: its name, forward and backward passes of one sequence."""
        return [(type(s).__name__, *s.passes(self.sequences)) for s in self.surveyed]


def outlook(config: dict[str, Any], known: set[str] | None = None) -> Work:
    """What a run will be; `known`: what the runs before it leave in the cache, which it adds to. Settles its device.

    ValueError or OSError in one line for one that cannot work.
    """
    device = config["device"] = components.device(config["device"])
    parts, model, given = components.build(config, weights=False), config["model"], bool(config["given"])
    length = amount(parts.data, UNLIMITED)[1] if parts.method.calibrated else LONGEST
    shapes = body(tuple(model.items()), length)
    if given:
        parts = replace(parts, method=parts.method.masked)
    matrices = {layer.name: layer.shape for block in shapes.blocks for layer in block.layers}
    parts.method.fits(config["allocator"]["sparsity"], matrices)
    return work(config, parts, shapes, gauge(parts.method, given, device), known)


@cache
def body(model: tuple[tuple[str, Any], ...], length: int) -> Body:
    """The model of these settings of conf/model, run on one sequence of `length` tokens, or of as many as it takes.

    ValueError or OSError in one line for a configuration that makes no model.
    """
    network = unread(dict(model))
    return dissect(network, min(length, network.limit))


def work(config: dict[str, Any], parts: Parts, body: Body, gauge: Gauge, known: set[str] | None = None) -> Work:
    """The run of these components on a model of this body."""
    known, limit = set() if known is None else known, body.sizes.limit
    rows, length = amount(parts.data, limit) if parts.method.calibrated else (0, 0)
    windows = [_windows(config, name, e, body.sizes, known) for name, e in parts.evaluators.items() if e.source]
    surveyed = [s for s in parts.method.surveyed if _first(f"{config['model']} {config['data']} {s}", known)]
    generated = bool(rows) and parts.data.generated and _first(f"{config['model']} {config['data']}", known)
    written = footprint(config, parts, body.sizes)
    return Work(config, parts, body, gauge, rows, length, windows, surveyed, written, generated)


def _first(what: str, known: set[str]) -> bool:
    """Whether this is new; it is not the next time."""
    new = what not in known
    known.add(what)
    return new


def _windows(config: dict[str, Any], name: str, evaluator: Evaluator, sizes: Sizes, known: set[str]) -> Windows:
    """What an evaluation reads, as far as its files tell: of a text its size alone."""
    step = (results.reference_file if evaluator.referred else results.dense_step)(config, name)
    dense = _first(str(step), known) and not step.exists()
    count, length, assumed = evaluated(evaluator, sizes.limit)
    size = evaluator.reference_size(count, length, sizes.vocabulary)
    what = "images" if evaluator.pictures else "windows"
    return Windows(name, count, length, assumed, dense, evaluator.copies, size, what)


def operations(work: Work) -> dict[str, dict[str, float]]:
    """Floating-point operations by part of the run, then by the rate of `Speed` that they are done at.

    Zero-shot tasks are not among them.
    """
    graph = sum(block.graph.operations for block in work.body.blocks)
    parts = {}
    for (name, out, back), statistic in zip(work.surveys, work.surveyed, strict=True):
        parts[f"{name}, once"] = {"running": (out + 2 * back) * graph + losses(work, statistic)}
    if work.generated:
        parts["data generation, once"] = {"rate": work.sequences * _forward(work.body, work.length)}
    if work.sequences:
        parts["calibration"] = _calibrating(work, graph)
    parts["solving"] = {"wide": sum(_solving(work.gauge, block) for block in work.body.blocks)}
    return parts | {f"eval={windows.name}": _evaluating(work.body, windows) for windows in work.windows}


def total_operations(work: Work) -> float:
    """Those of all parts."""
    return sum(sum(rates.values()) for rates in operations(work).values())


def losses(work: Work, statistic: ModelStatistic) -> float:
    """Operations of the head for a survey's losses, if it has them: differentiating once or twice doubles products."""
    sequences = statistic.passes(work.sequences)[0] // (1 + statistic.holds)
    return 2 * statistic.holds * sequences * logits(work.body, work.length)


def _calibrating(work: Work, graph: float) -> dict[str, float]:
    """The passes over the calibration data, and what is added up on the way."""
    forward, backward = work.passes
    plain, n = forward - work.gauge.forward, work.sequences
    rate = plain * n * sum(block.forward.operations for block in work.body.blocks)
    fed = [layer for block in work.body.blocks for layer in block.inputs]
    tokens = sum(summing(s, layer.shape[1]) * layer.tokens for layer in fed for s in work.method.inputs)
    running = (work.gauge.forward + 2 * backward) * n * graph
    return {"rate": rate, "running": running, "summing": tokens * n * work.length}


def _solving(gauge: Gauge, block: Anatomy) -> float:
    """Deriving, scoring, choosing, updating."""
    derived = sum(gauge.deriving(*layer.shape) for layer in block.inputs)
    return derived + sum(gauge.operations(*layer.shape) for layer in block.layers)


def _evaluating(body: Body, windows: Windows) -> dict[str, float]:
    """Perplexity of the pruned model, and of the dense one where nobody has measured it."""
    times = windows.count * (2 if windows.dense else 1)
    return {"rate": times * _forward(body, windows.length)}


def _forward(body: Body, length: int) -> float:
    """A sequence of so many tokens through the model, at once or one after the other, its logits included."""
    blocks = sum(block.forward.stretched(length / body.length).operations for block in body.blocks)
    return blocks + logits(body, length)


def logits(body: Body, length: int) -> float:
    """Operations of the head for a sequence of so many tokens."""
    return 2.0 * length * body.sizes.hidden * body.sizes.vocabulary
