"""Where the time of pruning goes: seconds by stage, for a benchmark.

    with clocked(Clock()) as clock: ...
    clock.seconds  # {"calibrate": 1.2, "statistics": 0.4, ...}

Without a clock a stage costs a comparison.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager

_current: list["Clock"] = []  # the clock that runs, if one does


class Clock:
    """Seconds of each stage; what a stage spends inside another one counts for the inner one alone.

    settle: waits until the device has done what it was asked, torch.cuda.synchronize for instance.
    """

    def __init__(self, settle: Callable[[], object] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self.settle = settle
        self._open: list[str] = []
        self._since = 0.0

    def turn(self) -> None:
        """Give the time since the last turn to the stage that is open; none is open between stages."""
        self.settle()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


class stage(ContextDecorator):
    """A part of pruning with a name, as a decorator or around a block of code."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> "stage":
        for clock in _current:
            clock.turn()
            clock._open.append(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        for clock in _current:
            clock.turn()
            clock._open.pop()


@contextmanager
def clocked(clock: Clock) -> Iterator[Clock]:
    """While this lasts, stages are timed by this clock. Only whole stages are: open and close it outside of them."""
    _current.append(clock)
    try:
        yield clock
    finally:
        _current.remove(clock)
