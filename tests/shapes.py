"""Checks types and shapes in every call of prune/, at a third of the price of jaxtyping's own decorator.

That one notes every argument for its messages, checks arguments twice, and makes the checks of a function inside a
function anew in each call; the types of those are left to mypy.
"""

from dataclasses import is_dataclass
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

TYPED = beartype(conf=BeartypeConf(is_pep484_tower=True))  # 1 is a float, as it is for mypy and in a command line
SCOPE = jaxtyping.jaxtyped("context")  # in which one letter is one length


def checked(thing):
    """A function that refuses what its annotations exclude; a dataclass that does so when it is made."""
    if isinstance(thing, type):
        if is_dataclass(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if "<locals>" in thing.__qualname__:
        return thing
    thing.__annotations__ = {
        name: Any if isinstance(hint, str) else hint for name, hint in thing.__annotations__.items()
    }

    @wraps(thing)
    def called(*arguments, **named):  # a generator, too, is checked here, and not in the scope of who asks it first
        return thing(*arguments, **named)

    strict = TYPED(called)

    @wraps(thing)
    def call(*arguments, **named):
        with SCOPE:
            return strict(*arguments, **named)

    return call


def install() -> None:
    """From here on, what is imported of prune/ is checked."""
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    jaxtyping.install_import_hook("prune", "beartype.beartype")
