"""Prune a model: walk its blocks once, and solve each."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from prune import ranks
from prune.block import Block, Granularity, Propagate
from prune.clock import stage
from prune.deal import shared
from prune.feeder import Samples
from prune.glance import nonzeros
from prune.histogram import histogram, sampled
from prune.method import Linear, Method, Pruned
from prune.network import Network
from prune.part import unit
from prune.precision import as_fine_as
from prune.statistic import Component, ModelStatistic, Stats
from prune.survey import Allotted, Survey


@dataclass
class Solved:
    """One pruned block: its answers by full name of the linear, and what they cost."""

    block: str
    linears: dict[str, Pruned]
    error: float | None  # squared error of the block's output relative to its dense output; None without calibration
    seconds: float

    @property
    def inside(self) -> dict[str, Pruned]:
        """The answers by the linear's name inside the block."""
        return {name.removeprefix(f"{self.block}."): p for name, p in self.linears.items()}


@runtime_checkable
class Store(Protocol):
    """Where solved blocks are kept: a folder on disk, or a dict in a test. It contains a block that is whole."""

    def __contains__(self, block: str) -> bool: ...
    def load(self, block: str) -> Solved: ...
    def save(self, solved: Solved) -> None: ...


Remember = Callable[[ModelStatistic, Callable[[], Iterator[tuple[str, dict[str, Tensor]]]]], Mapping[str, Tensor]]


def prune(
    network: Network,
    samples: Samples | None,
    method: Method,
    granularity: Granularity = "block",
    propagate: Propagate = "pruned",
    done: Store | None = None,
    given: Store | None = None,
    remember: Remember | None = None,
) -> Iterator[Solved]:
    """Yield the solution of each block after writing it into the model.

    Two passes over the calibration data for most methods: one that gathers its statistics, one that carries the
    stream through the pruned block (`propagate` pruned: the next block is calibrated on what it will see; dense: on
    what the dense model would have shown it). A finer `granularity` gathers once per group, behind those already
    pruned. A method that needs no calibration data makes no pass. Blocks found in `done` are not solved again.
    Masks found in `given` are the masks (see Linear.select). `remember` keeps what is found on the whole dense model.

    With several ranks (prune.ranks) each has the whole model and calibrates on its part of them; `samples` are
    all of them, on every rank, and stores serve all ranks.

    Raises ValueError naming the linear for NaN or infinite weights or activations, and for a pattern that does not fit.
    """
    method = workable(method if given is None else method.masked)
    if network.home.forgets and done is None:
        raise ValueError("a model that is read from its files needs a store for its solved blocks")
    network.solved, network.unheard = None, {}  # what is calibrated is the dense model
    paths = [f"{network.path}.{k}" for k in range(len(network.blocks))]
    solved = ranks.told(lambda: {path for path in paths if done is not None and path in done})
    look = survey(network, samples, method if len(solved) < len(paths) else None, remember or at_once)
    calibrated = samples if method.calibrated and len(solved) < len(paths) else None
    batch = 1 if method.runs_block else None
    for block in network.walk(calibrated, propagate, method.reference, batch, shared=True, known=len(solved)):
        start = time.perf_counter()
        known = done.load(block.path) if done is not None and block.path in solved else None
        if known is not None:
            write(block, known.inside)
        before = given.load(block.path).inside if given is not None and known is None else {}
        parts = finish(block, method, granularity, look, before) if known is None else {}
        error = stage("propagate")(block.advance)()
        if known is None:
            linears = {block.full_name(name): p for name, p in parts.items()}
            known = Solved(block.path, linears, error, time.perf_counter() - start)
            if done is not None:
                done.save(known)
        look = heeded(network, block, look, known)
        yield known
    network.solved = done if network.home.forgets else None


def workable(method: Method) -> Method:
    """The method; ValueError if several ranks cannot work on it together."""
    for part in method.components:
        if ranks.world() > 1 and part.runs_block:
            runs = f"{type(part).__name__} runs blocks sequence by sequence"
            raise ValueError(f"{runs}, which ranks cannot share; use one process")
    return method


def survey(network: Network, samples: Samples | None, method: Method | None, remember: Remember) -> Survey:
    """What is known of the whole dense model before a block is touched; without a method, the sizes alone."""
    sizes = {name: matrix.numel() for name, matrix in network.weights().items()}
    wanted = method.surveyed if method else []
    with stage("survey"):
        return Survey(sizes, {s: remember(s, partial(s.of, network, samples if s.data else None)) for s in wanted})


def without(look: Survey, names: Iterable[str]) -> Survey:
    """The same of a model without these matrices."""
    left_out = look.sizes.keys() & set(names)
    sizes = {name: size for name, size in look.sizes.items() if name not in left_out}
    return replace(look, sizes=sizes, lost=look.lost + len(left_out))


def heeded(network: Network, block: Block, look: Survey, known: Solved) -> Survey:
    """What is known behind a solved block, less the matrices that it could not solve; the network is told of those."""
    lost = [name for name in look.sizes if name.startswith(f"{block.path}.") and name not in known.linears]
    found = {block.full_name(name): why for name, why in block.unheard().items()} if lost else {}
    network.unheard |= {name: found.get(name, "not heard when its block ran") for name in lost}
    removed = sum(p.mask.numel() - nonzeros(p.mask) for p in known.linears.values())
    return replace(without(look, lost), removed=look.removed + removed)


def at_once(_: ModelStatistic, find: Callable[[], Iterator[tuple[str, dict[str, Tensor]]]]) -> dict[str, Tensor]:
    """Found now and kept in memory."""
    return {name: value for _, part in find() for name, value in part.items()}


def finish(
    block: Block, method: Method, granularity: Granularity, look: Survey, given: Mapping[str, Pruned]
) -> dict[str, Pruned]:
    """Solve a block and write it; the answers as they stand in the model."""
    written: dict[str, Pruned] = {}
    for part in solve(block, method, granularity, look, given):
        written |= write(block, part)
    return written


def solve(
    block: Block, method: Method, granularity: Granularity, look: Survey, given: Mapping[str, Pruned]
) -> Iterator[dict[str, Pruned]]:
    """The answers of each unit of a block, in execution order; each is to be written before the next is asked for."""
    absent = [block.full_name(name) for name in block.weights if given and name not in given]  # not heard in that run
    block.leave_out(absent)
    units, look = block.units(granularity), without(look, absent)
    whole = gather(block, list(block.weights), method, look, given)
    if block.calls:
        if len(units) == 1:
            next(iter(whole.values())).stats.tokens  # noqa: B018 - gathers
        lost = block.unheard()
        block.leave_out(map(block.full_name, lost))
        whole = {name: linear for name, linear in whole.items() if name not in lost}
        look = without(look, map(block.full_name, lost))
        units = [names for names in ([n for n in unit if n not in lost] for unit in units) if names]
    with stage("allocate"), products(block, method.allocator):
        allotted = method.allocator(unit(block, whole), look)
    for names in units:
        linears = whole if len(units) == 1 else gather(block, names, method, look, given)
        for name, linear in linears.items():
            linear.sparsity = allotted[name].sparsity.to(linear.weight.device)
        yield shared(linears, method, lambda part: answers(block, part, method, allotted))


@stage("update")
def answers(
    block: Block, linears: dict[str, Linear], method: Method, allotted: Mapping[str, Allotted]
) -> dict[str, Pruned]:
    """Of each of these linears, those that no token reached among them."""
    found = {name: prune_by_size(linear) for name, linear in linears.items() if linear.stats.tokens == 0}
    corrected = method.correction or (lambda linear: linear)
    seen = {name: corrected(linear) for name, linear in linears.items() if name not in found}
    with products(block, method.update):
        found |= method.update(unit(block, seen)) if seen else {}
    with products(block, method.quantizer):
        found = method.quantizer(unit(block, linears), found) if linears else found
    return {name: reported(found[name], linear, allotted[name]) for name, linear in linears.items()}


def products(block: Block, part: Component) -> AbstractContextManager[None]:
    """Those of a part that runs the block are as fine as the block's own; all others are exact, for they solve."""
    weights = list(block.weights.values())
    return as_fine_as(weights, weights[0].device) if part.runs_block else nullcontext()


def reported(answer: Pruned, linear: Linear, allotted: Allotted) -> Pruned:
    """The answer with what it was asked for and what a person should hear about the statistics it read."""
    target = linear.target.mean().item() if linear.given is None else 1 - linear.given.mask.double().mean().item()
    wanted = allotted.wanted if linear.given is None else None
    columns = sampled(*linear.weight.shape)
    shown = {"weight": histogram(linear.weight[:, columns], answer.mask[:, columns])}
    if linear.given is None and linear.stats.tokens != 0:
        shown["score"] = histogram(linear.score(columns=columns), answer.mask[:, columns])
    notes = answer.notes | linear.stats.notes()
    return replace(answer, target=target, wanted=wanted, notes=notes, histograms=shown)


def gather(
    block: Block, names: list[str], method: Method, look: Survey, given: Mapping[str, Pruned] | None = None
) -> dict[str, Linear]:
    """These linears of a block; their statistics are gathered in one pass, at the first look at any of them."""
    block.refuse_damaged(names)
    collect = cache(stage("calibrate")(lambda: block.collect(method.inputs, names)))
    linears = {}
    for name in names:
        full, weight = block.full_name(name), block.weights[name].float().contiguous()
        stats = Stats(full, partial(lambda name: collect()[name], name), look.values, weight.device)
        before = given[name] if given else None
        if before is not None:
            before = replace(before, weight=before.weight.to(weight), mask=before.mask.to(weight.device))
        choices = (method.metric, method.pattern, None, before, method.quantizer, block.stored(name))
        linears[name] = method.quantizer.before(Linear(full, weight, stats, *choices))
    return linears


def prune_by_size(linear: Linear) -> Pruned:
    """A linear that no calibration token reached (an expert) is not pruned blindly: by |W|, and said so."""
    mask = linear.given.mask if linear.given else linear.pattern.select(linear.weight.abs(), linear.target)
    return Pruned(linear.weight.masked_fill(~mask, 0.0), mask, notes={"unseen": 1})


@torch.no_grad()
@stage("write")
def write(block: Block, solved: Mapping[str, Pruned]) -> dict[str, Pruned]:
    """Into the model; returns what stands there now, on the host, with the kept weights that became zero counted."""
    written = {}
    for name, p in solved.items():
        underflow = block.write(name, p.weight)
        notes = p.notes | ({"underflow": underflow} if underflow else {})
        stored = block.weights[name].to("cpu", block.stored(name))
        written[name] = replace(p, weight=stored, mask=p.mask.cpu(), grid=p.grid and p.grid.to("cpu"), notes=notes)
    return written
