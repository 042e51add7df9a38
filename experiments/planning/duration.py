"""How long a run will take on this machine if nothing else runs: what is counted at measured rates, solving measured.

Not among it are reading the model and the texts, tasks of lm-eval, audits, and saving.
"""

from experiments.planning.anatomy import Layer
from experiments.planning.counting import Counts, summing_traffic
from experiments.planning.gauge import surveying, timing
from experiments.planning.outlook import Windows, Work, logits, losses, operations
from experiments.planning.pace import Pace, pace
from prune.matrices import numberless
from prune.statistic import ModelStatistic

LOSS = 16  # bytes that are read and written for each logit of a window


def seconds(work: Work) -> dict[str, float]:
    """Estimated seconds of each part of a run on its device, which this measures first; the parts of `operations`."""
    shapes = {layer.shape for layer in _layers(work)}
    now = pace(tuple(sorted(shapes)), work.batch, work.body.length, work.body.dtype, work.config["device"])
    parts = {f"{type(s).__name__}, once": _surveying(work, s, now) for s in work.surveyed}
    if work.generated:
        parts["data generation, once"] = _generating(work, now)
    if work.sequences:
        parts["calibration"] = _calibrating(work, now)
    parts["solving"] = _solving(work)
    return parts | {f"eval={windows.name}": _evaluating(work, windows, now) for windows in work.windows}


def _layers(work: Work) -> list[Layer]:
    return [layer for block in work.body.blocks for layer in block.layers]


def _through(counts: Counts, rate: float, now: Pace, together: int = 1) -> float:
    """A sequence through a block, `together` with others, its products at this rate."""
    products = (counts.operations - counts.attention) / rate + counts.attention / now.attention
    return products + counts.traffic / now.traffic + counts.calls / together / now.calls


def _graphs(work: Work, now: Pace) -> float:
    """A sequence through all blocks in float32, with a graph."""
    return sum(_through(block.graph, now.running, now) for block in work.body.blocks)


def _surveying(work: Work, statistic: ModelStatistic, now: Pace) -> float:
    """What is learned once of the dense model: from its matrices alone, or by passes and, for a loss, its head."""
    if not statistic.data:
        return sum(surveying(statistic, layer.shape, work.config["device"]) for layer in _layers(work))
    out, back = statistic.passes(work.sequences)
    return (out + 2 * back) * _graphs(work, now) + losses(work, statistic) / now.running


def _calibrating(work: Work, now: Pace) -> float:
    """The passes over the calibration data, and what is added up on the way."""
    forward, backward = work.passes
    running = work.gauge.forward + 2 * backward
    through = sum(_through(block.forward, now.rate, now, work.batch) for block in work.body.blocks)
    each = (forward - work.gauge.forward) * through + (running * _graphs(work, now) if running else 0.0)
    fed, tokens = [layer for block in work.body.blocks for layer in block.inputs], work.batch * work.length
    traffic = sum(summing_traffic(s, i.shape[1], tokens) * i.tokens for i in fed for s in work.method.inputs)
    summing = operations(work)["calibration"]["summing"] / now.summing
    return work.sequences * (each + traffic / work.batch / now.traffic) + summing


def _solving(work: Work) -> float:
    """Deriving, scoring, choosing and updating, behind all sequences where a method runs blocks."""
    method, given, device = work.method, bool(work.config["given"]), work.config["device"]
    further, total = max(work.sequences - 1, 0), 0.0
    for block in work.body.blocks:
        called = {layer.name: f"blocks.0{numberless(layer.name.removeprefix(block.path))}" for layer in block.layers}
        timed = {layer.name: timing(method, given, layer.shape, device, called[layer.name]) for layer in block.layers}
        total += sum(timed[layer.name].deriving for layer in block.inputs)
        total += sum(each.solving + further * each.each for each in timed.values())
    return total


def _evaluating(work: Work, windows: Windows, now: Pace) -> float:
    """The pruned model over all windows, and the dense one where nobody has measured it."""
    body, longer = work.body, windows.length / work.body.length
    runs = [_through(block.forward.stretched(longer), now.rate, now, work.config["batch"]) for block in body.blocks]
    head = logits(body, windows.length) / now.rate + LOSS * windows.length * body.sizes.vocabulary / now.traffic
    return windows.count * (2 if windows.dense else 1) * (sum(runs) + head)


def _generating(work: Work, now: Pace) -> float:
    """All tokens one after the other, those of a batch together; each step reads the whole model."""
    body, together = work.body, min(work.config["batch"], work.sequences)
    step = body.size / now.traffic + sum(block.forward.calls for block in body.blocks) / now.calls
    products = operations(work)["data generation, once"]["rate"] / now.rate
    return -(-work.sequences // together) * work.length * step + products
