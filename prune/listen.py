"""Hears what enters each linear of a block while it runs, and adds up statistics of it."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

from prune import ranks
from prune.clock import stage
from prune.statistic import InputStatistic, PairedStatistic, Values

aten = torch.ops.aten
PRODUCTS = {  # the first factor's place among the arguments; linear, matmul, @ and einsum all come down to these
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv), 0),
    **dict.fromkeys((aten.addmm, aten.addmm_, aten.addmv, aten.addbmm, aten.baddbmm, aten.baddbmm_), 1),
}
COPIES = {aten.clone, aten._to_copy}
Origin = tuple[Any, ...]  # equal for tensors that hold the same numbers in the same order
Heard = Callable[[str, Tensor, Origin], None]  # (matrix, what enters it [n, i], where that comes from)


class Listener(TorchDispatchMode):
    """Tells of every product of one of these matrices [o, i], or of its first rows, with what enters it.

    However the block writes it: transposed, on the left or the right, by expert, or after a copy to another dtype.
    """

    def __init__(self, matrices: Mapping[str, Tensor], heard: Heard) -> None:
        super().__init__()
        self.heard, self.apart = heard, set[str]()  # matrices of which other rows were applied to another input
        self.last: dict[str, Origin] = {}  # what entered a matrix last
        self.known: weakref.WeakKeyDictionary[UntypedStorage, dict[int, list[tuple[str, Tensor]]]]
        self.known, self.copies = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary[UntypedStorage, Origin]()
        for name, matrix in matrices.items():
            starts = self.known.setdefault(matrix.untyped_storage(), {})
            starts.setdefault(int(matrix.storage_offset()), []).append((name, matrix))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; to keep the compiler out, torch would first import it, which takes a second."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if (first := PRODUCTS.get(packet)) is not None:
            left, right = args[first : first + 2]
            if left.untyped_storage() in self.known:
                self._applied(left, right.mT if right.dim() > 1 else right[None])
            if right.untyped_storage() in self.known and right.dim() > 1:
                self._applied(right.mT, left)
        made = func(*args, **(kwargs or {}))
        if packet in COPIES and made.untyped_storage() is not args[0].untyped_storage():
            self._copied(args[0], made)
        return made

    def _applied(self, weight: Tensor, x: Tensor) -> None:
        """A weight [o, i] or [b, o, i] to inputs [n, i] or [b, n, i]."""
        starts = self.known[weight.untyped_storage()]
        alone = weight.dim() == 2 or len(weight) == 1 or weight.stride(0) == 0
        pairs = [(weight[(0,) * (weight.dim() - 2)], x.flatten(0, -2))] if alone else zip(weight, x, strict=True)
        for piece, entering in pairs:
            origin = self._origin(entering)
            whole = [name for name, m in starts.get(int(piece.storage_offset()), ()) if begins(piece, m)]
            for name in whole:
                self.last[name] = origin
                self.heard(name, entering, origin)
            if not whole:
                around = [name for found in starts.values() for name, m in found if inside(piece, m)]
                self.apart |= {name for name in around if self.last.get(name) != origin}

    def _origin(self, x: Tensor) -> Origin:
        storage = x.untyped_storage()
        version = 0 if x.is_inference() else x._version
        place = (x.storage_offset(), x.shape, x.stride(), x.dtype, version)
        return (self.copies.get(storage) or weakref.ref(storage), *place)

    def _copied(self, source: Tensor, made: Tensor) -> None:
        """A copy holds the same numbers, and the same matrices where they lie alike in it."""
        there, storage = source.untyped_storage(), made.untyped_storage()
        self.copies[storage] = self._origin(source)
        if there in self.known and source.stride() == made.stride():
            shift = int(made.storage_offset() - source.storage_offset())
            self.known[storage] = {start + shift: found for start, found in self.known[there].items()}


def root(origin: Origin) -> UntypedStorage | None:
    """The memory that a tensor was copied from, or its own; None if that is gone."""
    while isinstance(origin[0], tuple):
        origin = origin[0]
    return origin[0]()


def begins(piece: Tensor, matrix: Tensor) -> bool:
    """Whether the first rows of the matrix, or all of them, lie as the piece does, which starts where it starts."""
    rows, columns = piece.shape
    alike = (rows == 1 or piece.stride(0) == matrix.stride(0)) and (columns == 1 or piece.stride(1) == matrix.stride(1))
    return alike and rows <= matrix.shape[0] and columns == matrix.shape[1]


def inside(piece: Tensor, matrix: Tensor) -> bool:
    """Whether the piece starts inside the matrix."""
    last = sum((size - 1) * step for size, step in zip(matrix.shape, matrix.stride(), strict=True))
    return 0 <= int(piece.storage_offset() - matrix.storage_offset()) <= last


class Same:
    """Which inputs of one forward are the same numbers: the first linear that was fed them leads the others."""

    def __init__(self) -> None:
        self.seen: dict[Origin, str] = {}

    def leader(self, name: str, origin: Origin) -> str:
        return self.seen.setdefault(origin, name)


class Sums:
    """Sums of statistics over all forwards, for the `wanted` linears; those that share an input share the sums."""

    def __init__(self, statistics: list[InputStatistic], wanted: set[str]) -> None:
        self.paired = [s for s in statistics if isinstance(s, PairedStatistic)]
        self.statistics, self.wanted = [s for s in statistics if s not in self.paired], wanted
        self.entered: dict[
            str, list[Tensor]
        ] = {}  # by leader: what entered in the last forward, where pairs are wanted
        self.values: dict[str, Values] = {}  # by leader
        self.tokens: dict[str, Any] = {}  # by leader: tokens that were not all zero
        self.leaders: dict[str, str] = {}

    def of_one_forward(self) -> Heard:
        """What is to be told of one forward; tensors are the same only within it."""
        same = Same()
        self.entered.clear()

        def add(name: str, x: Tensor, origin: Origin) -> None:
            if name not in self.wanted:
                return
            leader = self.leaders[name] = same.leader(name, origin)
            if leader == name and x.numel():
                self.add(name, x)
                if self.paired:
                    self.entered.setdefault(name, []).append(x.float())

        return add

    def of_its_twin(self) -> Heard:
        """What is to be told of the dense model's forward of the same samples, behind `of_one_forward`.

        Where it sends other tokens to a linear, as to an expert, there are no pairs, and the streams count as one.
        """

        def add(name: str, dense: Tensor, _: Origin) -> None:
            if not (before := self.entered.get(name)):
                return
            x, total = before.pop(0), self.values[name]
            other = dense.float() if dense.shape == x.shape else x
            for s in self.paired:
                total[s] = total[s].add_(s.of_pair(x, other)) if s in total else s.of_pair(x, other)

        return add

    @stage("statistics")
    def add(self, name: str, x: Tensor) -> None:
        """One batch of inputs, [tokens, i], in the model's dtype."""
        self.tokens[name] = self.tokens.get(name, 0) + x.any(1).sum()
        total, wide = self.values.setdefault(name, {}), x.float()
        for s in self.statistics:
            batch = x if s.takes_half and x.element_size() < 4 else wide
            total[s] = s.add(total[s], batch) if s in total else s.of(batch)

    def over_ranks(self, device: torch.device) -> None:
        """The sums of all ranks in place of mine. What nothing reached on one of them counts 0 there."""
        every = [*self.statistics, *self.paired]
        shapes = {name: [total[s].shape for s in every] for name, total in self.values.items()}
        tokens = {name: int(count) for name, count in self.tokens.items()}
        for others in reversed(told := ranks.everyone(lambda: (self.leaders, tokens, shapes))):
            self.leaders |= others[0]
        self.tokens = {}
        for _, counted, _ in told:
            for name, count in counted.items():
                self.tokens[name] = self.tokens.get(name, 0) + count
        for name, sizes in {name: sizes for _, _, seen in told for name, sizes in seen.items()}.items():
            mine = self.values.setdefault(name, {})
            for s, size in zip(every, sizes, strict=True):
                mine[s] = ranks.total(mine[s] if s in mine else torch.zeros(size, device=device))
