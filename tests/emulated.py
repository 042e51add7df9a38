"""A GPU that is not there: tensors with real values that say `far:0`, and refuse to meet those of the host.

`far` is torch's spare backend (PrivateUse1) with one kernel in Python: the storage of a far tensor lies in memory of
the host, and an operation is what the CPU's kernel makes of that memory. All that is above the kernels is torch's own:
autograd, forward mode, views, modules, `.data`, copies. So an answer has the bits of the CPU's, unless the code, or
torch, takes another way on a device that is not the CPU: `scaled_dot_product_attention` is torch's plain one (MATH).

As on CUDA
- the tensors of an operation are on one device. Let through are copies, a host tensor without axes beside far ones in
  pointwise operations, and host indices into a far tensor;
- numpy() is refused, and a generator of the host draws no far numbers;
- products round float32 to TF32 where torch.get_float32_matmul_precision() asks for it;
- what is copied to pinned memory without blocking is there only after something has waited for the device;
- `memory` counts the bytes that live tensors hold, workspace inside of the CPU's kernels not among them.

Not as on CUDA: torch.cuda knows nothing of it, sums are in the order of the CPU, and nothing is slow or fast.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import backend_registration

from prune import lowest
from tests.emulated_memory import (
    CPU_KERNEL,
    FAR,
    NAME,
    copy,
    empty_maybe_pinned,
    far_storage,
    memory,
    on_host,
    put,
    wrapped,
)

POINTWISE = {"aten::where", "aten::masked_fill", "aten::masked_fill_", "aten::fill_"}  # beside those that torch tags
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
PRODUCTS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2)}  # their operands
VIEWS = {"aten::view", "aten::as_strided", "aten::_reshape_alias"}
WHOLE = ("native_layer_norm", "native_group_norm", "silu_backward", "mish_backward")  # CUDA has kernels of these, too
WAITING = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"}  # answers that the host has to wait for


def rounded(x: Tensor) -> Tensor:
    """float32 to 10 bits behind the point (TF32), ties to even; other dtypes as they are."""
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return (bits + 0xFFF + (bits >> 13 & 1) & ~0x1FFF).view(torch.float32)


class Kind:
    """What is to be known of an operation, whatever it is given."""

    def __init__(self, op: Any) -> None:
        self.op, self.name, places = op, op._schema.name, op._schema.arguments
        self.indexing = self.name in INDEXING
        self.pointwise = torch.Tag.pointwise in op.tags or self.name in POINTWISE
        self.written = {k for k, place in enumerate(places) if place.alias_info and place.alias_info.is_write}
        self.tensors = [k for k, place in enumerate(places) if isinstance(place.type, torch.TensorType)]
        self.operands = PRODUCTS.get(self.name, ())
        self.waiting = self.name in WAITING
        self.own = OWN.get(str(op))


kind_of = cache(Kind)


class Operation:
    """One call: far tensors go in as host tensors on the same memory, and what comes out becomes far."""

    def __init__(self, kind: Kind, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.kind = kind
        self.pairs: list[tuple[Tensor, Tensor]] = []  # far tensors, the same on the host
        self.near: list[Tensor] = []  # tensors of the host
        self.args = [self.enter(value) for value in args]
        self.named = {key: self.enter(value) for key, value in named.items()}
        if self.near and self.pairs:
            self.refuse_mixed(args)
        generator = named.get("generator")
        if generator is not None and generator.device.type != NAME:
            raise RuntimeError(f"{kind.name}: expected a generator of {NAME}, found one of {generator.device}")

    def enter(self, value: Any) -> Any:
        """The same on the host."""
        if isinstance(value, Tensor):
            if value.device.type == NAME:
                self.pairs.append((value, on_host(value)))
                return self.pairs[-1][1]
            self.near.append(value)
        elif isinstance(value, list | tuple):
            return type(value)(self.enter(part) for part in value)
        elif isinstance(value, torch.device):
            return torch.device("cpu")
        return value

    def refuse_mixed(self, args: tuple[Any, ...]) -> None:
        """RuntimeError for tensors that CUDA does not let meet."""
        indices = list(args[1]) if self.kind.indexing and args[0].device.type == NAME else []
        written = [args[k] for k in self.kind.written if k < len(args)]
        for tensor in self.near:
            scalar = tensor.dim() == 0 and (indices or self.kind.pointwise)
            if any(tensor is index for index in indices) or (scalar and not any(tensor is value for value in written)):
                continue
            raise RuntimeError(f"{self.kind.name}: expected all tensors on one device, found {FAR} and {tensor.device}")

    def run(self) -> Any:
        """What the CPU's kernel finds, as far tensors."""
        if self.kind.waiting:
            memory.wait()
        if self.kind.operands and torch.get_float32_matmul_precision() != "highest":
            self.args = [rounded(value) if k in self.kind.operands else value for k, value in enumerate(self.args)]
        made = self.kernel()(*self.args, **self.named)
        for far, host in self.pairs:  # out= and resize_ may have given it another shape, or other memory
            if host.untyped_storage().data_ptr() != far.data_ptr() - far.storage_offset() * far.itemsize:
                put(far, far_storage(host.untyped_storage()), host)
            elif (host.size(), host.stride()) != (far.size(), far.stride()):
                put(far, far.untyped_storage(), host)
        return self.leave(made)

    def kernel(self) -> Callable[..., Any]:
        """The operation itself; where torch made a number of a tensor argument, its overload for numbers."""
        if self.kind.own is not None:
            return self.kind.own
        if any(k < len(self.args) and isinstance(self.args[k], int | float) for k in self.kind.tensors):
            return self.kind.op.overloadpacket
        return self.kind.op

    def leave(self, value: Any) -> Any:
        """The same on the device: an argument that was written is itself, a view shares its storage."""
        if isinstance(value, list | tuple):
            return type(value)(self.leave(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        inside = value.untyped_storage()
        storage = None
        for far, host in self.pairs:
            if value is host:
                return far
            if host.untyped_storage()._cdata == inside._cdata:
                storage = far.untyped_storage()
        return wrapped(value, far_storage(inside) if storage is None else storage)


def product_of_half(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Of a GPU alone: half precision operands, a wider sum."""
    return left.to(dtype) @ right.to(dtype)


OWN = {
    "aten.mm.dtype": product_of_half,
    "aten._efficientzerotensor.default": torch.zeros,  # one without memory has nothing to point at
}


def run(op: Any, *args: Any, **named: Any) -> Any:
    """The one kernel of the device."""
    kind = kind_of(op)
    if kind.name in VIEWS:
        return op.redispatch(CPU_KERNEL, *args, **named)  # nothing but sizes and strides
    if kind.name == "aten::_copy_from":
        return copy(*args, **named)
    return Operation(kind, args, named).run()


class Hooks(backend_registration._DummyPrivateUse1Hook):
    """Whether there is such a device: in the tests that ask for it."""

    present = False

    def is_available(self) -> bool:
        return Hooks.present


class Module(backend_registration._DummyBackendModule):
    """torch.far."""

    def is_available(self) -> bool:
        return Hooks.present

    def device_count(self) -> int:
        return int(Hooks.present)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def register() -> list[torch.library.Library]:
    """Once in a process, before its first backward pass: torch starts a thread for each kind of device then."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, Module(), Hooks())
    everything, one = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(run, "PrivateUse1")
    for name in WHOLE:
        one.impl(name, partial(run, getattr(torch.ops.aten, name).default), "PrivateUse1")
    one.impl("_has_compatible_shallow_copy_type", lambda tensor, other: True, "PrivateUse1")  # `.data =`, as CUDA's
    return [everything, one]


KERNELS = register()


SEARCHED = lowest._searched


def by_sorting(keys: Tensor, due: Tensor) -> Tensor:
    """What prune.lowest finds in 32 counts of all groups on a GPU; those cost half a second of kernels in Python."""
    if keys.device.type != NAME:
        return SEARCHED(keys, due)
    values, places = on_host(keys).sort(1).values, on_host(due) - 1
    found = values.gather(1, places.clamp(min=0)).masked_fill(places < 0, -(2**31)).to(FAR)
    lowest._count(keys < found)  # takes the memory that each of them takes
    return found


@contextmanager
def device() -> Iterator[torch.device]:
    """The device, for as long as it is there. The CPU does as it does in torch's choice of an attention kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hooks, "present", True)
        patch.setattr(torch, "empty", empty_maybe_pinned)
        patch.setattr(lowest, "_searched", by_sorting)
        with sdpa_kernel(SDPBackend.MATH):
            yield torch.device(NAME)
    memory.wait()
