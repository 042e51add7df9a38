"""Reads the command line before Hydra runs it: every job is composed and checked, and a mistake gets one line."""

import re
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.hints import first_line, nearest
from experiments.identity import fingerprint
from experiments.record import Names

CONF = Path(__file__).parents[1] / "conf"
METHOD = ("metric", "allocator", "update")  # an experiment with another one of these is another method
# What a run does not share with the one whose masks it takes over.
OWN = (
    *METHOD,
    "experiment",
    "given",
    "scope",
    "pattern.scope",
    "granularity",
    "propagate",
    "reference",
    "save_model",
    "hydra",
)
OURS = ("prune.", "experiments.")


@dataclass(frozen=True)
class Job:
    """One run that the command line asks for."""

    config: dict[str, Any]
    names: Names


def jobs(arguments: list[str]) -> list[Job] | None:
    """All jobs of a command line, in order; None if it only asks for help. ValueError in one line for a mistake."""
    asked = get_args_parser().parse_intermixed_args(arguments)
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    try:
        parsed = OverridesParser.create().parse_overrides(asked.overrides)
    except HydraException as error:
        said = first_line(error).rstrip(".")
        raise ValueError(f"cannot read the command line: {said}; write name=value, a list as name=[a,b]") from None
    swept = [override.input_line for override in parsed if override.is_sweep_override()]
    if swept and not asked.multirun:
        raise ValueError(f"{swept[0]} asks for several runs; add -m, or write one value that is a list as name=[a,b]")
    lines = BasicSweeper.split_arguments(parsed, None)[0] if asked.multirun else [asked.overrides]
    with initialize(version_base="1.3", config_path="../conf"):
        return [compose_job(line) for line in lines]


def arranged(arguments: list[str]) -> list[str]:
    """The command line as Hydra takes it: flags first, then the settings, with a name for a multirun that has none."""
    asked = get_args_parser().parse_intermixed_args(arguments)
    flags = [word for word in arguments if word not in asked.overrides]
    if asked.multirun and not any(name_of(word) == "sweep" for word in asked.overrides):
        asked.overrides.append(f"sweep=sweep-{fingerprint(sorted(asked.overrides))}")
    return [*flags, *asked.overrides]


def compose_job(overrides: list[str]) -> Job:
    """The run of these overrides, composed first with its options alone, which tells what can be set and to what."""
    try:
        options = [line for line in overrides if (CONF / name_of(line)).is_dir() or name_of(line).startswith("hydra/")]
        default = list_settings(compose("config", overrides=options))
        groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
        known = [name for name in default if not name.endswith("_target_")] + groups
        for name in map(name_of, overrides):
            if name not in default and not (CONF / name).is_dir() and not name.startswith("hydra"):
                raise ValueError(describe_setting(name, known))
        config = compose("config", overrides=overrides, return_hydra_config=True)
        choices = take_choices(config)
        refuse_other_kinds(list_settings(config), default)
        return Job(with_given(resolve(config), overrides), name_run(config, choices, overrides))
    except MissingConfigException as error:
        raise ValueError(describe_options(error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(first_line(error)) from None


def take_choices(config: DictConfig) -> dict[str, Any]:
    """Which option of each group was chosen; takes Hydra's own settings, which say so, out of the configuration."""
    OmegaConf.set_struct(config, False)
    return config.pop("hydra").runtime.choices


def with_given(plain: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The configuration with the whole run that `given` names in its place: the same model, data, pattern and budget.

    Its method is as its experiment has it: what was set for the method of the run that builds on it does not count.
    """
    name = plain.get("given")
    if not name:
        return plain | {"given": None}
    options = sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - {"dense"})
    if name not in options:
        near = nearest(str(name), options)
        raise ValueError(f"given={name}: no experiment that prunes{near}; there are {', '.join(options)}")
    shared = [line for line in overrides if name_of(line) not in OWN and re.split("[./]", name_of(line))[0] not in OWN]
    lines = [*shared, f"experiment={name}"]
    config = compose("config", overrides=[*lines, f"device={plain['device']}"], return_hydra_config=True)
    names = name_run(config, take_choices(config), lines)
    asked = shlex.join(["python", "-m", "experiments.run", *(line for line in lines if name_of(line) != "sweep")])
    whole = with_given(resolve(config), lines)
    wanted, there = plain["allocator"]["sparsity"], whole["allocator"]["sparsity"]
    if wanted != there:
        raise ValueError(
            f"given={name}: its masks remove {there:g}, but this run is to remove {wanted:g}; set sparsity"
        )
    return plain | {"given": {"config": whole, "names": asdict(names) | {"command": asked}}}


def name_of(override: str) -> str:
    """What an override sets: `+update.damping=1` sets update.damping."""
    return override.split("=", maxsplit=1)[0].lstrip("+~").split("@")[0]


def list_settings(config: Any, place: str = "") -> dict[str, Any]:
    """All settings of a configuration by full name, as written: branches and interpolations included."""
    found: dict[str, Any] = {}
    for name in config if isinstance(config, DictConfig) else []:
        node = config._get_node(name)
        found[f"{place}{name}"] = node._value() if not OmegaConf.is_config(node) else None
        found |= list_settings(node, f"{place}{name}.")
    return found


def refuse_other_kinds(given: dict[str, Any], default: dict[str, Any]) -> None:
    """ValueError for a setting that is not of its default's kind: a word for a number, a fraction for a count."""
    for name, value in given.items():
        usual = default.get(name)
        if value is None and name != "given" and (usual == "???" or (isinstance(usual, str) and "." not in name)):
            raise ValueError(f"{name}: expected a value, found null")
        open_ended = usual is None or (value is None and isinstance(usual, str))
        if open_ended or any(isinstance(v, str) and ("${" in v or v == "???") for v in (usual, value)):
            continue
        kinds = (int, float) if isinstance(usual, float) else (type(usual),)
        if type(value) not in kinds and not (isinstance(usual, str) and isinstance(value, int | float)):
            word = {int: "a whole number", float: "a number", bool: "true or false"}.get(kinds[-1], "another value")
            raise ValueError(f"{name}: expected {word} such as {usual}, found {value}")


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values; ValueError for what is missing or not ours to run."""
    if absent := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{absent[0]} is not set; give {absent[0]}=...")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if not plain["outputs"]:
        raise ValueError("outputs: expected a folder, found nothing")
    for name, target in list_settings(config).items():
        if name.endswith("_target_") and not str(target).startswith(OURS):
            raise ValueError(f"{name}={target}: only classes of this project can be run, prune.* and experiments.*")
    return plain


def name_run(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> Names:
    """The words for a run: its experiment and what was exchanged in it, or its metric and update if it has none."""
    method = "dense"  # whatever its parts: nothing is removed
    changed = [choices[group] for group in METHOD if group in map(name_of, overrides)]
    parts = [choices["experiment"], *changed] if choices.get("experiment") else [choices[group] for group in METHOD]
    if "given" in map(name_of, overrides) and config.given:
        parts = [*parts, f"given-{config.given}"]
    if config.allocator.sparsity != 0:
        method = "+".join(part for part in parts if part != "uniform")
    model = choices["model"]
    if model == "local":
        model = str(config.model.path).rstrip("/").split("/")[-1]
    asked = [word for word in sys.argv[1:] if not word.startswith("sweep=")]
    line = shlex.join(["python", "-m", "experiments.run", *asked])
    return Names(model, method, choices["pattern"], line, config.sweep)


def describe_setting(name: str, known: list[str]) -> str:
    """What there is instead of a setting that does not exist, or why it does not exist here."""
    group, _, rest = name.partition(".")
    option = rest.partition(".")[0]
    if (CONF / group / f"{option}.yaml").exists():
        return f"{name}: {option} is not chosen; add it, as {group}=[{option},...], or leave this out"
    return f"{name}: no such setting{nearest(name, known)}; --help lists them"


def describe_options(error: MissingConfigException) -> str:
    """What there is instead of the option that was asked for."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}"
