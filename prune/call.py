"""One forward of a block: what it is given, and what it hands on to the next one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prune.nested import each, floats, is_float
from prune.states import States


class Reached(Exception):
    """The forward got as far as it is needed."""


@dataclass(frozen=True)
class Handed:
    """Stands in a call's arguments for what the blocks before it made, under this key of Call.beside.

    A positive key is a place in what the block before returned; another one a container that several blocks are given,
    such as the keys and values that later layers reuse.
    """

    key: int


@dataclass(frozen=True)
class Call:
    """The arguments of one forward of a block; the hidden state comes first, with its sequences and tokens in front.

    `beside`: what the blocks hand on beside the hidden state, by key; `hands`: the keys of what this one hands on.
    `name`: the keyword under which the block takes the hidden state; None where it takes it as its first argument.
    `axis`: where its sequences are in what the block takes and returns, and its tokens one further.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int = 0  # which of the calls of its block
    beside: dict[int, Any] = field(default_factory=dict)
    hands: tuple[int, ...] = ()
    name: str | None = None
    axis: int = 0

    @property
    def hidden(self) -> Float[Tensor, "*b h"]:
        return self.args[0]

    def at(self, hidden: Float[Tensor, "*b h"], beside: dict[int, Any] | None = None) -> "Call":
        """The same call on another hidden state, and with other things beside it."""
        return replace(self, args=(hidden, *self.args[1:]), beside=self.beside if beside is None else beside)

    def changed(self, change: Callable[[Any], Any]) -> "Call":
        """With `change` of all its tensors, and of what else its containers hold."""
        args, kwargs, beside = each((self.args, self.kwargs, self.beside), change)
        return replace(self, args=args, kwargs=kwargs, beside=beside)

    def through(self, block: Callable[..., Any]) -> "Call":
        """What leaves a block that is called so; its containers are copies, so that no run is seen by another one."""
        beside = each(self.beside, lambda leaf: leaf)
        fill = lambda leaf: beside[leaf.key] if isinstance(leaf, Handed) else leaf
        args, kwargs = each((self.args, self.kwargs), fill)
        args = (*(lying(hidden, self.axis) for hidden in args[:1]), *args[1:])
        output = block(*args, **kwargs) if self.name is None else block(*args[1:], **kwargs | {self.name: args[0]})
        left = {key: output[key] if key > 0 else beside[key] for key in self.hands}
        return self.at(leading(first_of(output), self.axis), left)

    def packed(self) -> Float[Tensor, "..."]:
        """All that a loss can be differentiated by: the hidden state, or one row of it and the numbers beside it."""
        numbers = floats(self.beside)
        return torch.cat([part.flatten() for part in (self.hidden, *numbers)]) if numbers else self.hidden

    def unpacked(self, packed: Float[Tensor, "..."]) -> "Call":
        """The same call on what was packed so."""
        numbers = floats(self.beside)
        if not numbers:
            return self.at(packed)
        parts = iter(packed.split([part.numel() for part in (self.hidden, *numbers)]))
        hidden = next(parts).view(self.hidden.shape)
        return self.at(hidden, each(self.beside, lambda leaf: next(parts).view(leaf.shape) if is_float(leaf) else leaf))

    def bare(self) -> "Call":
        """The same call without the numbers that are packed, only their shapes."""
        shape = lambda leaf: torch.empty_like(leaf, device="meta") if is_float(leaf) else leaf
        return self.at(shape(self.hidden), each(self.beside, shape))


def first_of(output: Any) -> Tensor:
    """The hidden state that a block returned, alone or before other things."""
    return output if isinstance(output, Tensor) else output[0]


def axis_of(shape: torch.Size, sequences: int, tokens: int) -> int | None:
    """On which axis of a hidden state so many sequences are, of so many tokens on the next one; None if on none."""
    return next((k for k in range(len(shape) - 2) if shape[k : k + 2] == (sequences, tokens)), None)


def leading(hidden: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """A block's hidden state, whose sequences are on this axis and tokens on the next, with both in front."""
    return hidden.movedim((axis, axis + 1), (0, 1)) if axis else hidden


def lying(hidden: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """The reverse: as a block takes it."""
    return hidden.movedim((0, 1), (axis, axis + 1)).contiguous() if axis else hidden


def called(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int = 0) -> Call:
    """The call with its hidden state in front, which much code passes by name; ValueError if there is none.

    `axis`: where the sequences are in it.
    """
    if args:
        return Call((leading(args[0], axis), *args[1:]), kwargs, axis=axis)
    names = ["hidden_states", *signature(type(block).forward).parameters]
    name = next((name for name in names if isinstance(kwargs.get(name), Tensor)), None)
    if name is None:
        raise ValueError(f"{type(block).__name__} is called without a hidden state; set model.blocks to another list")
    rest = {key: value for key, value in kwargs.items() if key != name}
    return Call((leading(kwargs[name], axis),), rest, name=name, axis=axis)


class Calls(Sequence[Call]):
    """The calls of a block; the hidden state of each waits where `states` keeps it until the call is asked for."""

    def __init__(self, made: list[Call], states: States, whole: int = 0) -> None:
        """`whole`: the sequences of all ranks together where these are one's share of them; else 0."""
        self.made = [replace(call, number=k) for k, call in enumerate(made)]
        self.states, self.whole = states, whole

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self[place] for place in range(*k.indices(len(self)))]
        return self.made[k].at(self.states[k], self.states.beside(k))

    def __setitem__(self, k: int, call: Call) -> None:
        """Another hidden state for the same call."""
        self.states.put(k, call.hidden, call.beside)

    @property
    def sequences(self) -> int:
        """How many calibration sequences they are together, over all ranks that share them."""
        return self.whole or sum(len(state) for state in self.states.waiting)
