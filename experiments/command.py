"""Reads the command line before Hydra runs it: every job is composed and checked, and a mistake gets one line."""

import difflib
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.identity import fingerprint
from experiments.record import Names

METHOD = ("metric", "allocator", "update")  # an experiment with another one of these is another method
OURS = ("prune.", "experiments.")


@dataclass(frozen=True)
class Job:
    """One run that the command line asks for."""

    config: dict[str, Any]
    names: Names


def jobs(arguments: list[str]) -> list[Job] | None:
    """All jobs of a command line, in order; None if it only asks for help. ValueError in one line for a mistake."""
    asked = get_args_parser().parse_args(arguments)
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    try:
        parsed = OverridesParser.create().parse_overrides(asked.overrides)
    except HydraException as error:
        raise ValueError(
            f"cannot read the command line: {first(error)}; write name=value, a list as name=[a,b]"
        ) from None
    swept = [override.input_line for override in parsed if override.is_sweep_override()]
    if swept and not asked.multirun:
        raise ValueError(f"{swept[0]} asks for several runs; add -m, or write one value that is a list as name=[a,b]")
    lines = BasicSweeper.split_arguments(parsed, None)[0] if asked.multirun else [asked.overrides]
    with initialize(version_base="1.3", config_path="../conf"):
        return [job(line) for line in lines]


def sweep(arguments: list[str]) -> str | None:
    """The name of a multirun: the same command has the same; None for a single run."""
    asked = get_args_parser().parse_args(arguments)
    return f"sweep-{fingerprint(sorted(asked.overrides))}" if asked.multirun else None


def job(overrides: list[str]) -> Job:
    """The run of these overrides."""
    try:
        config = compose("config", overrides=overrides, return_hydra_config=True)
        choices = config.hydra.runtime.choices
        OmegaConf.set_struct(config, False)
        config.pop("hydra")
        return Job(resolved(config), named(config, choices, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explained(error, overrides)) from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, the device decided; ValueError for what is missing or not ours to run."""
    if absent := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{absent[0]} is not set; give {absent[0]}=...")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for place, target in targets(plain):
        if not str(target).startswith(OURS):
            raise ValueError(f"{place}={target}: only classes of this project can be run, prune.* and experiments.*")
    return plain


def targets(config: Any, place: str = "") -> list[tuple[str, Any]]:
    """Every `_target_` of a configuration with its place."""
    found = []
    for name, value in config.items() if isinstance(config, dict) else []:
        found += [(f"{place}{name}", value)] if name == "_target_" else targets(value, f"{place}{name}.")
    return found


def named(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> Names:
    """The words for a run: its experiment and what was exchanged in it, or its metric and update if it has none."""
    changed = [choices[group] for group in METHOD if any(line.split("=")[0] == group for line in overrides)]
    parts = [choices["experiment"], *changed] if choices.get("experiment") else [choices[group] for group in METHOD]
    kept = [part for part in parts if part != "uniform"]
    model = choices["model"]
    if model == "local":
        model = str(config.model.path).rstrip("/").split("/")[-1]
    line = shlex.join(["python", "-m", "experiments.run", *sys.argv[1:]])
    return Names(model, "+".join(kept), choices["pattern"], line, config.sweep)


def explained(error: Exception, overrides: list[str]) -> str:
    """What is wrong with the overrides, and the nearest thing that exists."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}"
    known = settings(OmegaConf.create(compose("config")))
    for line in overrides:
        name = line.split("=")[0].lstrip("+~")
        if name.split("@")[0] not in known and not name.startswith("hydra"):
            return f"{name}: no such setting{nearest(name, known)}; --help lists them"
    return first(error)


def settings(config: Any, place: str = "") -> list[str]:
    """The full names of all settings of a configuration, groups included."""
    found = []
    for name in config if isinstance(config, DictConfig) else []:
        found += [f"{place}{name}"]
        if OmegaConf.is_dict(config._get_node(name)):
            found += settings(config._get_node(name), f"{place}{name}.")
    return found


def nearest(word: str, known: list[str]) -> str:
    """A question that names the most similar known word; empty if nothing is similar."""
    found = difflib.get_close_matches(word, known, 1, 0.5)
    return f", did you mean {found[0]}?" if found else ""


def first(error: Exception) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
