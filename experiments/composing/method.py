"""The method that a configuration describes, and which values of an ablation make one that works.

Only here is anything instantiated.
"""

import sys
from collections.abc import Mapping
from typing import Any, get_args

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from experiments.composing.job import Job
from experiments.composing.overrides import name_of
from experiments.console.errors import Mistakes, differences, explain, one_line
from experiments.runs.identity import PARTS, fingerprint
from prune.block import Granularity, Propagate
from prune.chain import chain
from prune.correction import Correction
from prune.method import Method
from prune.prune import workable
from prune.states import Activations

ALLOWED = {
    "granularity": get_args(Granularity),
    "propagate": get_args(Propagate),
    "activations": get_args(Activations),
}
PIECES = ("pattern", "metric", "allocator", "update", "quantizer")
UNCALIBRATED = ("model", *PIECES, "then")  # all that counts where no data are read


def make(part: dict[str, Any], **changes: Any) -> Any:
    """The object that a configuration describes; what its constructor raises comes out as it is."""
    try:
        return instantiate(part, _convert_="all", **changes)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


def method(config: dict[str, Any]) -> Method:
    """The method, its parts checked against each other; ValueError in one line for what makes no sense together."""
    pattern, metric, allocator, update, quantizer = (make(config[part]) for part in PIECES)
    following = {name: make(part) for name, part in (config.get("then") or {}).items()}
    correction = Correction(config["correction"]) if config.get("correction") else None
    chosen = Method(pattern, metric, allocator, chain(update, following), quantizer, correction)
    for name, allowed in ALLOWED.items():
        if config[name] not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {config[name]}")
    if config["granularity"] != "block" and (chosen.update.reference == "dense" or correction):
        who = "correction" if correction else f"update {type(chosen.update).__name__}"
        raise ValueError(f"{who}: the dense model's stream is followed by whole blocks; set granularity=block")
    workable(chosen)
    chosen.fits(config["allocator"]["sparsity"], {})
    chosen.check(config["given"] and config["given"]["names"]["method"])
    return chosen


def fitting(jobs: list[Job], presets: Mapping[str, str]) -> list[Job]:
    """The jobs of an ablation that can work; `presets` (setting -> preset) are the axes. Others are named on stderr.

    Whoever names an axis means what it holds here, not each of its values; what is typed is never left out. Jobs that
    differ along an axis alone are compared: Mistakes where fewer than two of them work, or all are the same.
    """
    axes = set(presets) - {"experiment"} or set(presets)
    wrong, effects = {}, {}
    compared: dict[tuple[str, ...], list[str]] = {}
    names = differences(job.words for job in jobs)
    for name, job in zip(names, jobs, strict=True):
        compared.setdefault(tuple(w for w in job.words if name_of(w) not in axes), []).append(name)
        try:
            effects[name] = effect(job.config)
        except ValueError as error:
            wrong[name] = one_line(error)
        except TypeError:  # a value of the wrong kind was typed: that is refused, not left out, where runs are checked
            effects[name] = name
    reasons = explain(wrong, names)
    word = " ".join(dict.fromkeys(presets[axis] for axis in presets if axis in axes))
    for group in compared.values():
        left = [name for name in group if name in effects]
        if not left:
            raise Mistakes("\n".join(reasons))
        if len({effects[name] for name in left}) < 2:
            why = f"only {left[0]} can work here" if len(left) == 1 else "its runs would all remove the same weights"
            raise Mistakes("\n".join([*reasons, f"{word} compares nothing: {why}"]))
    for line in reasons:
        print(f"left out, cannot work here: {line}", file=sys.stderr, flush=True)
    return [job for name, job in zip(names, jobs, strict=True) if name in effects]


def effect(config: dict[str, Any]) -> str:
    """Stands for all that determines the pruned weights: without calibration data where none are read, and the like."""
    counting = (*PARTS, "then", "correction") if method(config).calibrated else UNCALIBRATED
    content = {part: config.get(part) for part in counting} | {"order": list(config.get("then") or ())}
    if config["given"]:
        content |= {"metric": None, "given": config["given"]["config"]}  # its masks are taken, whatever the metric
    return fingerprint(content)
