"""A checkpoint as the home of a model, whose tensors are read when they are needed, and dropped."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from experiments.models.skeleton import becomes, narrow
from experiments.models.stored import Stored, opened
from prune.home import Host, Slot, slots


@dataclass(frozen=True)
class Shards:
    """Reads a model's parameters from these files, in the dtype the model has on the meta device; its buffers stay.

    `narrow`: the narrower dtype that they are rounded to on the way, if there is one (see `skeleton.narrow`).

    `names`: the model's name of each tensor -> the name in the files, which differs where weights are tied. `beside`:
    what the files hold for others, as the vision tower that no causal language model has.
    """

    folder: Path
    tensors: dict[str, Stored]
    names: dict[str, str]
    beside: list[Stored]
    narrow: torch.dtype | None = None
    forgets: ClassVar[bool] = True

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None:
        """Parameters are read, once for all that are tied; buffers move."""
        brought: dict[str, nn.Parameter] = {}
        for slot in tensors:
            there = slot.tensor
            if not isinstance(there, nn.Parameter):
                there.data = there.data.to(device)
            elif there.is_meta:
                name = self.names[slot.name]
                if name not in brought:
                    brought[name] = nn.Parameter(self.read(name, there.dtype, device), requires_grad=False)
                slot.owner._parameters[slot.short] = brought[name]

    def leave(self, tensors: Iterable[Slot]) -> None:
        """Parameters are dropped, with what was written into them; buffers move back."""
        dropped: dict[int, nn.Parameter] = {}
        for slot in tensors:
            there = slot.tensor
            if isinstance(there, nn.Parameter):
                bare = dropped.setdefault(id(there), nn.Parameter(there.to("meta"), requires_grad=False))
                slot.owner._parameters[slot.short] = bare
            else:
                there.data = there.data.cpu()

    def settle(self, model: nn.Module) -> None:
        """Reads the buffers that the checkpoint holds; they stay in memory from now on."""
        for slot in slots(model):
            if slot.short in slot.owner._buffers and slot.name in self.names:
                slot.tensor.copy_(self.read(self.names[slot.name], slot.tensor.dtype, slot.tensor.device))

    def read(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """One tensor, copied out of its file."""
        with opened(self.tensors[name].file) as source:
            tensor = source.get_tensor(name)
            return (tensor if self.narrow is None else tensor.to(self.narrow)).to(device, dtype, copy=True)


class Memory(Host):
    """The memory of the host, for a model that transformers read whole from this folder, in these dtypes."""

    def __init__(self, folder: Path, dtypes: dict[str, torch.dtype]) -> None:
        super().__init__(torch.device("cpu"))
        self.folder, self.dtypes = folder, dtypes


def match(model: nn.Module, folder: Path, tensors: dict[str, Stored]) -> Shards | None:
    """The folder's tensors as this model's home; None where they are not its parameters one by one: fused, or wrong."""
    state = model.state_dict(keep_vars=True)
    places = {key: name for name, (key, rule) in becomes(model, tensors).items() if rule is None}
    stored: dict[int, str] = {}  # by the tensor, which has several keys where it is tied
    for key, tensor in state.items():
        if key in places:
            stored.setdefault(id(tensor), places[key])
    names = {key: stored[id(tensor)] for key, tensor in state.items() if id(tensor) in stored}
    if names.keys() != state.keys():
        return None
    for key, tensor in state.items():
        source = tensors[names[key]]
        if source.shape != tuple(tensor.shape) or (source.whole and tensor.is_floating_point()):
            return None
    own = {places[key] for key in state if key in places}
    beside = [tensor for name, tensor in tensors.items() if name not in own and not tensor.obsolete]
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    if all(any(re.search(pattern, tensor.name) for pattern in ignored) for tensor in beside):
        return Shards(folder, tensors, names, beside, narrow(model))
    return None
