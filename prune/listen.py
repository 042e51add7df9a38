"""Hears what enters each linear of a block while it runs, and adds up statistics of it."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from prune import ranks
from prune.clock import stage
from prune.statistic import InputStatistic, Values

Heard = Callable[[str, Tensor], None]
PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)  # x @ weight.T is how Falcon applies its linears


class Listener(TorchFunctionMode):
    """Tells `heard(name, x)` of every linear applied with one of these matrices, fused experts included."""

    def __init__(self, names: dict[int, str], heard: Heard) -> None:
        super().__init__()
        self.names, self.heard = names, heard

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is linear:
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            if (name := self.names.get(weight.data_ptr())) is not None:
                self.heard(name, args[0] if args else (kwargs or {})["input"])
        elif func in PRODUCTS and len(args) == 2 and (name := self.names.get(args[1].data_ptr())) is not None:
            self.heard(name, args[0])
        return func(*args, **(kwargs or {}))


class Same:
    """Which inputs of one forward are the very same tensor: the first linear that was fed it leads the others."""

    def __init__(self) -> None:
        self.seen: list[tuple[weakref.ref[Tensor], str]] = []

    def leader(self, name: str, x: Tensor) -> str:
        for reference, first in self.seen:
            if reference() is x:
                return first
        self.seen.append((weakref.ref(x), name))
        return name


class Sums:
    """Sums of statistics over all forwards, for the `wanted` linears; those that share an input share the sums."""

    def __init__(self, statistics: list[InputStatistic], wanted: set[str]) -> None:
        self.statistics, self.wanted = statistics, wanted
        self.values: dict[str, Values] = {}  # by leader
        self.tokens: dict[str, Any] = {}  # by leader: tokens that were not all zero
        self.leaders: dict[str, str] = {}

    def of_one_forward(self) -> Heard:
        """What is to be told of one forward; tensors are the same only within it."""
        same = Same()

        def add(name: str, x: Tensor) -> None:
            if name not in self.wanted:
                return
            leader = self.leaders[name] = same.leader(name, x)
            if leader == name and x.numel():
                self.add(name, x.reshape(-1, x.shape[-1]))

        return add

    @stage("statistics")
    def add(self, name: str, x: Tensor) -> None:
        """One batch of inputs, [tokens, i], in the model's dtype."""
        self.tokens[name] = self.tokens.get(name, 0) + x.any(1).sum()
        total, wide = self.values.setdefault(name, {}), x.float()
        for s in self.statistics:
            batch = x if s.takes_half else wide
            total[s] = s.add(total[s], batch) if s in total else s.of(batch)

    def over_ranks(self, device: torch.device) -> None:
        """The sums of all ranks in place of mine. What nothing reached on one of them counts 0 there."""
        shapes = {name: [total[s].shape for s in self.statistics] for name, total in self.values.items()}
        tokens = {name: int(count) for name, count in self.tokens.items()}
        for others in reversed(told := ranks.everyone(lambda: (self.leaders, tokens, shapes))):
            self.leaders |= others[0]
        self.tokens = {}
        for _, counted, _ in told:
            for name, count in counted.items():
                self.tokens[name] = self.tokens.get(name, 0) + count
        for name, sizes in {name: sizes for _, _, seen in told for name, sizes in seen.items()}.items():
            mine = self.values.setdefault(name, {})
            for s, size in zip(self.statistics, sizes, strict=True):
                mine[s] = ranks.total(mine[s] if s in mine else torch.zeros(size, device=device))
