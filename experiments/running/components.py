"""The components that a configuration names, checked as far as that is cheap."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from experiments.composing.method import make, method
from experiments.data.windows import Source
from experiments.evals.evaluator import Evaluator
from experiments.models import location, packing, stored
from experiments.trackers.tracker import Tracker
from prune import ranks
from prune.method import Method


@dataclass(frozen=True)
class Parts:
    """The components a configuration names; building them reads no model and no data."""

    data: Source
    method: Method
    evaluators: dict[str, Evaluator]
    trackers: list[Tracker]


def build(config: dict[str, Any], weights: bool = True) -> Parts:
    """The components, after every check that is cheap; ValueError or OSError in one line for what cannot work.

    Without `weights` a model's folder may hold its config.json alone.
    """
    try:
        chosen = method(config)
        if config["save_model"] == "packed":
            packing.check(chosen.quantizer)
        (stored.check if weights else location.located)(config["model"]["path"])
        if config["scratch"] and not Path(config["scratch"]).is_dir():
            raise ValueError(f"scratch={config['scratch']}: no such folder; make it, or leave scratch out")
        if config["given"]:
            build(config["given"]["config"], weights)
        data = make(config["data"])
        evaluators = {name: evaluator(name, part, config) for name, part in (config.get("eval") or {}).items()}
        trackers = [make(part) for part in (config.get("tracker") or {}).values()]
        for part in ([data] if chosen.calibrated else []) + [*evaluators.values(), *trackers]:
            part.check()
    except TypeError as error:
        raise ValueError(f"a setting is of the wrong kind: {error}; --cfg job shows them all") from error
    return Parts(data, chosen, evaluators, trackers)


def evaluator(name: str, part: dict[str, Any], config: dict[str, Any]) -> Evaluator:
    """An evaluation of these settings, given what no YAML sets: what it is called, and where its windows are kept."""
    given = {"outputs": config["outputs"]} if "text" in part else {}
    made = make(part, **given)
    called = "name" in getattr(made, "__dataclass_fields__", ()) and "name" not in part
    return replace(made, name=name) if called else made


def settle_device(config: dict[str, Any]) -> None:
    """Puts the device to use in its place in a configuration, and in that of the run that it builds on."""
    config["device"] = config["model"]["device"] = device(config["device"])
    if config["given"]:
        settle_device(config["given"]["config"])


def device(name: str) -> str:
    """The device to use; ValueError for a GPU that is not there."""
    if name == "auto":
        return gpu() if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}: no GPU that torch {torch.__version__} can use; set device=auto or device=cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1 and the like, found {name}")
    return gpu() if name == "cuda" else name


def gpu() -> str:
    """The GPU of this process: the first one, and of several ranks on a machine each its own."""
    return "cuda" if ranks.world() == 1 else f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
