"""Progress bars, on a terminal alone: what is done, how much of it there is, and the time that is left."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from prune.progress import shown_by

_labels: list[str] = []  # the last one holds


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """While this lasts, every pass over a model, and every bar of `under_label`, is shown and called by this name."""
    _labels.append(label)
    try:
        with shown_by(bar):
            yield
    finally:
        _labels.pop()


def named(what: str) -> str:
    """What a bar is called: by the label that holds, and the part of its work."""
    return ": ".join(part for part in (*_labels[-1:], what) if part)


def bar(things: Iterable[Any], what: str, total: int, unit: str, known: int) -> Iterator[Any]:
    """The things with a bar around them, as `prune.progress.passing` asks; time counts from the last known one."""
    with tqdm(desc=named(what), total=total, unit=unit, leave=False, disable=None) as shown:
        for thing in things:
            yield thing
            del thing  # the next one is made before the loop comes back here
            shown.update()
            if shown.n <= known and not shown.disable:
                done = shown.n
                shown.reset()
                shown.n = shown.initial = shown.last_print_n = done


def under_label(*things: Any, desc: str | None = None, disable: bool | None = None, **settings: Any) -> tqdm:
    """A tqdm of another package, called by the label that holds, on a terminal alone."""
    return tqdm(*things, desc=named(desc or ""), disable=disable or None, leave=False, **settings)
