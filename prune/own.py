"""A walk is held once against the model's own forward: a model that runs otherwise than block by block is refused.

So is one whose blocks show tokens the later ones.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prune.feeder import Samples
from prune.progress import shown_by

ROUNDING = 4  # how many roundings of the model's dtype the logits may differ by, relative to their norm
SEEN = 1e-3  # relative change of a state that is no rounding, which experts of other sizes may bring


def hold(network: Any, samples: Samples) -> None:
    """ValueError unless walking gives a Network's model the logits of its own forward, on the first of these samples.

    ValueError, too, for a block of a causal LM that tells a token of later ones: what it says of the next is no
    prediction.

    What a block leaves to itself or to another one outside its arguments shows, for it is run on other states between.
    The bits are the same, but for kernels that add up in any order: the logits may be some roundings apart, or as far
    as those of the model's own forward are from each other.
    """
    few = network.feeder.few(samples)
    if not len(few):
        return
    network.held = True  # by the walk below
    try:
        own = _forward(network, few)
        if not torch.isfinite(own).all():
            return  # the walk says where
        with shown_by(None):
            gap = _difference(_tried(network, few), own)
        small = gap <= ROUNDING * torch.finfo(network.model.dtype).eps
        if not small and gap > 4 * _difference(_forward(network, few), own):
            raise ValueError(
                f"{type(network.model).__name__}: walked block by block ({network.path}), its logits are {gap:.2%} off "
                "those of its own forward: its numbers would be wrong; set model.blocks to another list, if it has one"
            )
    except BaseException:
        network.held = False
        raise


@torch.no_grad()
def _forward(network: Any, few: Samples) -> Float[Tensor, "1 *t v"]:
    """By the model itself, whose blocks come to the device one by one when it calls them."""
    with _brought(network), network.outside():
        return network.model(**network.feeder.keywords(few, network.device)).logits


@contextmanager
def _brought(network: Any) -> Iterator[None]:
    """Each block is on the device while it runs."""
    with ExitStack() as hooks, ExitStack() as there:
        for index, block in enumerate(network.blocks):
            enter = lambda *_, index=index: there.enter_context(network.at(index)) and None
            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(lambda *_: there.close()).remove)
        yield


def _tried(network: Any, few: Samples) -> Float[Tensor, "1 *t v"]:
    """See `_walked`; ValueError in words where the model's code, which ran on these samples, cannot be taken apart."""
    try:
        return _walked(network, few)
    except Exception as error:
        said = isinstance(error, ValueError) and network.path in str(error)  # by us
        if said or isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        who, why = type(network.model).__name__, " ".join(str(error).split())[:120]
        raise ValueError(
            f"{who} runs as a whole, but not block by block ({network.path}: {why}); set model.blocks to another list"
        ) from error


@torch.no_grad()
def _walked(network: Any, few: Samples) -> Float[Tensor, "1 *t v"]:
    """Block by block, each run on other states before and after and twice on its own, as pruning does."""
    states: Any = []
    for block in network.walk(few, batch=1):
        states, call = block.calls.states, block.calls[0]
        other, half = call.at(call.hidden.flip(1)), -(-call.hidden.shape[1] // 2)
        later = call.at(torch.cat([call.hidden[:, :half], -call.hidden[:, half:]], 1))
        changed = later.through(block.module).hidden[:, :half]
        if depends(call.through(block.module).hidden[:, :half], changed) and network.feeder.causal:
            who = f"{type(network.model).__name__} shows tokens the later ones ({block.path})"
            raise ValueError(f"{who}, as encoders do, and so has no perplexity; give a decoder")
        block.advance()
        other.through(block.module)
    with network.outside():
        return network.head(few, states[0])


def depends(one: Float[Tensor, "b t *s h"], other: Float[Tensor, "b t *s h"]) -> bool:
    """Whether the states of tokens differ by more than rounding: then they depend on what was changed between."""
    change = (one.float() - other.float()).flatten(2).norm(dim=2)
    largest = float((change / one.float().flatten(2).norm(dim=2).clamp(min=1e-30)).max())
    return largest > max(SEEN, ROUNDING * torch.finfo(one.dtype).eps)


def _difference(one: Float[Tensor, "1 *t v"], other: Float[Tensor, "1 *t v"]) -> float:
    """Relative to the norm of the other."""
    return float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-30))
