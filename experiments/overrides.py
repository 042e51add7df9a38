"""Refuses what Hydra reads on a command line but no run can mean, in one line each, before anything is composed."""

import math
import re
from argparse import Namespace
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString, RangeSweep

CONF = Path(__file__).parents[1] / "conf"
LISTS = ("eval", "tracker")  # groups of which several options can be chosen
MOST = 10_000  # runs of one multirun: each is composed and checked before the first one starts
FLAGS = ("config_name", "config_path", "config_dir", "experimental_rerun")
WHOLE = 2**31 - 1
RANGES = {"batch": (1, WHOLE), "sequences": (1, WHOLE), "length": (2, WHOLE), "seed": (0, 2**63 - 1)}  # by last name
PLACES = ("hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.job.chdir")  # the runner sets them


def flags(arguments: list[str]) -> Namespace:
    """The flags of a command line, and as `overrides` its settings; ValueError for a flag that does not exist."""

    def wrong(message: str) -> NoReturn:
        raise ValueError(f"{message}; a setting is written name=value, without dashes; --help lists them")

    parser = get_args_parser()
    parser.error = wrong  # its own prints the whole usage
    return parser.parse_intermixed_args(arguments)


def refuse(asked: Namespace, overrides: list[Override]) -> None:
    """ValueError for a flag of Hydra's that would exchange conf/, and for overrides that name nothing or too much."""
    for flag in FLAGS:
        if getattr(asked, flag, None):
            said = f"--{flag.replace('_', '-')}: all settings are those of conf/"
            raise ValueError(f"{said}; change them as name=value, or add a YAML there")
    for override in overrides:
        if wrong := _syntax(override) or _option(override):
            raise ValueError(f"{override.input_line}: {wrong}")
    runs = math.prod(_values(override) for override in overrides)
    if runs > MOST:
        raise ValueError(f"this asks for {runs:g} runs, expected at most {MOST}; sweep over fewer values")


def name_of(override: str) -> str:
    """What an override sets: `+update.damping=1` sets update.damping."""
    return override.split("=", maxsplit=1)[0].lstrip("+~").split("@")[0]


def _syntax(override: Override) -> str:
    """What is wrong with how it is written; empty if nothing is."""
    name, line = override.key_or_group, override.input_line or ""
    if re.search(r"_target_['\"]?\s*[=:]", line):
        return "only classes of this project can be run, each as an option; add a YAML to conf/ for another one"
    if override.is_delete():
        return f"nothing of a run can be left out; choose another option{_none(name)}, or write null where that is one"
    if override.package is not None:
        return f"an option has one place, found @{override.package}; write {name}=OPTION"
    if not name:
        return "expected the name of a setting in front of the =; write name=value"
    if name.startswith(PLACES):
        return "the runner sets this; outputs=FOLDER is where runs go"
    return ""


def _option(override: Override) -> str:
    """What is wrong with the option that is chosen of a group; empty if nothing is, or if it is no group."""
    name = override.key_or_group
    folder = CONF / name
    if name.startswith("hydra") or not folder.is_dir() or isinstance(override.value(), Glob | RangeSweep):
        return ""
    swept = override.is_sweep_override() and override.is_discrete_sweep()
    for value in override.sweep_iterator() if swept else [override.value()]:
        chosen = value if isinstance(value, list) and name in LISTS else [value]
        if not all(isinstance(option, str | QuotedString) for option in chosen):
            there = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            several = ", or several as [a,b]" if name in LISTS else ""
            return f"expected the name of one option of {name}{several}; there are {there}"
    return ""


def _none(name: str) -> str:
    return f", or none, as {name}=[]" if name in LISTS else ""


def _values(override: Override) -> float:
    """How many values it stands for; ValueError for a sweep without an end or without a value."""
    sweep, line = override.value(), override.input_line
    if isinstance(sweep, IntervalSweep | Glob):
        raise ValueError(f"{line}: expected values that can be counted; write them with commas, as a,b,c")
    if not isinstance(sweep, RangeSweep):
        return len(list(override.sweep_iterator())) if override.is_sweep_override() else 1
    start, stop, step = (float(part or 0) for part in (sweep.start, sweep.stop, sweep.step))
    count = (stop - start) / step if step else math.nan
    if not 0 < count <= MOST:
        raise ValueError(f"{line}: expected 1 to {MOST} values, found {max(count, 0):g}; write range(start,stop,step)")
    return math.ceil(count)


def refuse_values(values: dict[str, Any]) -> None:
    """ValueError for a number that no computation can use, whatever its part; `values` by full name, None is any."""
    for name, value in values.items():
        least, most = RANGES.get(name.rpartition(".")[2], (-math.inf, math.inf))
        if isinstance(value, int) and not least <= value <= most:
            raise ValueError(f"{name}: expected a whole number from {least} to {most}, found {value}")
    sweep = str(values.get("sweep") or "sweep")
    if not re.fullmatch(r"[^./\0][^/\0]{0,99}", sweep):
        raise ValueError(f"sweep: expected a name of at most 100 letters without /, found {sweep:.40}; it names a file")
