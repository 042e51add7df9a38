"""Where a run's bytes will lie: on the device, in host memory and on disk, for each place that activations can have."""

from dataclasses import dataclass, replace
from typing import Any, get_args

from experiments.planning.anatomy import Anatomy, Layer
from experiments.planning.counting import statistic_size
from experiments.planning.estimate import Work, inputs
from experiments.planning.gauge import Gauge
from prune.histogram import sampled
from prune.states import Activations

PLACES = get_args(Activations)
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
    found = [Stage("prune", _pruning(work, place), _beside(work, place))]
    found += [_surveyed(work, statistic, place) for statistic in work.method.surveyed if statistic.holds]
    for windows in work.windows:
        state = windows.length * work.body.hidden * work.body.itemsize
        states = {"hidden states": windows.count * state} if place != "disk" else {}
        device, host = (
            (states, {}) if place == "device" else ({"two batches of hidden states": 2 * work.together * state}, states)
        )
        found.append(Stage(f"eval={windows.name}", device | _through(work, windows.length), host | _outside(work)))
    if work.whole:
        found.append(Stage("eval=zeroshot", _all(work), _outside(work)))
    return found


def peak(work: Work, place: str, device: str) -> tuple[float, float]:
    """Bytes of the device and of host memory at most, beside the interpreter's own; on a CPU both are host memory."""
    pairs = [(sum(stage.device.values()), sum(stage.host.values())) for stage in stages(work, place)]
    if device == "cpu":
        return 0.0, max(one + other for one, other in pairs)
    return max(one for one, _ in pairs), max(other for _, other in pairs)


def _layer(work: Work) -> float:
    """Hidden states of all calibration sequences, [n, t, h], in the model's dtype."""
    return work.sequences * work.length * work.body.hidden * work.body.itemsize


def _pruning(work: Work, place: str) -> Bytes:
    """The block for which it is most."""
    return max((_solving(work, block, place) for block in work.body.blocks), key=lambda found: sum(found.values()))


def _solving(work: Work, block: Anatomy, place: str) -> Bytes:
    """A block, float32 copies of its linears, their statistics, what solving takes, and hidden states."""
    gauge, batch = work.gauge, work.batch
    copies = 4 * block.weights * (work.body.itemsize < 4)
    units = work.units(block)
    statistics = sum(statistic_size(s, layer.shape[1]) for s in work.method.inputs for layer in inputs(block))
    derived = sum(gauge.deriving("left", layer.shape[1]) for layer in inputs(block))
    shapes = [[layer.shape for layer in unit] for unit in units]
    held = max(gauge.holding(sum(o * i for o, i in each), sum(o for o, _ in each)) for each in shapes)
    above = lambda o, i: max(gauge.of("peak", o, i) - gauge.holding(o * i, o), 0.0)
    deriving = max(
        gauge.deriving("peak", layer.shape[1]) - gauge.deriving("left", layer.shape[1]) for layer in block.layers
    )
    one = max(max(above(*layer.shape), _drawing(gauge, *layer.shape)) for layer in block.layers)
    solving = derived + max(one + held, deriving)
    if gauge.backward:
        solving += block.graph.left + 4 * block.weights
    widest = max(layer.shape[1] for layer in block.layers)
    running = (
        batch * (block.forward.peak + 4 * work.length * widest * (work.body.itemsize < 4)) if work.sequences else 0
    )
    found = {"a block": block.size, "float32 copies of its linears": copies * (1 + (len(units) > 1))}
    statistics += sum(_surveys(s, layer) for s in work.method.surveyed for layer in block.layers)
    found |= {"statistics": statistics, "given masks and weights": 5 * block.weights * work.given}
    found["solving, or running the block"] = max(solving, running)
    states = {"hidden states": _waiting(_layer(work), work, place), "masks and rotary tables": work.body.tables}
    return found | (states if work.sequences else {})


def _waiting(layer: float, work: Work, place: str) -> float:
    """What a layer of hidden states takes of the device: all of it, or what enters a block and what has just left."""
    return layer if place == "device" else min(2 * layer * work.batch / max(work.sequences, 1), layer)


def _surveys(statistic: Any, layer: Layer) -> int:
    """Bytes of what was found of a matrix on the dense model."""
    empty = statistic.empty(layer.shape)
    return empty.numel() * empty.element_size()


def _drawing(gauge: Gauge, o: int, i: int) -> float:
    """What the picture of a solved matrix takes: the scores of some of its columns, and their sizes."""
    drawn = len(range(*sampled(o, i).indices(i)))
    return max(gauge.of("peak", o, drawn), 12.0 * o * drawn)


def _beside(work: Work, place: str) -> Bytes:
    """What the host keeps while blocks are pruned: two layers of states, that of the dense block among them."""
    kept = (1 + work.twin + (place == "host")) * (place != "disk")
    return _outside(work) | ({"hidden states and dense outputs": _layer(work) * kept} if work.sequences else {})


def _outside(work: Work) -> Bytes:
    blocks = max(block.size for block in work.body.blocks)
    return {"embeddings, norms and head": work.body.outside, "a block that is read": blocks}


def _through(work: Work, length: int) -> Bytes:
    """Evaluating: a batch in a block, or a sequence in the head."""
    body, scale = work.body, length / work.body.length
    block = max(block.size + work.together * scale * block.forward.peak for block in body.blocks) + body.tables
    head = body.outside + length * body.vocabulary * (body.itemsize + 8)
    return {"a block and its activations, or the head and its logits": max(block, head)}


def _all(work: Work) -> Bytes:
    """The whole model and the logits of a batch of answers."""
    logits = 16 * ANSWERS * work.body.vocabulary * (work.body.itemsize + 4)
    return {"the whole model": work.body.size, "logits": logits}


def _held(work: Work, statistic: Any) -> float:
    """Hidden states of every block, and what is carried beside them in float32."""
    taken = statistic.passes(work.sequences)[0] // (1 + statistic.holds)
    token = work.body.itemsize + 4 * (statistic.holds - 1)
    return (len(work.body.blocks) + 1) * taken * work.length * work.body.hidden * token


def _surveyed(work: Work, statistic: Any, place: str) -> Stage:
    """Out and back over the dense model: a block in float32, its directions or gradients, and a sequence's graph."""
    body, holds = work.body, statistic.holds
    taken = statistic.passes(work.sequences)[0] // (1 + holds)
    state = work.length * body.hidden
    slopes = 4 * holds * taken * state
    beside = {"hidden states": state * (body.itemsize + 8 * holds), "masks and rotary tables": body.tables}
    walking = beside | {"hidden states": _waiting(taken * state * body.itemsize, replace(work, batch=1), place)}
    found = []
    for block in body.blocks:
        copies = lambda times, block=block: 4 * block.weights * (times + (body.itemsize < 4))
        whole = {"a block": block.size, "graph": block.graph.left + holds * (holds - 1) * block.graph.left}
        found.append(whole | beside | {"float32 copies and gradients": copies(1 + holds)})
        found.append(whole | walking | {"float32 copies and directions": copies(holds - 1)})
    head = {"the head in float32": body.outside * (1 + 4 / body.itemsize), "logits": 16 * work.length * body.vocabulary}
    device = max([*found, head], key=lambda part: sum(part.values()))
    host = {"inputs of every block": _held(work, statistic), "slopes": slopes}
    return Stage(type(statistic).__name__, device, host | _outside(work))
