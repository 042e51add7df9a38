"""Keeps the windows that a model wrote on disk, beside those made from texts: it writes them once for all runs."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from experiments.data.token_cache import place_of, settings_of
from experiments.data.windows import Source, capped
from experiments.files.disk import intact, shared
from experiments.files.tensors import read_tensors, write_tensors
from experiments.runs import machine, sources
from experiments.runs.identity import fingerprint, name_of
from prune import ranks
from prune.network import Network

Cost = dict[str, Any]  # seconds, and peaks of memory by name


def generated_windows(
    source: Source, network: Network, model: Callable[[], Any], outputs: str
) -> tuple[Int64[Tensor, "n t"], Cost | None]:
    """source.generate(network), from <outputs>/cache/tokens or written now; what writing them cost if it was before.

    model: all that the network's numbers depend on, as JSON. One process writes them, others wait for it. Raises what
    the source raises, and ValueError where the model or a text changed meanwhile.
    """
    made: list[str] = []
    facts = lambda: _facts(source, capped(source.length, network.limit), model())

    def write() -> None:
        start = time.perf_counter()
        tokens = source.generate(network)
        cost = {"seconds": time.perf_counter() - start, "peaks": machine.peaks(str(network.device))}
        if facts() != decided:
            raise ValueError("the model or a file changed while it was read; run it again")
        write_tensors({"tokens": tokens}, file, **decided, cost=cost)
        made.append(file.name)

    decided = facts()
    file = place_of(source, "calibration", decided, outputs)
    shared(file, lambda: intact(file), lambda: ranks.told(write))
    tensors, stored = read_tensors(file)
    return tensors["tokens"], ranks.told(lambda: None if made else stored["cost"])


def _facts(source: Source, length: int, model: Any) -> dict[str, Any]:
    """All that decides the windows."""
    return {
        "part": "calibration",
        "length": length,
        "text": settings_of(source, "calibration"),
        "model": fingerprint(model),
        "versions": {"tokenizers": version("tokenizers")},
        "code": sources.code(f"{__name__}.generated_windows", name_of(type(source))),
    }
