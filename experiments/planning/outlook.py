"""What runs will need: the model's shapes, the method's counts, the machine's speed, each found once."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from experiments import parts as components
from experiments.planning import gauge
from experiments.planning.bodies import body
from experiments.planning.estimate import Spent, Work, amount, spent, work
from experiments.planning.gauge import Gauge
from experiments.planning.speed import Speed, measure
from prune.decoder import UNLIMITED
from prune.method import Method

LONGEST = 2048  # tokens of the sequence that blocks are run on where no data are read


class Outlook:
    """Every question is answered from a configuration; equal parts of two configurations are looked at once.

    tries: how often the machine's speed is measured, to take the best.
    """

    def __init__(self, tries: int = 10) -> None:
        self.tries = tries
        self.known: set[str] = set()  # what the runs so far leave in the cache

    def work(self, config: dict[str, Any]) -> Work:
        """The run that a configuration asks for; ValueError or OSError in one line for one that cannot work."""
        device = config["device"] = components.device(config["device"])
        parts = components.build(config, weights=False)
        length = amount(parts.data, UNLIMITED)[1] if parts.method.calibrated else LONGEST
        found = body(_options(config), config["model"]["blocks"], length, config["outputs"])
        shapes = {layer.name: layer.shape for block in found.blocks for layer in block.layers}
        parts = replace(parts, method=parts.method.masked) if config["given"] else parts
        parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
        counted = _gauge(parts.method, bool(config["given"]), device, config["outputs"])
        return work(config, parts, found, counted, self.known)

    def speed(self, config: dict[str, Any], work: Work) -> Speed:
        """Of the device, in the model's dtype."""
        return _speed(config["device"], work.body.dtype, self.tries)

    def spent(self, config: dict[str, Any], work: Work) -> list[Spent]:
        """The parts of a run that take time."""
        return spent(work, self.speed(config, work))


@cache
def _gauge(method: Method, given: bool, device: str, outputs: str) -> Gauge:
    return gauge.kept(method, given, device, outputs)


@cache
def _speed(device: str, dtype: str, tries: int) -> Speed:
    return measure(device, getattr(torch, dtype), tries)


def _options(config: dict[str, Any]) -> tuple[Any, ...]:
    """What a skeleton is made of."""
    return tuple(config["model"][name] for name in ("path", "revision", "dtype", "trust_remote_code"))
