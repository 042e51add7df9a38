"""One run that a command line asks for: composed by Hydra, checked setting by setting, and named."""

import re
import shlex
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.composing.groups import chosen_by, describe_options, describe_setting, options_of, places
from experiments.composing.overrides import (
    FOLLOWER,
    THEN,
    as_typed,
    chain_of,
    followers,
    name_of,
    refuse_values,
    spelled_out,
)
from experiments.composing.plugins import CONF, plugins_of, refuse_untrusted, with_plugins
from experiments.composing.precision import SETTING, settle_compute
from experiments.console.errors import first_line, nearest
from experiments.files.disk import file_name
from experiments.runs.folder import Names, Run
from experiments.runs.identity import FILES
from experiments.runs.published import METHOD, experiment_of

# What a run does not share with the one whose masks it takes over.
OWN = (
    *METHOD,
    THEN,
    "correction",
    "experiment",
    "given",
    "scope",
    "pattern.scope",
    "granularity",
    "propagate",
    "save_model",
    "hydra",
)
TEXTS = (*FILES, "scratch", "revision")  # settings that may be null, and are never numbers
FORMS = {"save_model": (False, True, "packed")}  # settings that are a switch or a word


@dataclass(frozen=True)
class Job:
    """One run that the command line asks for."""

    config: dict[str, Any]
    names: Names
    overrides: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)  # the option of each group
    compute: str | None = None  # what model.compute=auto stands for here

    @cached_property
    def run(self) -> Run:
        """Its run, named once: its code and its files are hashed for that. Nothing is written yet."""
        return Run.open(self.config, self.names)

    @property
    def words(self) -> list[str]:
        """Its overrides as they can be typed, without those that are the launcher's."""
        return [line for line in as_typed(self.overrides) if not name_of(line).startswith("hydra")]

    @property
    def handed_over(self) -> list[str]:
        """The same for a process of a launcher, on whatever machine: that one does not settle anything anew."""
        own = [line for line in self.overrides if not name_of(line).startswith("hydra")]
        return [*own, *([f"{SETTING}={self.compute}"] if self.compute else [])]


def compose_job(overrides: list[str], presets: Mapping[str, str] = MappingProxyType({})) -> Job:
    """The run of these overrides; its options alone tell what can be set and to what.

    `presets` names the one that brought a setting.
    """
    overrides = with_plugins(spelled_out(overrides))
    try:
        usual = options_in(overrides)
        groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
        known = [name for name in usual.written if not name.endswith("_target_")] + groups
        for name in map(name_of, overrides):
            if name not in usual.written and not (CONF / name).is_dir() and not name.startswith("hydra"):
                raise ValueError((f"{presets[name]}: " if name in presets else "") + describe_setting(name, known))
        config, choices = composed(overrides)
        plain = resolve(config, overrides)
        settings = list_settings(OmegaConf.create(plain))
        refuse_other_kinds(settings, usual.resolved)
        refuse_values(settings)
        plain = with_given(plain, overrides)
        compute = settle_compute(plain, overrides, choices.get("hydra/launcher"))
        return Job(plain, name_run(config, choices, overrides), tuple(overrides), choices, compute)
    except MissingConfigException as error:
        raise ValueError(describe_options(error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        where = f"{name}: " if (name := getattr(error, "full_key", None)) else ""
        raise ValueError(f"{where}{first_line(error).rstrip('.')}; --help lists the settings") from None


@dataclass(frozen=True)
class Options:
    """Options with their settings as conf/ and plugins have them, and which of each group was chosen.

    written: all settings by full name, interpolations included; resolved: their values.
    """

    config: DictConfig
    choices: dict[str, Any]
    written: dict[str, Any]

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The settings as they come out."""
        return list_settings(OmegaConf.create(OmegaConf.to_container(self.config, resolve=True)))


def is_option(word: str) -> bool:
    """Whether a word chooses an option, or sets one of Hydra's own settings."""
    return name_of(word).startswith("hydra") or any((place / name_of(word)).is_dir() for place in places())


def options_in(overrides: Iterable[str]) -> Options:
    """Those that the overrides of a run choose."""
    return compose_options(tuple(filter(is_option, overrides)), tuple(places()))


@cache  # one composition for all jobs of a multirun that choose the same
def compose_options(options: tuple[str, ...], _: tuple[Path, ...]) -> Options:
    """These options, from these places."""
    config = compose("config", overrides=list(options), return_hydra_config=True)
    choices = take_choices(config)
    return Options(config, choices, list_settings(config))


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What Hydra composes of these overrides, without its own settings, and which option of each group was chosen.

    It does so in two steps, of which the second is done here on a copy of the first: options, then values.
    """
    usual, values = options_in(overrides), [parsed(word) for word in overrides if not is_option(word)]
    if any(value.is_sweep_override() for value in values):
        return _composed(overrides)
    config = deepcopy(usual.config)
    OmegaConf.set_struct(config, True)
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except (HydraException, OmegaConfBaseException):
        return _composed(overrides)  # says what is wrong
    OmegaConf.set_struct(config, False)
    return config, usual.choices


def _composed(overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    config = compose("config", overrides=overrides, return_hydra_config=True)
    return config, take_choices(config)


@cache
def parsed(word: str) -> Override:
    """What Hydra reads in one word."""
    return OverridesParser.create().parse_override(word)


def take_choices(config: DictConfig) -> dict[str, Any]:
    """Which option of each group was chosen; takes Hydra's own settings, which say so, out of the configuration.

    Updates that follow the first are put in the order in which they were typed, and what is not typed goes.
    """
    OmegaConf.set_struct(config, False)
    own = config.pop("hydra")
    if (chain := chain_of(own.overrides.task)) is not None:
        config[THEN] = {name: config[THEN][name] for name in chain}
    refuse_untrusted({"hydra": OmegaConf.to_container(own)}, ("hydra", "hydra_plugins"))
    return own.runtime.choices


def with_given(plain: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The configuration with the whole run that `given` names in its place: the same model, data, pattern and budget.

    Its method is as its experiment has it: what was set for the method of the run that builds on it does not count.
    """
    name = plain.get("given")
    if not name:
        return plain | {"given": None}
    options = [option for option in options_of("experiment") if option != "dense"]
    if name not in options:
        near = nearest(str(name), options)
        raise ValueError(f"given={name}: no experiment that prunes{near}; there are {', '.join(options)}")
    shared = [line for line in overrides if name_of(line) not in OWN and re.split("[./]", name_of(line))[0] not in OWN]
    lines = [*shared, f"experiment={name}"]
    config, choices = composed(lines)
    names = name_run(config, choices, lines)
    typed = shlex.join(["python", "-m", "experiments.run", *(line for line in lines if name_of(line) != "sweep")])
    given = with_given(resolve(config, lines), lines)
    wanted, removed = plain["allocator"]["sparsity"], given["allocator"]["sparsity"]
    if wanted != removed:
        raise ValueError(
            f"given={name}: its masks remove {removed:g}, but this run is to remove {wanted:g}; set sparsity"
        )
    return plain | {"given": {"config": given, "names": asdict(names) | {"command": typed}}}


def list_settings(config: Any, place: str = "") -> dict[str, Any]:
    """All settings of a configuration by full name, as written: branches and interpolations included."""
    settings: dict[str, Any] = {}
    for name in config if isinstance(config, DictConfig) else []:
        node = config._get_node(name)
        settings[f"{place}{name}"] = node._value() if not OmegaConf.is_config(node) else None
        settings |= list_settings(node, f"{place}{name}.")
    return settings


def refuse_other_kinds(settings: dict[str, Any], default: dict[str, Any]) -> None:
    """ValueError for a setting that is not of its default's kind: a word for a number, a fraction for a count."""
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # first what others refer to
        usual = default.get(name)
        if value is None and name != "given" and (usual == "???" or (isinstance(usual, str) and "." not in name)):
            raise ValueError(f"{name}: expected a value, found null")
        if isinstance(value, int | float) and (isinstance(usual, str) or name.rpartition(".")[2] in TEXTS):
            raise ValueError(f"{name}: expected text, found the number {value}; quote it twice, {name}=\"'{value}'\"")
        if usual is None or (isinstance(usual, str) and (value is None or usual == "???")):
            continue
        if name in FORMS:
            if not any(type(value) is type(form) and value == form for form in FORMS[name]):
                *others, last = (str(form).lower() for form in FORMS[name])
                raise ValueError(f"{name}: expected {', '.join(others)} or {last}, found {value}")
            continue
        kinds = (int, float) if isinstance(usual, float) else (type(usual),)
        if type(value) not in kinds:
            word = {int: "a whole number", float: "a number", bool: "true or false"}.get(kinds[-1], "another value")
            raise ValueError(f"{name}: expected {word} such as {usual}, found {value}")


def resolve(config: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """The configuration as plain values; ValueError for what is missing, and for a class that is not trusted."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{missing[0]} is not set; give {missing[0]}=...")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    del plain["plugins"]  # where a class lies is no part of what a run is
    refuse_untrusted(plain, plugins_of(overrides))
    if not plain["outputs"]:
        raise ValueError("outputs: expected a folder, found nothing")
    return plain


def name_run(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> Names:
    """The words for a run: its experiment and what was exchanged in it, or its metric and update if it has none.

    What comes to another experiment, such as metric=wanda update=zero, is called that.
    """
    method = "dense"  # whatever its parts: nothing is removed or rounded
    options, chain = {group: choices[group] for group in METHOD}, list(config[THEN])
    parts, following = list(options.values()), chain
    if experiment := choices.get("experiment"):
        typed = {group: option for group, option in options.items() if group in map(name_of, overrides)}
        own, usual = chosen_by(experiment), followers(experiment)
        if usual and [options["update"], *chain] == [own.get("update"), *usual]:
            following = []
        elif usual:
            own.pop("update", None)  # a chain that takes the place of another is told as a whole
        parts = [experiment, *(option for group, option in typed.items() if own.get(group) != option)]
    parts += [f"then-{name}" for name in following]
    if "given" in map(name_of, overrides) and config.given:
        parts = [*parts, f"given-{config.given}"]
    if config.allocator.sparsity != 0 or choices["quantizer"] != "none":
        method = "+".join(part for part in parts if part not in ("uniform", "none"))
        if parts != [experiment]:
            plain: Any = OmegaConf.to_container(config, resolve=True)
            options |= {f"{FOLLOWER}{name}": name for name in chain}
            method = experiment_of(options, plain, places()) or method
    model = choices["model"]
    if model == "local":
        model = name_model(str(config.model.path))
    line = shlex.join(["python", "-m", "experiments.run", *filter(about_run, as_typed(overrides))])
    return Names(model, method, choices["pattern"], line, config.sweep)


def about_run(override: str) -> bool:
    """Whether an override is about one run, and not about the multirun it belongs to."""
    return not re.match("(hydra[/.]|sweep=)", override)


def name_model(path: str) -> str:
    """What a model is called, from its path or hub id: its last part, in a hub's cache the repository's name."""
    parts = Path(path).parts
    if not parts or parts[-1] == "..":
        parts = Path(path).resolve().parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return file_name(parts[-3].split("--")[-1])
    return file_name(parts[-1].removesuffix(".gguf"))
