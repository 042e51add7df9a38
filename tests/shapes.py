"""Checks types and shapes in the calls of prune/, at a third of the price of jaxtyping's own decorator.

That one notes every argument for its messages, checks arguments twice, and makes the checks of a function inside a
function anew in each call; the types of those are left to mypy.
"""

from collections import Counter
from dataclasses import is_dataclass
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

TYPED = beartype(conf=BeartypeConf(is_pep484_tower=True))  # 1 is a float, as it is for mypy and in a command line
SCOPE = jaxtyping.jaxtyped("context")  # in which one letter is one length
MOST = 50  # calls of one function with tensors that a test checks, or a fixture; a solver makes thousands
calls: Counter = Counter()


def checked(thing):
    """A function that refuses what its annotations exclude; a dataclass that does so when it is made."""
    if isinstance(thing, type):
        if is_dataclass(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if "<locals>" in thing.__qualname__:
        return thing
    hints = {name: Any if isinstance(hint, str) else hint for name, hint in thing.__annotations__.items()}
    thing.__annotations__ = hints
    if not any("jaxtyping" in str(hint) for hint in hints.values()):
        return TYPED(thing)  # without letters it needs no scope

    @wraps(thing)
    def called(*arguments, **named):  # a generator, too, is checked here, and not in the scope of who asks it first
        return thing(*arguments, **named)

    strict = TYPED(called if isgeneratorfunction(thing) else thing)

    @wraps(thing)
    def call(*arguments, **named):
        calls[thing] += 1
        if calls[thing] > MOST:
            return thing(*arguments, **named)
        with SCOPE:
            return strict(*arguments, **named)

    return call


def install() -> None:
    """From here on, what is imported of prune/ is checked."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    jaxtyping.install_import_hook("prune", "beartype.beartype")
