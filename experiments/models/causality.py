"""Whether a model is causal: what a token is told does not depend on later ones. Found on made-up numbers in place of
its weights, so that none is read: it is the same for a plan, for a run and for a model read block by block.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prune.call import Reached, axis_of, first_of, leading
from prune.decoder import Decoder
from prune.home import Slot
from prune.own import depends

STRIDES = (11, 7, 5, 3, 1)  # of made-up numbers: a matrix of any size is a few of them, shifted from row to row


class MadeUp:
    """The home of a model on the meta device whose parameters are not read: other numbers stand in for them."""

    forgets: ClassVar[bool] = True

    def __init__(self) -> None:
        self.bare: dict[str, nn.Parameter] = {}

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None:
        """Parameters are made up; buffers are there."""
        for slot in tensors:
            there = slot.tensor
            if isinstance(there, nn.Parameter) and there.is_meta:
                self.bare[slot.name] = there
                numbers = made_up(there.shape).to(device)
                slot.owner._parameters[slot.short] = nn.Parameter(numbers, requires_grad=False)

    def leave(self, tensors: Iterable[Slot]) -> None:
        """The model is as it was."""
        for slot in tensors:
            if slot.name in self.bare:
                slot.owner._parameters[slot.short] = self.bare.pop(slot.name)


def made_up(shape: torch.Size) -> Tensor:
    """Numbers in float32, near 1 on one axis and with a mean of 0 on several; a matrix takes the memory of its rows."""
    generator = torch.Generator().manual_seed(0)
    strides = STRIDES[len(STRIDES) - len(shape) :]
    size = 1 + sum((width - 1) * stride for width, stride in zip(shape, strides, strict=True))
    numbers = torch.randn(size, generator=generator)
    if len(shape) < 2:
        return 1 + 0.1 * numbers.view(shape)
    return (numbers / shape[-1] ** 0.5).as_strided(shape, strides)


def causal(model: Any, blocks: str | None) -> bool:
    """Whether a later token leaves what the first block tells earlier ones as it is.

    True, too, where the model cannot be run so: then it is not known before a walk looks at every block (prune.own).
    """
    states: list[Tensor] = []

    def stop(_: nn.Module, args: Any, output: Any) -> None:
        states.append(first_of(output))
        raise Reached

    decoder = Decoder(model, None, blocks, home=MadeUp())
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    handle = decoder.blocks[0].register_forward_hook(stop)
    try:
        with torch.no_grad(), decoder.at(0), decoder.outside(), suppress(Exception):
            model.base_model(tokens, use_cache=False)
    finally:
        handle.remove()
    axis = axis_of(states[0].shape, *tokens.shape) if states else None
    if axis is None:
        return True
    one, other = leading(states[0], axis)[:, :-1].split(1)
    return not depends(one, other)
