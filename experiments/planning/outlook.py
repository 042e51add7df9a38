"""What runs will need: the model's shapes, the method's counts, the machine's speed, each found once."""

from functools import cache
from typing import Any

import torch

from experiments import parts as components
from experiments.checkpoints.skeleton import skeleton
from experiments.planning.anatomy import Body, dissect
from experiments.planning.estimate import Spent, Work, amount, spent, work
from experiments.planning.gauge import Gauge, gauge
from experiments.planning.speed import Speed, measure
from prune.decoder import Decoder
from prune.method import Method

LONGEST = 2048  # tokens of the sequence that blocks are run on where no data are read


class Outlook:
    """Every question is answered from a configuration; equal parts of two configurations are looked at once."""

    def __init__(self) -> None:
        self.known: set[str] = set()  # what the runs so far leave in the cache

    def work(self, config: dict[str, Any]) -> Work:
        """The run that a configuration asks for; ValueError or OSError in one line for one that cannot work."""
        device = config["device"] = components.device(config["device"])
        parts = components.build(config, weights=False)
        options, blocks = _options(config), config["model"]["blocks"]
        decoder = Decoder(skeleton(*options), None, blocks)
        shapes = {name: tuple(matrix.shape) for name, matrix in decoder.weights().items()}
        parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
        length = amount(parts.data, decoder.limit)[1] if parts.method.calibrated else min(LONGEST, decoder.limit)
        body = _body(options, blocks, length)
        return work(config, parts, body, _gauge(parts.method, bool(config["given"]), device), self.known)

    def speed(self, config: dict[str, Any]) -> Speed:
        """Of the device, in the model's dtype."""
        return _speed(config["device"], *_options(config))

    def spent(self, config: dict[str, Any], work: Work) -> list[Spent]:
        """The parts of a run that take time."""
        return spent(work, self.speed(config))


@cache
def _body(options: tuple[Any, ...], blocks: str | None, length: int) -> Body:
    return dissect(Decoder(skeleton(*options), None, blocks), length)


@cache
def _gauge(method: Method, given: bool, device: str) -> Gauge:
    return gauge(method, given, device)


@cache
def _speed(device: str, *options: Any) -> Speed:
    return measure(device, skeleton(*options).dtype or torch.float32)


def _options(config: dict[str, Any]) -> tuple[Any, ...]:
    """What a skeleton is made of."""
    return tuple(config["model"][name] for name in ("path", "revision", "dtype", "trust_remote_code"))
