"""The run that a configuration asks for, before it runs: equal parts of two configurations are looked at once."""

from dataclasses import replace
from functools import cache
from typing import Any

from experiments.models.load import empty
from experiments.planning.anatomy import Body, dissect
from experiments.planning.estimate import Work, work
from experiments.planning.gauge import gauge
from experiments.running import components
from experiments.running.footprint import amount
from prune.decoder import UNLIMITED, Decoder

LONGEST = 2048  # tokens of the sequence that blocks are run on where no data are read
Options = tuple[str, str | None, str | None, bool]  # of a skeleton: path, revision, dtype, trust_remote_code


def outlook(config: dict[str, Any], known: set[str] | None = None) -> Work:
    """What a run will be; `known`: what the runs before it leave in the cache, which it adds to. Settles its device.

    ValueError or OSError in one line for one that cannot work.
    """
    device = config["device"] = components.device(config["device"])
    parts, model = components.build(config, weights=False), config["model"]
    length = amount(parts.data, UNLIMITED)[1] if parts.method.calibrated else LONGEST
    options = tuple(model[name] for name in ("path", "revision", "dtype", "trust_remote_code"))
    shapes = body(options, model["blocks"], model["routers"], length)
    parts = replace(parts, method=parts.method.masked) if config["given"] else parts
    matrices = {layer.name: layer.shape for block in shapes.blocks for layer in block.layers}
    parts.method.pattern.check(config["allocator"]["sparsity"], matrices)
    return work(config, parts, shapes, gauge(parts.method, bool(config["given"]), device), known)


@cache
def body(options: Options, blocks: str | None, routers: bool, asked: int) -> Body:
    """The model of these options, run on one sequence of `asked` tokens, or of as many as it takes.

    ValueError or OSError in one line for a configuration that makes no model.
    """
    decoder = Decoder(empty(*options, blocks), None, blocks, routers=routers)
    return dissect(decoder, min(asked, decoder.limit))
