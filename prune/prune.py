"""Prune a model: walk its blocks once, and solve each."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from prune.block import Block, Granularity, Propagate
from prune.decoder import Decoder
from prune.method import Linear, Method, Pruned, Survey, Unit
from prune.statistic import Stats


@runtime_checkable
class Store(Protocol):
    """Where solved blocks are kept: a folder on disk, or a dict in a test."""

    def __contains__(self, block: str) -> bool: ...
    def load(self, block: str) -> dict[str, Pruned]: ...
    def save(self, block: str, solved: dict[str, Pruned]) -> None: ...


@dataclass
class Solved:
    """One pruned block: its answers by full name of the linear, and what they cost."""

    block: str
    linears: dict[str, Pruned]
    error: float | None  # squared error of the block's output relative to its dense output; None without calibration
    seconds: float


def prune(
    decoder: Decoder,
    tokens: Int[Tensor, "n t"] | None,
    method: Method,
    granularity: Granularity = "block",
    propagate: Propagate = "pruned",
    done: Store | None = None,
) -> Iterator[Solved]:
    """Yield the solution of each block after writing it into the model.

    Two passes over the calibration data, whatever the method: one that gathers its statistics, one that carries the
    stream through the pruned block (`propagate` pruned: the next block is calibrated on what it will see; dense: on
    what the dense model would have shown it). A finer `granularity` gathers once per group, behind those already
    pruned. A method that asks for no statistics makes no pass. Blocks found in `done` are not solved again.

    Raises ValueError naming the linear for NaN or infinite weights or activations, and for a pattern that does not fit.
    """
    survey = Survey({name: matrix.numel() for name, matrix in decoder.weights().items()})
    unsolved = done is None or any(f"{decoder.path}.{k}" not in done for k in range(len(decoder.blocks)))
    for block in decoder.walk(tokens if method.inputs and unsolved else None, propagate):
        start = time.perf_counter()
        if done is not None and block.path in done:
            solved = write(block, done.load(block.path))
        else:
            solved = {}
            for part in solve(block, method, granularity, survey):
                solved |= write(block, part)
            if done is not None:
                done.save(block.path, solved)
        error = block.advance()
        linears = {block.full_name(name): p for name, p in solved.items()}
        yield Solved(block.path, linears, error, time.perf_counter() - start)


def solve(block: Block, method: Method, granularity: Granularity, survey: Survey) -> Iterator[dict[str, Pruned]]:
    """The answers of each unit of a block, in execution order; each is to be written before the next is asked for."""
    units = block.units(granularity)
    whole = gather(block, list(block.weights), method)
    sparsity = method.allocator(Unit(whole), survey)
    for names in units:
        linears = whole if len(units) == 1 else gather(block, names, method)
        for name, linear in linears.items():
            linear.sparsity = sparsity[name].to(linear.weight.device)
        unseen = {name: prune_by_size(linear) for name, linear in linears.items() if linear.stats.tokens == 0}
        seen = {name: linear for name, linear in linears.items() if name not in unseen}
        answers = unseen | (method.update(Unit(seen)) if seen else {})
        yield {
            name: replace(
                answers[name], target=linear.target.mean().item(), notes=answers[name].notes | linear.stats.notes()
            )
            for name, linear in linears.items()
        }


def gather(block: Block, names: list[str], method: Method) -> dict[str, Linear]:
    """These linears of a block; their statistics are gathered in one pass, at the first look at any of them."""
    block.refuse_damaged(names)
    collect = cache(lambda: block.collect(method.inputs, names))
    linears = {}
    for name in names:
        full, weight = block.full_name(name), block.weights[name].float()
        stats = Stats(full, partial(lambda name: collect()[name], name))
        linears[name] = Linear(full, weight, stats, method.metric, method.pattern)
    return linears


def prune_by_size(linear: Linear) -> Pruned:
    """A linear that no calibration token reached (an expert) is not pruned blindly: by |W|, and said so."""
    mask = linear.pattern.select(linear.weight.abs(), linear.target)
    return Pruned(linear.weight.masked_fill(~mask, 0.0), mask, notes={"unseen": 1})


@torch.no_grad()
def write(block: Block, solved: Mapping[str, Pruned]) -> dict[str, Pruned]:
    """Into the model; returns what stands there now, on the host, with the kept weights that became zero counted."""
    written = {}
    for name, p in solved.items():
        underflow = block.write(name, p.weight, p.mask)
        notes = p.notes | ({"underflow": underflow} if underflow else {})
        written[name] = replace(p, weight=block.weights[name].cpu(), mask=p.mask.cpu(), notes=notes)
    return written
