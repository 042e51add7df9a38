"""How curved the dense model's loss is along each of its matrices: Hutchinson's estimate of Hessian traces.

Tr(H) = E[z'Hz] for independent z = +-1 (Hutchinson, 1989). As a sensitivity: Shao et al., 2024, arXiv 2310.09499.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from prune.block import Block
from prune.glance import finite
from prune.reverse import Forward, Loss, Objective, States, Weights, backward
from prune.statistic import ModelStatistic

Function = Callable[..., Tensor]
ONE = 0x3F800000  # the bits of 1.0


@dataclass(frozen=True)
class HessianTrace(ModelStatistic):
    """Traces of the Hessian of the mean cross-entropy with respect to each matrix: its diagonal blocks.

    Each of the first `sequences` calibration sequences (or all, where there are fewer) meets `probes` random directions
    z of its own, in all matrices at once. A value holds every z'Hz of one matrix, [probes, sequences], float32: their
    mean is the estimate, their standard deviation over the root of their number its standard error.
    """

    holds: ClassVar[int] = 2
    probes: int = 1
    sequences: int = 32
    seed: int = 0

    def empty(self, matrix: tuple[int, int]) -> Tensor:
        """[probes, sequences]."""
        return torch.empty(self.probes, self.sequences, device="meta")

    def passes(self, sequences: int) -> tuple[int, int]:
        """Out with the tangent and back with both, for the sequences that it takes."""
        taken = self.probes * min(sequences, self.sequences)
        return 3 * taken, 4 * taken

    def __post_init__(self) -> None:
        if self.probes < 1 or self.sequences < 1:
            raise ValueError(f"Hessian trace: expected probes >= 1 and sequences >= 1, found {self}")

    def of(self, network: Any, samples: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Last block first. What enters every block is kept for probes x sequences; ValueError for NaN, with its name.

        Released code draws up to 100 probes until the mean stands still, on data that it does not name.
        """
        samples = samples[: self.sequences]
        curvature = Curvature(self.seed)
        again = torch.arange(len(samples)).repeat(self.probes)
        for block, products in backward(network, samples[again], curvature):
            draws: dict[str, list[Tensor]] = {block.full_name(name): [] for name in block.weights}
            for k, product in enumerate(products):
                for name, probe in curvature.probes(block, k).items():
                    draws[block.full_name(name)].append((probe * product.pop(name)).sum())
            found = {name: torch.stack(drawn).reshape(-1, len(samples)).cpu() for name, drawn in draws.items()}
            for name, value in found.items():
                if not finite(value):
                    raise ValueError(f"{name}: NaN or infinite Hessian trace; check the checkpoint and its dtype")
            yield block.path, found

    def notes(self, value: Float[Tensor, "k n"]) -> dict[str, int]:
        """Whether the estimate is negative: the Hessian is indefinite there, or the draws are too few."""
        return {"negative_traces": 1} if value.mean() < 0 else {}


class Curvature(Objective):
    """The derivative of a sequence's loss along a random z in all matrices; its gradient is Hz.

    A tangent goes through the blocks beside the hidden state: forward over reverse, one block at a time.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def probes(self, block: Block, sequence: int) -> dict[str, Float[Tensor, "o i"]]:
        """z in each matrix of the block, the same at every call."""
        return {
            name: signs(f"{self.seed} {sequence} {block.full_name(name)}", matrix)
            for name, matrix in block.weights.items()
        }

    def beside(self, hidden: Float[Tensor, "1 t h"]) -> States:
        """The embedding stands still."""
        return (torch.zeros_like(hidden),)

    def through(self, block: Block, sequence: int, forward: Forward, states: States, weights: Weights) -> States:
        """The block's output and its tangent, both without a graph: see `back`."""
        return push(*self._local(block, sequence, forward, states, weights))

    def back(
        self, block: Block, sequence: int, forward: Forward, states: States, weights: Weights, slopes: States
    ) -> States:
        """Not by autograd through `push`: torch takes the mean and scale inside a layer norm for constants there."""
        change, slope = slopes
        steep, changes = pull(*self._local(block, sequence, forward, states, weights), slope, change)
        return (changes[0], steep, *changes[1:])

    def value(self, loss: Loss, states: States) -> Float[Tensor, ""]:
        """The loss's derivative along the tangent."""
        hidden, tangent = states
        (slope,) = torch.autograd.grad(loss(hidden), hidden, create_graph=True)
        return (slope * tangent).sum()

    def _local(
        self, block: Block, sequence: int, forward: Forward, states: States, weights: Weights
    ) -> tuple[Function, list[Tensor], list[Tensor]]:
        """The block as a function of its input and matrices, where it is taken, and the direction there."""

        def function(hidden: Tensor, *matrices: Tensor) -> Tensor:
            return forward(hidden, dict(zip(weights, matrices, strict=True)))

        return function, [states[0], *weights.values()], [states[1], *self.probes(block, sequence).values()]


def push(function: Function, at: Sequence[Tensor], along: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """y = function(*at) and J `along`, its derivative in that direction, without a graph.

    By forward mode, and where an operation of the model's own has none, by reverse mode alone (`push_back`), which
    makes five products for every three. Fused attention has neither, so the plain one serves.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), dual_level():
            y, tangent = unpack_dual(function(*map(make_dual, at, along)))
            return y.clone(), tangent.clone()
    except NotImplementedError:
        return push_back(function, at, along)


def push_back(function: Function, at: Sequence[Tensor], along: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The same for leaves `at`: the derivative of J'u by u, which all that can be differentiated twice can do."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        y = function(*at)
        u = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, at, u, create_graph=True, materialize_grads=True)
        (tangent,) = derivative(edges(pulled), [u], along)
    return y.detach(), tangent


def pull(
    function: Function, at: Sequence[Tensor], along: Sequence[Tensor], slope: Tensor, change: Tensor
) -> tuple[Tensor, Sequence[Tensor]]:
    """J'`slope` by the first of `at`, and its change by all of them when they move `along` and the slope by `change`.

    With y a loss, slope 1 and change 0: its gradient, and its Hessian times `along`.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        y = function(*at)
        pulled = torch.autograd.grad(y, at, slope, create_graph=True, materialize_grads=True)
        steep, ends = pulled[0].detach(), edges([*pulled, y])
        del pulled  # gradients as large as the matrices, which nothing reads
        return steep, derivative(ends, at, [*along, change])


def edges(values: Sequence[Tensor]) -> list[GradientEdge | None]:
    """Where these values leave their graph, which does not need their numbers; None for a constant."""
    return [get_gradient_edge(value) if value.requires_grad else None for value in values]


def derivative(ends: list[GradientEdge | None], by: Sequence[Tensor], along: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradient of the inner product of `along` and what left there, not made itself; zeros where nothing moves."""
    moving = [(end, weight) for end, weight in zip(ends, along, strict=True) if end is not None]
    if not moving:
        return [torch.zeros_like(place) for place in by]
    left, weights = zip(*moving, strict=True)
    return torch.autograd.grad(left, by, weights, materialize_grads=True)


def signs(key: str, like: Tensor) -> Float[Tensor, "..."]:
    """Independent +-1 of this tensor's shape, on its device, float32; the same for the same key."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    words = torch.randint(2**32, (-(-like.numel() // 32), 1), generator=generator).to(like.device)  # 32 signs in each
    last = torch.arange(31, -1, -1, dtype=torch.int32, device=like.device)
    bits = (~words.int() << last).bitwise_and_(-(2**31)).bitwise_or_(ONE)  # a sign in front of 1.0
    return bits.view(torch.float32).flatten()[: like.numel()].reshape(like.shape)
