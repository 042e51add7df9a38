"""Updates one after the other on the same unit: each goes on from the masks and weights that the one before left."""

from dataclasses import dataclass, replace
from typing import Literal

from prune.method import Pruned, Quantizer, Unit, Update
from prune.pattern import Pattern
from prune.statistic import Statistic


@dataclass(frozen=True)
class Chain(Update):
    """Two updates or more, in order; their notes and measures are put together. Only the last rounds in its sweep."""

    updates: tuple[Update, ...]

    def __post_init__(self) -> None:
        """ValueError for an update that would undo one before it."""
        if len({update.reference for update in self.updates} - {None}) > 1:
            raise ValueError("the updates of a chain want other targets; give all of them one reference")
        for k, update in enumerate(self.updates):
            moved = next((before for before in self.updates[:k] if before.refits), None)
            if moved is not None and not update.goes_on:
                who, before = type(update).__name__, type(moved).__name__
                raise ValueError(
                    f"update {who} starts from the dense weights and would undo {before}; put it before that"
                )

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        """What any of them asks for."""
        return tuple(dict.fromkeys(statistic for update in self.updates for statistic in update.needs))

    @property
    def runs_block(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(update.runs_block for update in self.updates)

    @property
    def reference(self) -> Literal["pruned", "dense"] | None:  # type: ignore[override]
        """The one that they ask for."""
        return next((update.reference for update in self.updates if update.reference), None)

    @property
    def refits(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(update.refits for update in self.updates)

    def check(self, pattern: Pattern, given: str | None = None) -> None:
        """ValueError if one of them cannot work with this pattern, or with (or without) masks and weights before it."""
        for k, update in enumerate(self.updates):
            update.check(pattern, given if k == 0 else type(self.updates[k - 1]).__name__)

    def __call__(self, unit: Unit) -> dict[str, Pruned]:
        """The answers of the last one."""
        linears = {name: replace(linear, quantizer=Quantizer()) for name, linear in unit.linears.items()}
        found = self.updates[0](replace(unit, linears=linears))
        for k, update in enumerate(self.updates[1:], 2):
            own = unit.linears if k == len(self.updates) else linears
            now = update(replace(unit, linears={name: replace(own[name], given=found[name]) for name in own}))
            found = {name: after(found[name], answer) for name, answer in now.items()}
        return found


def after(before: Pruned, answer: Pruned) -> Pruned:
    """An answer with what was noted of the one before."""
    return replace(answer, notes=before.notes | answer.notes, measures=before.measures | answer.measures)


def chain(first: Update, then: dict[str, Update]) -> Update:
    """One update and those that follow it, by name; the first alone where none does."""
    return Chain((first, *then.values())) if then else first
