"""Arguments of a block with all that is inside them: tensors in dicts, lists and tuples."""

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

from torch import Tensor


def each(value: Any, change: Callable[[Any], Any], instead: Mapping[int, Any] | None = None) -> Any:
    """The value with `change` of everything in it that holds nothing else; dicts, lists and tuples are made anew.

    `instead`: by id, what stands for an object that is met on the way, whole.
    """
    if instead and id(value) in instead:
        return instead[id(value)]
    if isinstance(value, dict):
        return {name: each(part, change, instead) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(each(part, change, instead) for part in value)
    if isinstance(value, UserDict):
        made = copy(value)
        made.data = each(value.data, change, instead)
        return made
    return change(value)


def containers(value: Any) -> Iterator[Any]:
    """Everything inside the value, itself included, that can be put into."""
    if isinstance(value, (dict, list, UserDict)):
        yield value
    if isinstance(value, (dict, list, tuple, UserDict)):
        for part in value.values() if isinstance(value, (dict, UserDict)) else value:
            yield from containers(part)


def floats(value: Any) -> list[Tensor]:
    """The floating-point tensors inside the value, in order."""
    found: list[Tensor] = []
    each(value, lambda leaf: found.append(leaf) if is_float(leaf) else None)
    return found


def is_float(value: Any) -> bool:
    """Whether it is a tensor of floating-point numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()
