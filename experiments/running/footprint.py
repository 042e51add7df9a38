"""How many bytes a run writes, and where: one arithmetic for its plan and for the checks before it.

A run goes from stage to stage: what lasts is there from its stage on, what waits (hidden states, the inputs of every
block for a backward pass) in its own alone. Small files (manifest, results, headers) and the token windows in the cache
do not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from experiments.console.text import size as in_words
from experiments.data import files
from experiments.data.windows import Source
from experiments.evals.evaluator import Evaluator
from experiments.models.load import sample_shape
from experiments.running import components
from experiments.running.components import Parts
from experiments.runs.bits import packed
from prune.method import Method, Quantizer
from prune.network import Network
from prune.rounding import BITS
from prune.statistic import ModelStatistic

ASSUMED = 128  # windows of an evaluation whose text is not here
CHARACTERS = 4  # bytes of text for a token, about
Written = tuple[str, str, float]  # the setting that names the folder (outputs or scratch), what, bytes


@dataclass(frozen=True)
class Sizes:
    """What of a model decides it. matrices: [o, i] of all that can be pruned; itemsize: bytes of a number that it
    computes with; stored: of one that is saved.

    hidden: numbers of a hidden state; size: bytes of the model as it is saved; limit: the most tokens of a sample, all
    those of an image; vocabulary: tokens or classes that it tells apart; cached: numbers in the keys and values of a
    token, in all blocks; attended: in those of one block, repeated for every head.
    """

    matrices: tuple[tuple[int, int], ...]
    blocks: int
    hidden: int
    itemsize: int
    stored: int
    size: int
    limit: int
    vocabulary: int
    cached: int
    attended: int

    @property
    def state(self) -> int:
        """Bytes of a token's hidden state."""
        return self.hidden * self.itemsize

    @property
    def weights(self) -> int:
        """Weights that can be pruned."""
        return sum(o * i for o, i in self.matrices)


def sizes(network: Network) -> Sizes:
    """Those of a model, which may be without numbers."""
    model = network.model
    matrices = tuple(tuple(matrix.shape) for matrix in network.weights().values())
    tokens, hidden = sample_shape(model, network.path)
    limit = network.limit if network.feeder.causal else tokens
    itemsize, stored = model.dtype.itemsize, (network.narrow or model.dtype).itemsize
    size, rows = saved(model) * stored // itemsize, network.feeder.outputs
    return Sizes(matrices, len(network.blocks), hidden, itemsize, stored, size, limit, rows, *cached(network, hidden))


def cached(network: Network, hidden: int) -> tuple[int, int]:
    """Numbers of a token's keys and values in all blocks, and in one with a copy for every head.

    hidden: numbers of its hidden state. As if every block attended to all tokens, which most do.
    """
    config = network.feeder.config
    heads, own, width = (getattr(config, n, None) for n in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    if not isinstance(heads, int) or not isinstance(own or heads, int):
        return 2 * len(network.blocks) * hidden, 2 * hidden
    width = width if isinstance(width, int) else hidden // max(heads, 1)
    return 2 * len(network.blocks) * (own or heads) * width, 2 * heads * width


def saved(module: nn.Module) -> int:
    """Bytes of what is saved of it: parameters and buffers that last, each once."""
    return sum(map(nbytes, {*module.state_dict(keep_vars=True).values()}))


def nbytes(tensor: Tensor) -> int:
    """Bytes of its numbers."""
    return tensor.numel() * tensor.element_size()


def footprint(config: dict[str, Any], parts: Parts, model: Sizes) -> list[Written]:
    """What is on the disk at the fullest moment of each folder; how many windows a text has is a guess by its size."""
    moments = list(_moments(config, parts, model))
    fullest: list[Written] = []
    for setting in ("outputs", "scratch"):
        there = [[entry for entry in moment if entry[0] == setting] for moment in moments]
        fullest += max(there, key=lambda entries: sum(size for *_, size in entries))
    return fullest


def _moments(config: dict[str, Any], parts: Parts, model: Sizes) -> Iterator[list[Written]]:
    """What is on the disk in each stage of the run; that of the run whose masks are given comes before it."""
    lasting: list[Written] = []
    if given := config["given"]:
        inner = Parts(parts.data, components.method(given["config"]), parts.evaluators, [])
        for moment in _moments(given["config"], inner, model):
            lasting = [(setting, f"{what} (given)", size) for setting, what, size in moment]
            yield lasting
    method = parts.method.masked if given else parts.method
    lasting += _referring(parts, model)
    evaluating = _evaluating(config, parts, model)
    yield [*lasting, *evaluating]
    for statistic in method.surveyed:
        values = sum(nbytes(statistic.empty(matrix)) for matrix in model.matrices)
        lasting.append(("outputs", f"{type(statistic).__name__}, kept in the cache", float(values)))
        yield [*lasting, *_surveying(config, parts.data, statistic, model)]
    lasting.append(("outputs", "masks", model.weights / 8))
    lasting.append(("outputs", "solved blocks, until the run is done", _solved(method, model)))
    yield [*lasting, *_pruning(config, parts.data, method, model)]
    saving, kept = _saved(config["save_model"], method, model)
    yield [*lasting, *saving]
    lasting += kept
    yield [*lasting, *evaluating]
    yield lasting


def _saved(form: bool | str, method: Method, model: Sizes) -> tuple[list[Written], list[Written]]:
    """The saved model while it is written, and as it stays: codes take the place of plain weights file by file."""
    if form != "packed":
        plain = [("outputs", "saved model", float(model.size))] if form else []
        return plain, plain
    codes = packed_size(method, model)
    name = f"saved model until packed (then {in_words(codes)})"
    return [("outputs", name, model.size + codes / (model.blocks + 1))], [("outputs", "saved model", codes)]


def _solved(method: Method, model: Sizes) -> float:
    """Bytes of the solved blocks: weights, and of each grid a scale and a zero in float32."""
    return float(model.stored * model.weights + sum(8 * o * _grids(method, i) for o, i in model.matrices))


def packed_size(method: Method, model: Sizes) -> float:
    """Bytes of the model as save_model=packed leaves it: codes, scales and shapes of what is pruned, the rest plain."""
    bits, width = getattr(method.quantizer, "bits", BITS[1]), 8 * model.stored
    codes = sum(packed(o, i, bits, _grids(method, i), width) for o, i in model.matrices) / 8
    return model.size - model.stored * model.weights + codes


def _grids(method: Method, columns: int) -> int:
    """Grids of a row of so many columns."""
    if type(method.quantizer) is Quantizer:
        return 0
    return columns // (getattr(method.quantizer, "group", None) or columns)


def _referring(parts: Parts, model: Sizes) -> Iterator[Written]:
    """What evaluations keep of the dense model."""
    for name, evaluator in parts.evaluators.items():
        if evaluator.referred:
            count, length, assumed = evaluated(evaluator, model.limit)
            what = f"the dense model's predictions for eval={name}, kept in the cache{', about' if assumed else ''}"
            yield "outputs", what, evaluator.reference_size(count, length, model.vocabulary)


def _waiting(config: dict[str, Any], what: str, size: float) -> list[Written]:
    """Something that is there for a while, and in memory if nothing of it is on the disk."""
    return [("scratch" if config["scratch"] else "outputs", what, float(size))] if size else []


def _evaluating(config: dict[str, Any], parts: Parts, model: Sizes) -> list[Written]:
    """The largest of the evaluations' hidden states."""
    texts = [evaluator for evaluator in parts.evaluators.values() if evaluator.source]
    if config["activations"] != "disk" or not texts:
        return []
    windows = [evaluated(text, model.limit) for text in texts]
    count, length, assumed = max(windows, key=lambda each: each[0] * each[1])
    what = f"activations while it is evaluated{', about' if assumed else ''}"
    return _waiting(config, what, count * length * model.state)


def _pruning(config: dict[str, Any], data: Source, method: Method, model: Sizes) -> list[Written]:
    """A layer of hidden states, the dense block's outputs, and the dense model's own stream where that is followed."""
    if config["activations"] != "disk" or not method.calibrated:
        return []
    rows, length = amount(data, model.limit)
    layers = 3 if method.reference == "dense" else 2
    return _waiting(config, "activations while it is pruned", rows * length * model.state * layers)


def _surveying(config: dict[str, Any], data: Source, statistic: ModelStatistic, model: Sizes) -> list[Written]:
    """A layer of hidden states, and what enters every block, with what is carried beside it in float32."""
    if not statistic.data:
        return []
    disk, (rows, length) = config["activations"] == "disk", amount(data, model.limit)
    tokens = statistic.passes(rows)[0] // (1 + statistic.holds) * length
    size = tokens * model.state if disk else 0
    if statistic.holds and (disk or config["scratch"]):
        size += (model.blocks + 1) * tokens * (model.state + 4 * (statistic.holds - 1) * model.hidden)
    return _waiting(config, f"activations for {type(statistic).__name__}", size)


def amount(data: Source, limit: int) -> tuple[int, int]:
    """Calibration windows and their length: of a token file from its header."""
    rows, width = data.stored() or (data.sequences, data.length)
    return data.sequences or rows, min(data.length or width, limit)


def evaluated(evaluator: Evaluator, limit: int) -> tuple[int, int, bool]:
    """Windows that an evaluation reads, their length, and whether their number is guessed from the size of a text."""
    source, length = evaluator.source, min(evaluator.length, limit)
    first = lambda count: min(count, evaluator.windows or count)
    if stored := source.stored():
        return first(stored[0]), stored[1], False
    if evaluator.pictures:  # as many as are asked for: counting would open them
        return evaluator.windows or ASSUMED, length, evaluator.windows is None
    file = source.file("evaluation")
    size = text_size(file) if file else None
    return first(max(size // (CHARACTERS * length), 1) if size else ASSUMED), length, True


def text_size(file: str) -> int | None:
    """Bytes of the text in a file or folder, about; None where there is no such file."""
    if not Path(file).exists():
        return None
    size, plain = files.size(file)
    return size if plain else 3 * size
