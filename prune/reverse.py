"""Backward passes over the whole dense model with bounded memory: every block is recomputed when its turn comes.

Chen et al., 2016, arXiv 1604.06174, with a checkpoint in front of every block. On the device lie one block, its
gradients and the activations of one sequence inside it; on the host, or in files, what enters every block.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from prune.block import Block
from prune.call import Call
from prune.feeder import Samples
from prune.network import Network
from prune.part import Part, widen
from prune.precision import as_fine_as
from prune.progress import passing

States = tuple[Tensor, ...]  # the state of a sequence, [1, t, h] or packed (see Call), then what an objective carries
Weights = Mapping[str, Tensor]  # by name inside the block
Forward = Callable[[Tensor, Weights], Tensor]  # a block of the model: (state, weights) -> state
Loss = Callable[[Tensor], Tensor]  # the last block's output -> the sample's mean cross-entropy
Aim = Callable[[Tensor, Tensor], Tensor]  # (logits [s, v], labels [s]) -> the labels to take
Moment = tuple[Call, States]  # one block's call on one sample, without its numbers, and the states that enter it


class Objective:
    """What is differentiated: the loss of one sample, a token sequence or an image.

    A subclass can carry more than the hidden state through the blocks, and reverse mode then runs through all of it. A
    Hessian-vector product is the gradient of the loss's derivative along a direction: carry a tangent beside the state.
    Everything is float32.
    """

    def beside(self, state: Float[Tensor, "..."]) -> States:
        """What enters the first block beside this state."""
        return ()

    def through(self, block: Block, sequence: int, forward: Forward, states: States, weights: Weights) -> States:
        """What leaves a block, differentiable in `states` and `weights`; `sequence` counts from 0."""
        return (forward(states[0], weights),)

    def back(
        self, block: Block, sequence: int, forward: Forward, states: States, weights: Weights, slopes: States
    ) -> States:
        """From the gradients of what leaves a block to those of its states, then of its weights."""
        ends = self.through(block, sequence, forward, states, weights)
        return torch.autograd.grad(ends, [*states, *weights.values()], slopes, materialize_grads=True)

    def target(self, sample: int, logits: Float[Tensor, "s v"], labels: Int[Tensor, "s"]) -> Int[Tensor, "s"]:
        """What a sample's loss takes for right; the sample counts from 0."""
        return labels

    def value(self, loss: Loss, states: States) -> Float[Tensor, ""]:
        """The scalar that is differentiated, from what leaves the last block."""
        return loss(states[0])


def backward(
    network: Network, samples: Samples, objective: Objective | None = None
) -> Iterator[tuple[Block, Iterator[dict[str, Float[Tensor, "o i"]]]]]:
    """From the last block to the first: the block, and for each sample in turn the gradients of its matrices.

    Gradients are float32, on the device, by name inside the block; one that is not popped is held while those of the
    next sample are made. What the caller leaves of an iterator is run before the next block comes. A block costs one
    forward in the model's dtype and one, with its backward, in float32 (prune.precision).
    """
    objective = objective or Objective()
    moments, last = _outward(network, samples, objective)
    slopes = _slopes_of_head(network, samples, last, objective)
    del last
    for index in passing(reversed(range(len(network.blocks))), "backward", len(network.blocks)):
        with network.at(index) as block:
            found = _gradients(block, moments.pop(), slopes, objective, network.device)
            yield block, found
            for _ in found:
                pass  # the block in front of this one needs the slopes of all samples


@contextmanager
def losses(network: Network) -> Iterator[Callable[[Samples, Tensor, Aim], Tensor]]:
    """(one sample, last block's output [1, t, h], aim) -> its mean cross-entropy over s predictions, differentiable.

    Final norm and head run in float32 and are on the device, for as long as this is open.
    """
    feeder = network.feeder
    with network.outside():
        everything = [*network.model.named_parameters(), *network.model.named_buffers()]
        outer = {name: widen(tensor) for name, tensor in everything if not name.startswith(f"{network.path}.")}

        def loss(sample: Samples, hidden: Tensor, aim: Aim) -> Tensor:
            keywords = feeder.keywords(sample, network.device)
            with network.replaced(lambda *_: hidden):
                logits = feeder.predictions(functional_call(network.model, outer, kwargs=keywords).logits)
            labels = feeder.labels(sample).to(network.device)
            return nn.functional.cross_entropy(logits, aim(logits.detach(), labels))

        yield loss


def _outward(network: Network, samples: Samples, objective: Objective) -> tuple[list[list[Moment]], list[Moment]]:
    """What enters each block, [blocks][samples], and what leaves the last one, all kept away from the device."""
    moments: list[list[Moment]] = []
    beside: list[States] = []
    calls: Sequence[Call] = []
    for block in network.walk(samples, batch=1, what="forward"):
        calls = block.calls
        beside = beside or [_away(objective.beside(call.packed().float())) for call in calls]
        moments.append(_keep(calls, beside, network.scratch))
        if any(beside):
            beside = _beside(block, moments[-1], objective, network.device)
        block.advance()
    return moments, _keep(calls, beside, network.scratch)


@torch.no_grad()
def _beside(block: Block, moments: list[Moment], objective: Objective, device: torch.device) -> list[States]:
    """What leaves the block beside the hidden state, which the walk itself carries on; for every sample."""
    weights, found = _leaves(block.weights), []
    for k, moment in enumerate(moments):
        forward, states = _entering(block, moment, device)
        found.append(_away(objective.through(block, k, forward, states, weights)[1:]))
    return found


def _away(states: States) -> States:
    return tuple(state.cpu() for state in states)


def _entering(block: Block, moment: Moment, device: torch.device) -> tuple[Forward, States]:
    """The block as a function, and the states that enter it, as leaves."""
    call, states = moment
    part = Part(block, [""])  # the block as a whole, wherever its matrices lie
    forward = lambda state, weights: part.through(call.unpacked(state), weights).packed()
    return forward, tuple(_leaf(state, device) for state in states)


def _slopes_of_head(network: Network, samples: Samples, last: list[Moment], objective: Objective) -> list[States]:
    """The gradients of each sample's value with respect to what leaves the last block, on the host."""
    slopes = []
    with losses(network) as loss, torch.enable_grad(), as_fine_as(network.model.parameters(), network.device):
        pairs = zip(samples.split(1), last, strict=True)
        for k, (sample, (call, kept)) in enumerate(passing(pairs, "head", len(last), "sequence")):
            states = tuple(_leaf(state, network.device) for state in kept)
            aim = partial(objective.target, k)
            own = lambda state, sample=sample, call=call, aim=aim: loss(sample, call.unpacked(state).hidden, aim)
            found = torch.autograd.grad(objective.value(own, states), states)
            slopes.append(_away(found))
    return slopes


def _gradients(
    block: Block, moments: list[Moment], slopes: list[States], objective: Objective, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Each sample's gradients of the block's matrices; its slopes become those of what enters the block."""
    weights = _leaves(block.weights)
    for k, moment in enumerate(moments):
        with torch.enable_grad(), as_fine_as(block.weights.values(), device):
            forward, states = _entering(block, moment, device)
            slope = tuple(part.to(device) for part in slopes[k])
            found = objective.back(block, k, forward, states, weights, slope)
        slopes[k] = _away(found[: len(states)])
        gradients = dict(zip(weights, found[len(states) :], strict=True))
        del found
        yield gradients


def _leaves(weights: Weights) -> dict[str, Tensor]:
    return {name: _leaf(matrix, matrix.device) for name, matrix in weights.items()}


def _leaf(value: Tensor, device: torch.device) -> Tensor:
    return value.detach().to(device).float().requires_grad_()


def _keep(calls: Sequence[Call], beside: Sequence[States], folder: str | None) -> list[Moment]:
    """What enters a block, and beside it, for all samples, off the device: in host memory, or in that folder."""
    bare: list[Call] = []
    shelves: list[Tensor] = []
    for k, rest in enumerate(beside):
        call = calls[k]  # on the device until the next one
        parts = (call.packed(), *rest)
        shelves = shelves or [_shelf(len(calls), part, folder) for part in parts]
        for shelf, part in zip(shelves, parts, strict=True):
            shelf[k].copy_(part)
        bare.append(call.bare())
    return list(zip(bare, zip(*shelves, strict=True), strict=True))


def _shelf(count: int, like: Tensor, folder: str | None) -> Float[Tensor, "n ..."]:
    """Room for so many tensors in one; ValueError if the folder has not as much."""
    shape, size = (count, *like.shape), count * like.numel()
    if folder is None:
        return torch.empty(shape, dtype=like.dtype)
    room, needed = shutil.disk_usage(folder).free, size * like.element_size()
    if room < needed:
        raise ValueError(
            f"{folder}: expected room for the hidden states of a block, {needed / 2**30:.2f} GiB, found "
            f"{room / 2**30:.2f}; free some, use fewer calibration sequences, or scratch: null for host memory"
        )
    with tempfile.NamedTemporaryFile(dir=folder) as file:  # without a name it lives as long as the tensor
        return torch.from_file(file.name, shared=True, size=size, dtype=like.dtype).reshape(shape)
