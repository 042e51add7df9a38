"""Where the tensors of a model are while nobody computes with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """One parameter or buffer of a module, by its full name in the model."""

    name: str
    owner: nn.Module
    short: str

    @property
    def tensor(self) -> Tensor:
        """What is there now."""
        return getattr(self.owner, self.short)


def slots(module: nn.Module, path: str = "", but: nn.Module | None = None) -> Iterator[Slot]:
    """All parameters and buffers of the module at this path of the model, but those inside another one."""
    left_out = {id(inner) for inner in but.modules()} if but is not None else set()
    for inner, owner in module.named_modules(prefix=path):
        if id(owner) not in left_out:
            for short, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
                if tensor is not None:
                    yield Slot(f"{inner}.{short}" if inner else short, owner, short)


@runtime_checkable
class Home(Protocol):
    """Brings tensors to the device, and takes them back."""

    forgets: bool  # whether what is written into a tensor is lost when it leaves

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None: ...
    def leave(self, tensors: Iterable[Slot]) -> None: ...


class Host:
    """The memory of the host (or whatever device the model was built on): a model that is there as a whole."""

    forgets: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None:
        """Moves them; whoever holds a parameter goes on holding it."""
        for slot in tensors:
            slot.tensor.data = slot.tensor.data.to(device)

    def leave(self, tensors: Iterable[Slot]) -> None:
        """Moves them back, with what was written into them."""
        self.bring(tensors, self.device)
