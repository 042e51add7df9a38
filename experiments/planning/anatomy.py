"""What is known of a model from its configuration alone: every block is run on tensors that have no memory.

o = out_features, i = in_features, t = tokens of a sequence.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._pytree import tree_leaves

from experiments.planning.counting import Counts, count
from experiments.running.footprint import Sizes, nbytes, sizes
from prune.block import Block
from prune.call import Call, Calls, called, first_of, leading
from prune.feeder import feeder_of
from prune.listen import Listener, Origin, Same
from prune.matrices import Matrix
from prune.network import Network
from prune.part import Part
from prune.recorded import Chain, refuse_foreign
from prune.states import States

CHOSEN = ("num_experts_per_tok", "moe_topk")  # what a configuration calls the number of experts that a token is sent to


@dataclass(frozen=True)
class Layer:
    """A prunable matrix. leader: the first linear that is fed the same tensor; tokens: the share that reaches it."""

    name: str
    shape: tuple[int, int]
    leader: str
    tokens: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """One block: its matrices, its bytes, and what running it on a sequence costs.

    forward: in the model's dtype without a graph; graph: in float32, with what its backward pass needs left over.
    """

    path: str
    layers: list[Layer]
    size: int  # bytes of all its parameters and buffers, in the model's dtype
    forward: Counts
    graph: Counts

    @property
    def weights(self) -> int:
        """Weights that can be pruned."""
        return sum(layer.shape[0] * layer.shape[1] for layer in self.layers)

    @property
    def inputs(self) -> list[Layer]:
        """One linear for each tensor that linears of the block are fed."""
        return list({layer.leader: layer for layer in self.layers}.values())


@dataclass(frozen=True)
class Body:
    """A whole model. outside: bytes of embedding, norms and head; length: tokens of the sequence that its blocks were
    run on. skipped: what inside the blocks is not pruned, and why. tables: bytes of the masks and rotary tables that
    all calls of the blocks are given. dtype: of the numbers that it computes with.
    """

    blocks: list[Anatomy]
    sizes: Sizes
    outside: int
    length: int
    skipped: dict[str, str]
    tables: int
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes of the whole model."""
        return self.outside + sum(block.size for block in self.blocks)


def dissect(network: Network, length: int) -> Body:
    """All blocks of a Network whose model has no numbers, run on one sequence of `length` tokens; takes the model over.

    Raises ValueError for a model without matrices to prune, and for one whose code asks for numbers.
    """
    model, matrices, shapes, skipped = network.model, network.matrices(), sizes(network), network.skipped()
    bytes_of_blocks = [_bytes(module) for module in network.blocks]
    outside = _bytes(model) - sum(bytes_of_blocks)
    kinds = _kinds(network)
    if any(hasattr(module, "is_transposed") for module in model.modules()):
        model.set_experts_implementation("batched_mm")  # the eager one asks which expert a token wants
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cpu")  # of a fake tensor: attention is then a kernel that keeps no t x t scores
        calls, leaders = _run(network, length, matrices)
        length = calls[0].hidden.shape[1]  # of an image
        costs: dict[Any, tuple[Counts, Counts]] = {}
        blocks = []
        for k, (module, call) in enumerate(zip(network.blocks, calls, strict=True)):
            path, key = f"{network.path}.{k}", _made_of(module)
            if key not in costs:
                costs[key] = _cost(kinds[key], call)
            inside = {name: matrix for name, matrix in matrices.items() if name.startswith(f"{path}.")}
            layers = [_layer(model, name, matrix, leaders) for name, matrix in inside.items()]
            forward, graph = costs[key]
            forward, graph = _sparse(layers, length, forward, shapes.itemsize), _sparse(layers, length, graph, 4)
            blocks.append(Anatomy(path, layers, bytes_of_blocks[k], forward, graph))
    shapes = replace(shapes, hidden=calls[0].hidden.numel() // length)  # of all streams, where there are several
    return Body(blocks, shapes, outside, length, skipped, _tables(calls), model.dtype)


def _bytes(module: nn.Module) -> int:
    """Of all parameters and buffers, each once."""
    return sum(map(nbytes, {*module.parameters(), *module.buffers()}))


def _made_of(module: nn.Module) -> tuple[Any, ...]:
    """Equal for blocks that are alike, as most are."""
    return tuple((name, tensor.shape) for name, tensor in module.named_parameters())


def _kinds(network: Network) -> dict[tuple[Any, ...], Block]:
    """The first block of each kind; its matrices are looked for before tensors are fake, whose faults torch logs."""
    kinds: dict[tuple[Any, ...], Block] = {}
    for k, module in enumerate(network.blocks):
        if (key := _made_of(module)) not in kinds:
            kinds[key] = Block(f"{network.path}.{k}", module, Calls([], States(network.place)))
    return kinds


def _run(network: Network, length: int, matrices: dict[str, Matrix]) -> tuple[list[Call], dict[str, str]]:
    """How the model calls each block, and the first linear that is fed the same tensor, by full name."""
    calls: list[Call] = []
    leaders: dict[str, str] = {}
    same = Same()
    chain = Chain(type(network.model).__name__, network.path, len(network.blocks), numbers=False)

    def note(name: str, _: Tensor, origin: Origin) -> None:
        leaders.setdefault(name, same.leader(name, origin))

    def entered(index: int, block: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append(_led(network, called(block, args, kwargs), length))
        chain.enter(index, calls[-1].hidden)

    def left(_: nn.Module, args: Any, output: Any) -> None:
        chain.leave(leading(first_of(output), calls[-1].axis))

    weights = {name: m.of(network.model.get_parameter(m.parameter)) for name, m in matrices.items()}
    with ExitStack() as hooks, Listener(weights, note):
        for index, block in enumerate(network.blocks):
            hooks.callback(block.register_forward_pre_hook(partial(entered, index), with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(left).remove)
        _forward(network, length)
    chain.close()
    refuse_foreign(calls[0], network, 1)
    return calls, leaders


def _forward(network: Network, length: int) -> None:
    """The model's own forward of a sample; ValueError where its code asks tensors for numbers."""
    try:
        network.feeder.body(**network.feeder.keywords(network.feeder.blank(1, length), network.device))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        why = f"{type(network.model).__name__} decides by numbers what it computes ({error.func})"
        raise ValueError(f"{why}; a plan has none and cannot count it") from error


def _led(network: Network, call: Call, length: int) -> Call:
    """The call of one sample with that, and then its tokens, in front of the hidden state."""
    axis = network.feeder.axis(call.hidden.shape, network.feeder.blank(1, length)) or 0
    return replace(call.at(leading(call.hidden, axis)), axis=axis)


def _cost(block: Block, call: Call) -> tuple[Counts, Counts]:
    """Running a block as it is, and in float32 with a graph."""
    _, forward = count(lambda: call.through(block.module))
    now = {name: m.of(block.module.get_parameter(m.parameter)) for name, m in block.matrices.items()}
    weights = {name: matrix.float().detach().requires_grad_() for name, matrix in now.items()}
    with torch.enable_grad():
        output, graph = count(lambda: Part(block, [""]).forward(call, weights))
    del output
    return forward, graph


def _sparse(layers: list[Layer], length: int, counts: Counts, width: int) -> Counts:
    """The counts of a block with experts without the copy of its weights that every token was given to count them."""
    if all(layer.tokens == 1 for layer in layers):
        return counts
    passed = sum(layer.tokens * length * sum(layer.shape) * width for layer in layers)  # what enters and leaves each
    return replace(counts, peak=min(counts.peak, 2 * passed), left=min(counts.left, 2 * passed))


def _layer(model: Any, name: str, matrix: Matrix, leaders: dict[str, str]) -> Layer:
    """A matrix; of those of experts each sees its share of the tokens, on average."""
    config, parameter = feeder_of(model).config, model.get_parameter(matrix.parameter)
    chosen = next((getattr(config, key) for key in CHOSEN if hasattr(config, key)), None)
    share = 1.0 if matrix.expert is None or not chosen else min(chosen / len(parameter), 1.0)
    rows, columns = matrix.of(parameter).shape
    return Layer(name, (rows, columns), leaders.get(name, name), share)


def _tables(calls: list[Call]) -> int:
    """Bytes of the tensors that blocks are given beside the hidden state, each once."""
    leaves = [leaf for call in calls for leaf in tree_leaves((call.args[1:], call.kwargs)) if isinstance(leaf, Tensor)]
    return sum({id(leaf): leaf.nbytes for leaf in leaves}.values())
