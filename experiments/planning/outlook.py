"""What runs will need: the model's shapes, the method's counts, the machine's speed, each found once."""

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from experiments import parts as components
from experiments.footprint import amount
from experiments.planning import gauge, memory
from experiments.planning.anatomy import anywhere
from experiments.planning.bodies import body
from experiments.planning.estimate import Spent, Work, spent, work
from experiments.planning.gauge import Gauge
from experiments.planning.prospect import Prospect
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
        model = config["model"]
        found = body(_options(config), model["blocks"], model["routers"], length, config["outputs"])
        shapes = {layer.name: layer.shape for block in found.blocks for layer in block.layers}
        parts = replace(parts, method=parts.method.masked) if config["given"] else parts
        parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
        counted = _gauge(parts.method, bool(config["given"]), device, config["outputs"])
        return work(config, parts, found, counted, self.known)

    def prospect(self, config: dict[str, Any]) -> Prospect:
        """The same in plain numbers, with what it takes; `work`'s errors."""
        work, place = self.work(config), config.get("activations", "device")
        device, speed, body = config["device"], self.speed(config, work), work.body
        return Prospect(
            device,
            len(body.blocks),
            body.size,
            body.size / body.itemsize,
            body.outside,
            sum(block.weights for block in body.blocks),
            body.alike(),
            dict(Counter(f"{anywhere(name)}: {reason}" for name, reason in body.skipped.items())),
            work.passes,
            work.sequences,
            work.length,
            work.surveys,
            {place: memory.peak(work, place, device) for place in memory.PLACES},
            [(stage.name, stage.device | stage.host) for stage in memory.stages(work, place)],
            work.written,
            [(part.name, part.operations, part.seconds) for part in self.spent(config, work)],
            (speed.rate, speed.wide, speed.bandwidth),
            [(windows.name, windows.count) for windows in work.windows if windows.assumed],
            work.whole,
        )

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
