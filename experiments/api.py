"""Prunes a model that your own Python has loaded:  prune_model(model, windows, "experiment=sparsegpt", "pattern=2of4")

With the methods and settings of experiments.run, those of plugins too. Nothing is written.
"""

from copy import deepcopy
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from experiments.composing import command
from experiments.composing.method import method
from experiments.composing.overrides import name_of
from experiments.running.components import device
from prune.network import Network
from prune.prune import Solved, prune

METHOD = ("experiment", "pattern", "metric", "allocator", "update", "then", "quantizer", "given", "sparsity", "scope")
SETTINGS = (*METHOD, "granularity", "propagate", "seed", "batch", "device", "plugins")


class Answers(dict[str, Solved]):
    """Solved blocks by path: a prune.prune.Store in memory."""

    load = dict.__getitem__

    def save(self, solved: Solved) -> None:
        """Keeps it."""
        self[solved.block] = solved


def prune_model(model: Any, windows: Int64[Tensor, "n t"], *settings: str) -> dict[str, Solved]:
    """Prune a causal LM of transformers in place; what became of each block, by its path.

    windows: calibration windows, token ids. settings: name=value as experiments.run has them, with its defaults. The
    model stays where it is, in eval mode and without gradients; its blocks are solved one by one on `device`. `given`,
    which experiment=barber has, prunes a copy of the model for its masks first.

    ValueError in one line for a setting that is not about a method or that experiments.run refuses, for windows that
    the model cannot read, and for what prune.prune refuses.
    """
    for word in settings:
        if name_of(word).partition(".")[0] not in SETTINGS:
            raise ValueError(f"{word}: expected name=value, the name one of {', '.join(SETTINGS)}")
    if windows.dim() != 2 or not windows.numel():
        raise ValueError(f"windows: expected token ids [n, t], found {list(windows.shape)}")
    jobs = command.jobs(list(settings)) or []
    if len(jobs) != 1:
        raise ValueError(f"{' '.join(settings)}: expected one method, found {len(jobs)}")
    return _pruned(model, windows.cpu(), jobs[0].config)


def _pruned(model: Any, windows: Tensor, config: dict[str, Any]) -> Answers:
    """The same for a configuration."""
    given = _pruned(deepcopy(model), windows, config["given"]["config"]) if config["given"] else None
    network, chosen = Network(model, batch=config["batch"], device=device(config["device"])), method(config)
    chosen.fits(config["allocator"]["sparsity"], {n: tuple(w.shape) for n, w in network.weights().items()})
    walk = prune(network, network.readable(windows), chosen, config["granularity"], config["propagate"], given=given)
    return Answers({solved.block: solved for solved in walk})
