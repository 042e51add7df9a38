"""Memory of the emulated device (tests/emulated.py): far tensors on the host's memory, bytes, copies, pinned memory."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NAME = "far"
FAR = torch.device("privateuseone", 0)  # what torch calls it until it is given its name
CPU_KERNEL = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class Memory:
    """What a GPU's allocator and its stream know."""

    def __init__(self) -> None:
        self.held = self.peak = 0  # bytes of live tensors; the most of them since `measured`
        self.underway: list[tuple[Tensor, Tensor]] = []  # pinned tensors, and what will have been copied to them

    def take(self, size: int) -> None:
        """A storage is made."""
        self.held += size
        self.peak = max(self.peak, self.held)

    def give(self, size: int) -> None:
        """Its last tensor is gone."""
        self.held -= size

    def wait(self) -> None:
        """Until all copies are done."""
        for target, values in self.underway:
            target.copy_(values)
        self.underway.clear()

    @contextmanager
    def measured(self) -> Iterator["Memory"]:
        """`peak` counts anew."""
        self.peak = self.held
        yield self


memory = Memory()


def on_host(tensor: Tensor) -> Tensor:
    """A host tensor on the memory of a far one."""
    place = (tensor.storage_offset(), tensor.size(), tensor.stride())
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage().host, *place)


def far_storage(host: torch.UntypedStorage) -> torch.UntypedStorage:
    """This memory as memory of the device, counted until its last tensor is gone."""
    storage = torch._C._construct_storage_from_data_pointer(host.data_ptr(), FAR, host.nbytes())
    storage.host = host  # torch keeps the Python object of a storage for as long as a tensor uses it
    memory.take(host.nbytes())
    weakref.finalize(storage, memory.give, host.nbytes()).atexit = False
    return storage


def put(far: Tensor, storage: torch.UntypedStorage, host: Tensor) -> Tensor:
    """The far tensor, at the place in this storage that the host tensor has in its own."""
    place = (host.storage_offset(), host.size(), host.stride())
    return torch.ops.aten.set_.source_Storage_storage_offset.redispatch(CPU_KERNEL, far, storage, *place)


def wrapped(host: Tensor, storage: torch.UntypedStorage) -> Tensor:
    """A new far tensor."""
    return put(torch._C._acc.create_empty_tensor((0,), host.dtype), storage, host)


def copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Between the host and the device, in the order of one stream."""
    values, place = (on_host(end) if end.device.type == NAME else end for end in (source, target))
    away = target.device.type != NAME
    if away and non_blocking and getattr(target.untyped_storage(), "pinned", False):
        memory.underway.append((target, values.to(target.dtype, copy=True)))
        target.fill_(float("nan") if target.is_floating_point() else 77)  # as good as anything else, until then
    else:
        if source.device.type != target.device.type:
            memory.wait()
        place.copy_(values)
    return target


empty = torch.empty


def empty_maybe_pinned(*args: Any, pin_memory: bool = False, **named: Any) -> Tensor:
    """torch.empty, where pinned memory is memory with a mark."""
    made = empty(*args, **named)
    if pin_memory:
        made.untyped_storage().pinned = True
    return made
