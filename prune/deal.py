"""Linears of a unit solved by different ranks: who solves which, and how all get the answers."""

from collections.abc import Callable
from typing import Any

import torch

from prune import ranks
from prune.method import Linear, Method, Pruned, Update

Solve = Callable[[dict[str, Linear]], dict[str, Pruned]]


def shared(linears: dict[str, Linear], method: Method, solve: Solve) -> dict[str, Pruned]:
    """The answers for a unit, on every rank; where linears are independent, each rank solves some of them."""
    owner = deal(linears)  # here all ranks look at the statistics
    if ranks.world() == 1 or type(method.update).__call__ is not Update.__call__:
        return solve(linears)
    solved: dict[str, Pruned] = {}

    def own() -> dict[str, dict[str, Any]]:
        solved.update(solve({name: linear for name, linear in linears.items() if owner[name] == ranks.rank()}))
        return {name: p.facts | {"grid": p.grid and p.grid.to("cpu")} for name, p in solved.items()}

    for source, part in enumerate(ranks.everyone(own)):
        for name, facts in part.items():
            facts["grid"] = facts["grid"] and facts["grid"].to(linears[name].weight.device)
            blank = torch.empty_like(linears[name].weight, memory_format=torch.contiguous_format)
            p = solved.get(name) or Pruned(blank, torch.empty_like(blank, dtype=torch.bool))
            solved[name] = Pruned(ranks.from_rank(p.weight, source), ranks.from_rank(p.mask, source), **facts)
    return {name: solved[name] for name in linears}


def deal(linears: dict[str, Linear]) -> dict[str, int]:
    """Which rank solves which linear: the costliest first, to who has least; those that share an input stay together.

    A linear of o outputs and i inputs costs o i^2 and, once for each input, i^3 to factorise it.
    """
    groups: dict[int, list[str]] = {}
    for name, linear in linears.items():
        groups.setdefault(linear.stats.kin, []).append(name)
    shapes = {name: linear.weight.shape for name, linear in linears.items()}
    cost = lambda names: (sum(shapes[name][0] for name in names) + shapes[names[0]][1]) * shapes[names[0]][1] ** 2
    load, owner = [0] * ranks.world(), dict[str, int]()
    for names in sorted(groups.values(), key=cost, reverse=True):
        least = load.index(min(load))
        load[least] += cost(names)
        owner |= dict.fromkeys(names, least)
    return owner
