"""Equal tensors are kept once: the masks and rotary tables that a model makes anew for every batch and block."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prune.nested import each


def pool(value: Any, known: list[Tensor], grow: bool, instead: Mapping[int, Any] | None = None) -> Any:
    """The value, with known tensors in place of equal ones; new ones become known if `grow`.

    `instead`: by id, what stands for an object.
    """

    def kept(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        for other in known:
            if other is leaf or (other.shape == leaf.shape and other.dtype == leaf.dtype and torch.equal(other, leaf)):
                return other
        if grow:
            known.append(leaf)
        return leaf

    return each(value, kept, instead)
