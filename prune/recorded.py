"""How a model calls its blocks: found by putting something else in their place, so that the model's own code tells."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prune.call import Call, Handed, Reached, called, first_of, lying
from prune.feeder import Samples
from prune.nested import containers, each
from prune.pool import pool
from prune.states import States

Forward = Callable[[int, Call], Tensor]  # (which block, how it is called) -> the hidden state that leaves it


@dataclass(frozen=True)
class Form:
    """What the blocks of a model return: something like `output`, whose hidden state stands alone or before others.

    `axis`: where the sequences are in that state, and its tokens one further.
    """

    output: Any
    axis: int

    def filled(self, hidden: Tensor) -> Any:
        """This hidden state in the same form."""
        hidden, output = lying(hidden, self.axis), self.output
        if isinstance(output, dict):  # also transformers' outputs, whose first is found by its name
            made = copy(output)
            made[next(iter(output))] = hidden
            return made
        if not isinstance(output, (tuple, list)):
            return hidden
        parts = (hidden, *output[1:])  # which a named tuple takes one by one
        return output._make(parts) if hasattr(output, "_make") else type(output)(parts)

    @property
    def parts(self) -> list[Any]:
        """The hidden state and what it stands before; [] where it stands alone."""
        values = self.output.values() if isinstance(self.output, dict) else self.output
        return list(values) if isinstance(self.output, (dict, tuple, list)) else []


@contextmanager
def replaced(blocks: Iterable[nn.Module], form: Form, forward: Forward) -> Iterator[None]:
    """Every block computes this instead, and returns it as blocks do."""

    def stand_in(index: int, block: nn.Module) -> Callable[..., Any]:
        return lambda *args, **kwargs: form.filled(forward(index, called(block, args, kwargs, form.axis)))

    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            block.forward = stand_in(index, block)
            stack.callback(block.__dict__.pop, "forward")
        yield


class Chain:
    """Sees to it that a model calls its blocks one after the other, each with what the one before returned."""

    def __init__(self, kind: str, path: str, count: int, numbers: bool = True) -> None:
        """`kind`: the model's class; `path`: where its `count` blocks are; `numbers`: whether tensors have any."""
        self.kind, self.path, self.count, self.numbers = kind, path, count, numbers
        self.calls = self.version = 0
        self.left: Tensor | None = None  # what the last block returned

    def enter(self, index: int, hidden: Tensor) -> None:
        """The block of that number is called with this; ValueError if it is not its turn or not its input."""
        if index != self.calls:
            raise ValueError(self._refusal(f"calls block {index} where {self.calls} would be next"))
        if self.left is not None and not self._same(hidden, self.left):
            raise ValueError(self._refusal(f"computes something between its blocks {index - 1} and {index}"))
        self.calls += 1

    def leave(self, hidden: Tensor) -> None:
        """The block returned this."""
        self.left, self.version = hidden, hidden._version

    def close(self) -> None:
        """ValueError if some were not called."""
        if self.calls != self.count:
            raise ValueError(self._refusal(f"calls {self.calls} of its {self.count} blocks"))

    def _same(self, now: Tensor, left: Tensor) -> bool:
        """Whether it is what was left: the very tensor, not written since, a view of all of it, or equal numbers."""
        if left._version != self.version:
            return False
        whole = [(id(t if t._base is None else t._base), t.shape, t.stride(), t.storage_offset()) for t in (now, left)]
        return whole[0] == whole[1] or (self.numbers and now.shape == left.shape and torch.equal(now, left))

    def _refusal(self, what: str) -> str:
        return f"{self.kind} {what} ({self.path}): it cannot be walked block by block; set model.blocks to another list"


def form_of(network: Any) -> Form:
    """What the first block of a Network returns, with nothing for the hidden state: `filled` puts one in its place.

    It is run on one small sample. ValueError if the model does not call it.
    """
    found: list[Any] = []
    feeder = network.feeder
    blank = feeder.blank(1, 2)

    def stop(_: nn.Module, args: Any, output: Any) -> None:
        found.append(output)
        raise Reached

    handle = network.blocks[0].register_forward_hook(stop)
    try:
        with torch.no_grad(), network.at(0), network.outside(), suppress(Reached):
            feeder.body(**feeder.keywords(blank, network.device))
    finally:
        handle.remove()
    if not found:
        kind = type(network.model).__name__
        raise ValueError(f"{kind} does not call the first block of {network.path}; set model.blocks to another list")
    axis = feeder.axis(first_of(found[0]).shape, blank) or 0
    return Form(Form(found[0], 0).filled(torch.empty(0)), axis)


@torch.no_grad()
def record(network: Any, samples: Samples, size: int, states: States) -> list[list[Call]]:
    """How a Network's model calls each block, [batches][blocks], without the hidden state; `states` take the first.

    The price is the embedding, for the blocks become the identity. Masks and rotary tables are the same for every
    batch of `size`: equal ones are kept once. ValueError for a model that does more than call block after block.
    """
    calls: list[list[Call]] = []
    known: list[Tensor] = []
    raw: list[Call] = []

    def note(index: int, call: Call) -> Tensor:
        chain.enter(index, call.hidden)
        raw.append(call)
        chain.leave(call.hidden)
        return call.hidden

    with network.replaced(note), network.outside():
        for batch in samples.split(size):
            raw.clear()
            chain = Chain(type(network.model).__name__, network.path, len(network.blocks))
            network.feeder.body(**network.feeder.keywords(batch, network.device))
            chain.close()
            refuse_foreign(raw[0], network, len(batch))
            if not states:
                states.reserve(-(-len(samples) // size), raw[0].hidden)
            made, beside = calls_of(raw, network.form, known, not calls)
            states.append(raw[0].hidden, beside)
            calls.append(made)
    return calls


def refuse_foreign(call: Call, network: Any, sequences: int) -> None:
    """ValueError unless the hidden state has three axes or more, and the sequences on the first."""
    if call.hidden.dim() < 3 or len(call.hidden) != sequences:
        raise ValueError(
            f"{type(network.model).__name__}: its blocks ({network.path}) are given {list(call.hidden.shape)} for "
            f"{sequences} sequences, not [sequences, tokens, hidden]; such models cannot be walked block by block"
        )


def calls_of(raw: list[Call], form: Form, known: list[Tensor], grow: bool) -> tuple[list[Call], dict[int, Any]]:
    """The calls of one batch, one for each block, without the hidden state, and what goes beside it into the first.

    Equal tensors are kept once (prune.pool). What one block makes and another one reads is not kept but handed on: a
    tensor that stood in `form` beside the hidden state, a dict or list that several blocks are given.
    """
    shared = _given_to_several(raw)
    keys = {id(container): -number for number, container in enumerate(shared, 1)}
    keys |= {id(part): place for place, part in enumerate(form.parts) if place and isinstance(part, Tensor)}
    instead, used = {where: Handed(key) for where, key in keys.items()}, set[int]()
    for call in raw:
        used |= {leaf.key for leaf in _leaves((call.args, call.kwargs), instead) if isinstance(leaf, Handed)}
    calls = [
        replace(
            call,
            args=(None, *pool(call.args[1:], known, grow, instead)),
            kwargs=pool(call.kwargs, known, grow, instead),
            hands=tuple(sorted(used)),
        )
        for call in raw
    ]
    return calls, {-number: pool(container, known, grow) for number, container in enumerate(shared, 1)}


def _given_to_several(raw: list[Call]) -> list[Any]:
    """The containers that more than one of these calls is given."""
    met = [{id(there): there for there in containers((call.args[1:], call.kwargs))} for call in raw]
    times = Counter(where for one in met for where in one)
    found = {where: there for one in met for where, there in one.items()}
    return [there for where, there in found.items() if times[where] > 1]


def _leaves(value: Any, instead: dict[int, Any]) -> list[Any]:
    found: list[Any] = []
    each(each(value, lambda leaf: leaf, instead), found.append)
    return found
