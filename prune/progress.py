"""How far a pass over a model is, for whoever shows it: every walk over the blocks says where it stands.

    with shown_by(bar): ...  # bar(things, what, total, unit, known) is put around the things of every pass

Nothing is shown by itself.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Thing = TypeVar("Thing")
Bar = Callable[[Iterable[Any], str, int, str, int], Iterable[Any]]
_bars: list[Bar | None] = []  # the last one is asked


def passing(things: Iterable[Thing], what: str, total: int, unit: str = "block", known: int = 0) -> Iterable[Thing]:
    """The same things, shown by the bar that is asked, if one is.

    what: the part of a longer piece of work that this pass is, or "". total: how many things there are. known: so many
    of the first ones take no time, as blocks that were solved before.
    """
    bar = _bars[-1] if _bars else None
    return bar(things, what, total, unit, known) if bar else things


@contextmanager
def shown_by(bar: Bar | None) -> Iterator[None]:
    """While this lasts, passes that begin are shown by this bar; None shows none."""
    _bars.append(bar)
    try:
        yield
    finally:
        _bars.pop()
