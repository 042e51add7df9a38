"""What of an ablation can be run: values that cannot work with the rest of the run are named and left out.

Whoever names an axis means what it holds here, not each of its values, so that those are no mistakes; what is typed
is never left out. An axis on which nothing is left to compare, or that changes nothing, is a mistake.
"""

import sys
from collections.abc import Mapping
from typing import Any

from experiments.composing.job import Job
from experiments.composing.method import method
from experiments.composing.overrides import name_of
from experiments.console.errors import Mistakes, differences, explain, one_line
from experiments.runs.identity import PARTS, fingerprint

UNCALIBRATED = ("model", "pattern", "metric", "allocator", "update")  # all that counts where no data are read


def fitting(jobs: list[Job], presets: Mapping[str, str]) -> list[Job]:
    """The jobs that can work; `presets` (setting -> preset) are the axes. Those left out are named on stderr.

    Jobs that differ along an axis alone are compared: Mistakes where fewer than two of them work, or all are the same.
    """
    axes = set(presets) - {"experiment"} or set(presets)
    wrong, effects = {}, {}
    compared: dict[tuple[str, ...], list[str]] = {}
    names = differences(job.overrides for job in jobs)
    for name, job in zip(names, jobs, strict=True):
        compared.setdefault(tuple(w for w in job.overrides if name_of(w) not in axes), []).append(name)
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
    content = {part: config[part] for part in (PARTS if method(config).calibrated else UNCALIBRATED)}
    if config["given"]:
        content |= {"metric": None, "given": config["given"]["config"]}  # its masks are taken, whatever the metric
    return fingerprint(content)
