"""Where a run's bytes will lie: on the device, in host memory and on disk, for each place that activations can have."""

from dataclasses import dataclass
from typing import Any, get_args

from experiments.planning.anatomy import Anatomy, Layer
from experiments.planning.counting import statistic_size
from experiments.planning.gauge import Gauge
from experiments.planning.outlook import Windows, Work
from prune.histogram import sampled
from prune.states import Activations

PLACES = get_args(Activations)
OUTSIDE = "embeddings, norms and head"
ANSWERS = 256  # tokens of a zero-shot prompt with its answer, about
Bytes = dict[str, float]  # by what they are


@dataclass(frozen=True)
class Stage:
    """What lies where at the highest moment of a part of the run."""

    name: str
    device: Bytes
    host: Bytes


def stages(work: Work, place: str) -> list[Stage]:
    """The parts of a run, with activations in this place."""
    pruning = max((_solving(work, block, place) for block in work.body.blocks), key=total)
    parts = [Stage("prune", pruning, _outside(work) | _dense_outputs(work, place))]
    if work.generated:
        parts.append(_generating(work))
    parts += [_surveying(work, statistic, place) for statistic in work.method.surveyed if statistic.holds]
    whole = [name for name, evaluator in work.parts.evaluators.items() if evaluator.whole]
    read = {windows.name: windows for windows in work.windows}
    parts += [_evaluating(work, windows, place) for name, windows in read.items() if name not in whole]
    return parts + [_classifying(work, read[name]) if name in read else _answering(work, name) for name in whole]


def _classifying(work: Work, windows: Windows) -> Stage:
    """The whole model and a batch of images in a block; the logits of all images, and the dense model's."""
    body, together = work.body, work.config["batch"]
    device = {"the whole model": body.size, "activations": together * max(block.forward.peak for block in body.blocks)}
    host = {"logits of all images": (3 if windows.dense else 2) * windows.reference}
    return Stage(f"eval={windows.name}", device, host | _outside(work))


def _answering(work: Work, name: str) -> Stage:
    """The whole model, and what it computes for answers that it chooses or writes."""
    evaluator, sizes = work.parts.evaluators[name], work.body.sizes
    on_device: Bytes = {"the whole model": work.body.size}
    if evaluator.writes:
        on_device["keys and values"] = (
            evaluator.batch * min(evaluator.length, sizes.limit) * sizes.cached * sizes.itemsize
        )
        on_device["logits"] = evaluator.batch * sizes.vocabulary * (sizes.itemsize + 4)
    else:
        on_device["logits"] = 16 * ANSWERS * sizes.vocabulary * (sizes.itemsize + 4)
    return Stage(f"eval={name}", on_device, _outside(work))


def peak(work: Work, place: str, device: str) -> tuple[float, float]:
    """Bytes of the device and of host memory at most, beside the interpreter's own; on a CPU both are host memory, and
    what would be in both places is there once.
    """
    parts = stages(work, place)
    if device == "cpu":
        return 0.0, max(total(stage.device | stage.host) for stage in parts)
    return max(total(stage.device) for stage in parts), max(total(stage.host) for stage in parts)


def total(parts: Bytes) -> float:
    """All of them together."""
    return sum(parts.values())


def _solving(work: Work, block: Anatomy, place: str) -> Bytes:
    """A block, float32 copies of its linears, their statistics, what solving takes, and hidden states."""
    method, units = work.method, work.units(block)
    parts: Bytes = {"a block": block.size}
    if _half(work):
        parts["float32 copies of its linears"] = 4 * block.weights * (1 if len(units) == 1 else 2)
    parts["statistics"] = sum(statistic_size(s, layer.shape[1]) for s in method.inputs for layer in block.inputs)
    parts["statistics"] += sum(s.empty(layer.shape).nbytes for s in method.surveyed for layer in block.layers)
    if work.config["given"]:
        parts["given masks and weights"] = 5 * block.weights
    parts["solving, or running the block"] = max(_solver(work.gauge, block, units), _running(work, block))
    if work.sequences:
        layer = work.sequences * work.length * work.body.sizes.state
        parts["hidden states"] = _waiting(layer, work.sequences, work.batch, place)
        parts["masks and rotary tables"] = work.body.tables
    return parts


def _half(work: Work) -> bool:
    """Whether the model's numbers are narrower than float32, which methods compute in."""
    return work.body.sizes.itemsize < 4


def _solver(gauge: Gauge, block: Anatomy, units: list[list[Layer]]) -> float:
    """What the method itself takes at most: what it derives of statistics, the matrix that takes most, and those that
    were solved before.
    """
    derived = sum(gauge.derived(*layer.shape) for layer in block.inputs)
    kept = max(sum(gauge.kept(*layer.shape) for layer in unit) for unit in units)
    solving = derived + kept + max(_matrix(gauge, *layer.shape) for layer in block.layers)
    return solving + block.graph.left + 4 * block.weights if gauge.backward else solving


def _matrix(gauge: Gauge, o: int, i: int) -> float:
    """What a matrix takes while it is solved, or its picture: the scores of some of its columns, and their sizes."""
    drawn = len(range(*sampled(o, i).indices(i)))
    solving = max(gauge.peak(o, i) - gauge.kept(o, i), 0.0)
    return max(solving, gauge.peak(o, drawn), 12.0 * o * drawn)


def _running(work: Work, block: Anatomy) -> float:
    """What a batch takes in the block, with the widest input in float32 for the statistics."""
    if not work.sequences:
        return 0.0
    widest = 4 * work.length * max(layer.shape[1] for layer in block.layers) if _half(work) else 0
    return work.batch * (block.forward.peak + widest)


def _waiting(layer: float, sequences: int, batch: int, place: str) -> float:
    """What a layer of hidden states takes of the device: all of it, or what enters a block and what has just left."""
    return layer if place == "device" else min(2 * layer * batch / sequences, layer)


def _dense_outputs(work: Work, place: str) -> Bytes:
    """The hidden states that the host keeps while blocks are pruned: up to two layers beside the dense outputs."""
    if not work.sequences:
        return {}
    layers = 0 if place == "disk" else 1 + int(work.twin) + int(place == "host")
    return {"hidden states and dense outputs": layers * work.sequences * work.length * work.body.sizes.state}


def _outside(work: Work) -> Bytes:
    """What the host always keeps."""
    blocks = max(block.size for block in work.body.blocks)
    return {OUTSIDE: work.body.outside, "a block that is read": blocks}


def _evaluating(work: Work, windows: Windows, place: str) -> Stage:
    """Hidden states of all windows, and a batch in a block, or a sequence in the head.

    On a CPU both: the C library gives little of what blocks have freed back to the system.
    """
    body, together = work.body, work.config["batch"]
    state, scale = windows.length * body.sizes.state, windows.length / body.length
    block = max(block.size + together * scale * block.forward.peak for block in body.blocks) + body.tables
    wide = body.sizes.itemsize + 4 * (int(_half(work)) + windows.copies)
    head = {OUTSIDE: body.outside, "logits": windows.length * body.sizes.vocabulary * wide}
    inner, host = {"a block and its activations": block}, _outside(work)
    device = inner | head if work.config["device"] == "cpu" else max(inner, head, key=total)
    if windows.reference:  # a second time while it is put together
        host["the dense model's predictions"] = (2 if windows.dense else 1) * windows.reference
    if place == "device":
        device["hidden states"] = windows.count * state
    else:
        device["two batches of hidden states"] = 2 * together * state
    if place == "host":
        host["hidden states"] = windows.count * state
    return Stage(f"eval={windows.name}", device, host)


def _generating(work: Work) -> Stage:
    """The whole model, what a batch of windows leaves for later tokens, and the next logits.

    Torch's plainest attention has keys and values of a block for every head, and the keys once more.
    """
    body, sizes, together = work.body, work.body.sizes, min(work.config["batch"], work.sequences)
    past = together * work.length * (sizes.cached + 1.5 * sizes.attended) * sizes.itemsize
    logits = together * sizes.vocabulary * (sizes.itemsize + 8)
    device = {"the whole model": body.size, "keys and values": past, "logits": logits}
    return Stage("data generation", device, {"logits in float64": 32.0 * together * sizes.vocabulary} | _outside(work))


def _surveying(work: Work, statistic: Any, place: str) -> Stage:
    """Out and back over the dense model: a block in float32, its directions or gradients, and a sequence's graph."""
    body, holds, hidden = work.body, statistic.holds, work.body.sizes.hidden
    sequences = statistic.passes(work.sequences)[0] // (1 + holds)
    state, half = work.length * body.sizes.state, int(_half(work))
    numbers = work.length * hidden
    back = {"hidden states": state + 8 * holds * numbers, "masks and rotary tables": body.tables}
    out = back | {"hidden states": _waiting(sequences * state, max(work.sequences, 1), 1, place)}
    moments = []
    for block in body.blocks:
        whole = {"a block": block.size, "graph": block.graph.left + holds * (holds - 1) * block.graph.left}
        moments.append(whole | back | {"float32 copies and gradients": 4 * block.weights * (1 + holds + half)})
        moments.append(whole | out | {"float32 copies and directions": 4 * block.weights * (holds - 1 + half)})
    logits = 16 * work.length * body.sizes.vocabulary
    moments.append({OUTSIDE: body.outside, "the same in float32": 2 * half * body.outside, "logits": logits})
    beside = body.sizes.itemsize + 4 * (holds - 1)  # bytes for each number of a hidden state that enters a block
    inputs = (len(body.blocks) + 1) * sequences * numbers * beside
    host = {"inputs of every block": inputs, "slopes": 4 * holds * sequences * numbers}
    return Stage(type(statistic).__name__, max(moments, key=total), host | _outside(work))
