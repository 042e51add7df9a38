"""What a method may ask of the calibration data, and the place where it reads the answer.

A statistic is a frozen dataclass: the declaration is also the key, so two components that ask for `Gram()` share one
accumulator and one result, and so do all linears that are fed the same tensor.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Statistic:
    """Base of the kinds below; components list instances of them in `needs`."""

    def notes(self, value: Any) -> dict[str, int]:
        """What a person should hear about this value (a fallback taken, features that never fired), if anything."""
        return {}


@dataclass(frozen=True)
class InputStatistic(Statistic):
    """A sum over the tokens that enter a linear layer, reported as the mean per calibration sample (Wanda's unit)."""

    takes_half: ClassVar[bool] = False  # whether x comes as the model has it, which may be half precision; else float32

    def of(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "..."]:
        """The contribution of one batch, float32; contributions add up."""
        raise NotImplementedError

    def add(self, total: Float[Tensor, "..."], x: Float[Tensor, "tokens i"]) -> Float[Tensor, "..."]:
        """Add a batch's contribution to a total, in place."""
        return total.add_(self.of(x))


@dataclass(frozen=True)
class PairedStatistic(InputStatistic):
    """A sum over tokens that looks at both streams: what enters a linear now, and what enters it in the dense model.

    Who asks for one sets Component.reference to dense.
    """

    def of(self, x: Float[Tensor, "tokens i"]) -> Float[Tensor, "..."]:
        """Where both streams are one."""
        return self.of_pair(x, x)

    def of_pair(self, x: Float[Tensor, "tokens i"], dense: Float[Tensor, "tokens i"]) -> Float[Tensor, "..."]:
        """The contribution of one batch, float32; contributions add up."""
        raise NotImplementedError


@dataclass(frozen=True)
class DerivedStatistic(Statistic):
    """A pure function of another statistic, computed at most once per set of linears that share an input."""

    source: ClassVar[Statistic]

    def of(self, source: Tensor) -> Any:
        """The derived value; raises ArithmeticError with a reason when there is none."""
        raise NotImplementedError


@dataclass(frozen=True)
class ModelStatistic(Statistic):
    """Found once on the whole dense model, before any block is touched: a loss gradient, a trace, a spectrum.

    It depends on model, samples and its own fields only, so that one answer serves every run of a sweep.
    """

    data: ClassVar[bool] = True  # whether it reads the calibration samples
    holds: ClassVar[int] = 0  # hidden states of a sample that it keeps of every block at once

    def empty(self, matrix: tuple[int, int]) -> Tensor:
        """A tensor like the one that `of` finds for a matrix [o, i], without memory; for plans."""
        return torch.empty(matrix, device="meta")

    def passes(self, sequences: int) -> tuple[int, int]:
        """Forward and backward passes of one sample through the model that `of` makes of so many; for plans."""
        return (sequences if self.data else 0), 0

    def of(self, network: Any, samples: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Block after block, in any order: its path, and on the host a tensor for each matrix by full name.

        network: the dense prune.network.Network; samples: prune.feeder.Samples, or None without `data`.
        """
        raise NotImplementedError


Values = dict[Statistic, Any]
Surveyed = Mapping[ModelStatistic, Mapping[str, Tensor]]  # by full name of the matrix, on the host


@dataclass
class Gathered:
    """What one pass over the calibration data found out about a linear."""

    values: Values  # one and the same dict for all linears that share an input
    tokens: int | None  # tokens that reached it and were not all zero; None if there are no calibration data


class Stats:
    """Everything known about one linear: `stats[Gram()]`, `stats[InverseFactor(0.01)]`.

    Values are gathered at the first look, so an allocator that reads nothing costs no pass over the data, and what is
    derived from them is derived once for all linears that share an input.
    """

    def __init__(
        self,
        name: str,
        gather: Callable[[], Gathered],
        surveyed: Surveyed | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.name, self._gather, self._surveyed, self._device = name, gather, surveyed or {}, device
        self._own: Values = {}  # of model statistics, which siblings do not share

    @property
    def tokens(self) -> int | None:
        """How many calibration tokens said anything about this linear; None if none were needed."""
        return self._gather().tokens

    @property
    def kin(self) -> int:
        """The same number for linears that share an input, and so what is derived from it."""
        return id(self._gather().values)

    def __getitem__(self, key: Statistic) -> Any:
        """The value of a statistic; KeyError if no component declared it, ValueError naming the linear without one."""
        if isinstance(key, ModelStatistic) and key in self._surveyed:
            return self._own.setdefault(key, self._surveyed[key][self.name].to(self._device))
        values = self._gather().values
        if key not in values and isinstance(key, DerivedStatistic):
            try:
                values[key] = key.of(self[key.source])
            except ArithmeticError as reason:
                raise ValueError(f"{self.name}: {reason}") from None
        if key not in values:
            raise KeyError(f"{key} was not collected; list it in `needs`. Collected: {sorted(map(str, values))}")
        return values[key]

    def notes(self) -> dict[str, int]:
        """The notes of all values gathered so far and of all that was surveyed, whoever read it, merged."""
        merged: dict[str, int] = {}
        surveyed = [(key, self[key]) for key, found in self._surveyed.items() if self.name in found]
        for key, value in [*self._gather().values.items(), *surveyed]:
            merged |= key.notes(value)
        return merged


class Component:
    """Anything that reads statistics says which ones; a property where that depends on its fields."""

    needs: ClassVar[tuple[Statistic, ...]] = ()
    runs_block: ClassVar[bool] = False  # whether it reads Unit.calls; the walk then carries one sequence per call
    # What Unit.reference is to give, if that is read: what is dense of the same input, or in the dense model.
    reference: Literal["pruned", "dense"] | None = None
