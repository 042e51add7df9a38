"""Equal tensors are kept once: the masks and rotary tables that a model makes anew for every batch and block."""

from typing import Any

import torch
from torch import Tensor


def pool(value: Any, known: list[Tensor], grow: bool) -> Any:
    """The value, with known tensors in place of equal ones; new ones become known if `grow`."""
    if isinstance(value, dict):
        return {name: pool(part, known, grow) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(pool(part, known, grow) for part in value)
    if not isinstance(value, Tensor):
        return value
    for other in known:
        if other is value or (other.shape == value.shape and other.dtype == value.dtype and torch.equal(other, value)):
            return other
    if grow:
        known.append(value)
    return value
