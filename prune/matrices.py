"""Which parameters of a block are matrices that can be pruned, and how each lies in its parameter.

The weight of an nn.Linear, the stacks of fused experts that transformers marks, and whatever else a module of its own
parameters multiplies with its input: that is found by calling the module once, on tensors without numbers.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prune.listen import Listener, Origin, root

FEW = 2  # tokens that a module is tried on


@dataclass(frozen=True)
class Matrix:
    """A prunable [o, i] matrix of a module.

    parameter: where it lies, by its name in the module. expert: which of a stack of matrices it is, if it is one.
    turned: whether it lies there as [i, o].
    """

    parameter: str
    expert: int | None = None
    turned: bool = False

    @property
    def owner(self) -> str:
        """The module whose parameter it is."""
        return self.parameter.rpartition(".")[0]

    @property
    def module(self) -> str:
        """The module that holds the linear, or the stack."""
        return self.owner.rpartition(".")[0] if self.expert is None else self.owner

    def of(self, parameter: Tensor) -> Float[Tensor, "o i"]:
        """The matrix, as a view of its parameter."""
        matrix = parameter.detach() if self.expert is None else parameter.detach()[self.expert]
        return matrix.mT if self.turned else matrix


def matrices(module: nn.Module, routers: bool = False, path: str = "") -> tuple[dict[str, Matrix], dict[str, str]]:
    """The prunable matrices of the module at this path, by name, and why its other parameters above one axis are none.

    Fused experts are e matrices, named `<tensor>.<expert>`. `routers`: whether what chooses among experts is prunable.
    """
    found: dict[str, Matrix] = {}
    skipped: dict[str, str] = {}
    modules = dict(module.named_modules(prefix=path))
    parts = [(owner, *part) for owner in modules for part in modules[owner].named_parameters(recurse=False)]
    shown: dict[str, str] = {}
    for owner, short, parameter in parts:
        if parameter.dim() < 2:
            continue
        name = f"{owner}.{short}" if owner else short
        shown[name] = f"{list(parameter.shape)} of {type(modules[owner]).__name__}"
        turned = _turned(modules[owner], short, parameter)
        if turned is None:
            skipped[name] = f"{shown[name]}, not known to be a linear"
        elif parameter.dim() > 2:
            found |= {f"{name}.{expert}": Matrix(name, expert, turned) for expert in range(len(parameter))}
        else:
            found[owner if short == "weight" else name] = Matrix(name, None, turned)
    for name in [] if routers else _routers(modules, found):
        place = found.pop(name)
        skipped[place.parameter] = f"{shown[place.parameter]}, a router (model.routers)"
    return found, skipped


def _routers(modules: dict[str, nn.Module], found: dict[str, Matrix]) -> list[str]:
    """The matrices that choose among experts: in what is called a router, or with an output for each expert beside it.

    Beside it: in the first module around it that has other matrices too, as a stack or as a list of modules.
    """
    stacks = Counter(place.parameter for place in found.values() if place.expert is not None)
    held = Counter(path for place in found.values() for path in _around(place))

    def experts(path: str) -> set[int]:
        inner = dict(modules[path].named_children())
        own = {path, *(f"{path}.{name}" if path else name for name in inner)}
        lists = {len(child) for child in inner.values() if isinstance(child, nn.ModuleList)}
        return lists | {size for name, size in stacks.items() if name.rpartition(".")[0] in own}

    def routes(place: Matrix) -> bool:
        around = [path for path in _around(place) if path in modules]
        inner = [path for path in [place.owner, *around] if not experts(path)]
        named = (f"{path.rpartition('.')[2]} {type(modules[path]).__name__}" for path in inner)
        beside = next((path for path in around if held[path] > 1), around[-1] if around else place.owner)
        short = place.parameter.rpartition(".")[2]
        outputs = place.of(getattr(modules[place.owner], short)).shape[0]
        return any("router" in name.lower() for name in named) or (outputs > 1 and outputs in experts(beside))

    return [name for name, place in found.items() if place.expert is None and routes(place)]


def _around(place: Matrix) -> list[str]:
    """The modules around the one that has a matrix, inside out."""
    parts = place.owner.split(".")
    return [".".join(parts[:depth]) for depth in reversed(range(len(parts)))]


def _turned(owner: nn.Module, short: str, parameter: nn.Parameter) -> bool | None:
    """Whether a parameter is applied as [in, out]: False is [out, in], None is neither. A third axis comes first."""
    if isinstance(owner, nn.Linear) and short == "weight":
        return False
    if parameter.dim() == 3 and hasattr(owner, "is_transposed"):  # transformers' mark of fused experts
        return bool(owner.is_transposed)
    alone = len(list(owner.parameters())) == len(list(owner.parameters(recurse=False)))
    if parameter.dim() > 3 or (parameter.dim() == 3 and not alone):
        return None
    ways = (_heard(owner, short, inputs) for inputs in _inputs(parameter))
    return next((way.pop() for way in ways if len(way) == 1), None)


def _inputs(parameter: nn.Parameter) -> Iterator[tuple[Any, ...]]:
    """What a module may be called with: tokens [n, i]; for a stack, those of one expert after those of another, too."""
    experts = parameter.shape[:-2].numel()
    for width in dict.fromkeys(reversed(parameter.shape[-2:])):
        x = torch.empty(FEW * experts, width, dtype=parameter.dtype, device="meta")
        yield (x,) if parameter.dim() > 2 else (x[None],)
        if parameter.dim() > 2:
            yield x, [FEW] * experts


@torch.no_grad()
def _heard(owner: nn.Module, short: str, inputs: tuple[Any, ...]) -> set[bool]:
    """In which ways a module applies a parameter to what it computes from these inputs."""
    bare: dict[int, Tensor] = {id(buffer): buffer.to("meta") for buffer in owner.buffers()}
    bare |= {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in owner.parameters()}
    parameter = bare[id(getattr(owner, short))]
    stack = parameter.view(-1, *parameter.shape[-2:])
    views = {(turned, k): one.mT if turned else one for turned in (False, True) for k, one in enumerate(stack)}
    names, ways = {f"{turned} {k}": turned for turned, k in views}, set[bool]()
    own = {tensor.untyped_storage() for tensor in bare.values()}

    def heard(name: str, _: Tensor, origin: Origin) -> None:
        if root(origin) not in own:  # a product of two of them is no linear
            ways.add(names[name])

    listener = Listener(dict(zip(names, views.values(), strict=True)), heard)
    with suppress(Exception), listener:  # whatever a module says that cannot be called like this
        copy.deepcopy(owner, bare)(*inputs)  # what it keeps of such a call is not kept by the owner
    return ways


def numberless(name: str) -> str:
    """The name without its numbers: the same for all experts."""
    return ".".join(part for part in name.split(".") if not part.isdigit())
