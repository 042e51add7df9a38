"""Counts what tensors cost while code runs, on real tensors or on those that have a shape and no memory."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from prune.statistic import InputStatistic

TOKENS = 64  # that a statistic is counted on
aten = torch.ops.aten
# Floating-point operations by the arguments; torch's own table leaves factorisations and a CPU's attention out.
FORMULAS: dict[Any, Callable[..., float]] = {
    **flop_registry,
    aten.addmm_: flop_registry[aten.addmm],
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten.linalg_cholesky_ex: lambda a, *_, **__: len(a) ** 3 / 3,
    aten.cholesky_inverse: lambda a, *_, **__: 2 * len(a) ** 3 / 3,
    aten.linalg_solve_triangular: lambda a, b, *_, **__: len(a) * b.numel(),
    aten.cholesky_solve: lambda b, a, *_, **__: 2 * len(a) * b.numel(),
    aten._linalg_eigh: lambda a, *_, **__: 4 * len(a) ** 3 / 3,
}


@dataclass(frozen=True)
class Counts:
    """operations: floating-point, of matrix products and factorisations; attention: those among them of attention that
    keeps no scores. traffic: bytes that all else reads and writes; calls: of torch's operations that compute. peak,
    left: bytes alive at once, and still alive at the end, of what was made inside.
    """

    operations: float
    peak: float
    left: float
    attention: float = 0.0
    traffic: float = 0.0
    calls: int = 0

    def stretched(self, times: float) -> "Counts":
        """Those of so many times the tokens in one sequence: attention grows with their square."""
        attention = times**2 * self.attention
        others = times * (self.operations - self.attention)
        sizes = (times * size for size in (self.peak, self.left))
        return Counts(others + attention, *sizes, attention, times * self.traffic, self.calls)


class _Watch(TorchDispatchMode):
    """Adds up what every operation computes, and what is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.attention, self.traffic, self.calls, self.alive, self.peak = 0.0, 0.0, 0, 0, 0, 0
        self.known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; to keep the compiler out, torch would first import it, which takes a second."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.is_view:
            return output
        made = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.calls += 1
        if (formula := FORMULAS.get(func.overloadpacket)) is None:
            self.traffic += sum(leaf.numel() * leaf.element_size() for leaf in made + read)
        else:
            operations = formula(*args, **(kwargs or {}), out_val=output)
            self.operations += operations
            self.attention += operations if "attention" in func.overloadpacket.__name__ else 0.0
        given = {leaf.untyped_storage()._cdata for leaf in read}
        for leaf in made:
            self._add(leaf.untyped_storage(), given)
        return output

    def _add(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or key in given:
            return
        self.known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def count(run: Callable[[], Any]) -> tuple[Any, Counts]:
    """What `run` answers, and what it cost; its answer counts as left over."""
    with _Watch() as watch:
        answer = run()
    return answer, Counts(watch.operations, watch.peak, watch.alive, watch.attention, watch.traffic, watch.calls)


@cache
def summing(statistic: InputStatistic, width: int) -> float:
    """Operations that a statistic takes for each token of `width` features."""
    return count(partial(statistic.of, torch.empty(TOKENS, width, device="meta")))[1].operations / TOKENS


@cache
def summing_traffic(statistic: InputStatistic, width: int, tokens: int) -> float:
    """Bytes that it reads and writes for so many tokens at once."""
    return count(partial(statistic.of, torch.empty(tokens, width, device="meta")))[1].traffic


@cache
def statistic_size(statistic: InputStatistic, width: int) -> int:
    """Bytes of one value of it."""
    return statistic.of(torch.empty(TOKENS, width, device="meta")).nbytes
