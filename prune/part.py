"""The part of a block that some of its linears determine, run with other weights than its own."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from prune.block import Block
from prune.call import Call, Reached
from prune.matrices import Matrix
from prune.method import Linear, Unit
from prune.nested import is_float


class Part:
    """The deepest module of a block that holds all of these linears; the block itself where no other does.

    Everything is computed in float32, whatever the model's dtype, so that gradients need no loss scale.
    """

    def __init__(self, block: Block, names: list[str]) -> None:
        self.block = block
        self.path = self._root(names)
        self.module = block.module.get_submodule(self.path)

    def _root(self, names: list[str]) -> str:
        places = [self.block.matrices.get(name) for name in names]
        owners = [place.module.split(".") if place else [""] for place in places]
        depth = 0
        while all(len(owner) > depth for owner in owners) and len({owner[depth] for owner in owners}) == 1:
            depth += 1
        return ".".join(owners[0][:depth])

    def calls(self) -> Iterator[Call]:
        """What enters the module, call by call, on the stream and with the weights as they are now.

        A call of the block that does not reach the module (an expert) is left out.
        """
        for call in self.block.calls:
            yield from self._entering(call) if self.path else [call]

    @torch.no_grad()
    def _entering(self, call: Call) -> list[Call]:
        found: list[Call] = []

        def stop(_: nn.Module, args: Any, kwargs: Any) -> None:
            found.append(Call(args, kwargs))
            raise Reached

        handle = self.module.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            call.through(self.block.module)
        except Reached:
            pass
        finally:
            handle.remove()
        return found

    def forward(self, call: Call, weights: Mapping[str, Float[Tensor, "o i"]]) -> Float[Tensor, "..."]:
        """The module's output with these weights, by name inside the block, in place of its own; differentiable."""
        return self.through(call, weights).hidden

    def through(self, call: Call, weights: Mapping[str, Float[Tensor, "o i"]]) -> Call:
        """The same with what the module hands on beside its output."""
        given = self.parameters(weights) | {name: widen(buffer) for name, buffer in self.module.named_buffers()}
        return call.changed(widen).through(lambda *args, **kwargs: functional_call(self.module, given, args, kwargs))

    def parameters(self, weights: Mapping[str, Float[Tensor, "o i"]]) -> dict[str, Tensor]:
        """All parameters of the module in float32, those weights among them."""
        prefix = f"{self.path}." if self.path else ""
        inside: dict[str, dict[str, Matrix]] = {}
        for name, place in self.block.matrices.items():
            inside.setdefault(place.parameter, {})[name] = place
        everything = self.module.named_parameters()
        return {name: filled(p, inside.get(f"{prefix}{name}", {}), weights) for name, p in everything}


def filled(parameter: Tensor, places: Mapping[str, Matrix], weights: Mapping[str, Float[Tensor, "o i"]]) -> Tensor:
    """The parameter in float32, with these weights, by name, in the places of its matrices."""
    if not places:
        return widen(parameter)
    parts = [(m, widen(weights[name] if name in weights else m.of(parameter))) for name, m in places.items()]
    lying = [part.mT if place.turned else part for place, part in parts]
    return torch.stack(lying) if parameter.dim() > 2 else lying[0]


def widen(value: Any) -> Any:
    """A half precision tensor as float32, anything else as it is."""
    return value.float() if is_float(value) else value


def unit(block: Block, linears: dict[str, Linear]) -> Unit:
    """The linears with the module they determine, and its dense output, which a block has kept and a part computes."""
    part = Part(block, list(linears))
    if not part.path:
        return Unit(linears, part.calls, part.forward, block.reference)
    dense = {name: linear.weight for name, linear in linears.items()}

    @torch.no_grad()
    def reference(call: Call) -> Tensor:
        if block.twin is not None:
            kept = "the dense model's output is kept of whole blocks; set granularity=block"
            raise ValueError(f"{block.path}.{part.path}: {kept}")
        return part.forward(call, dense)

    return Unit(linears, part.calls, part.forward, reference)
