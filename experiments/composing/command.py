"""Reads a command line before anything runs: its presets replaced, every job composed and checked, a line a mistake.

The presets `ablate=AXIS` and `experiment=ablation/NAME` stand for settings and values. A preset is replaced by what it
stands for before anything is composed, so its runs are named, identified and shared as if every word had been typed.
What is typed beside it wins.
"""

import re
from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException

from experiments.composing.groups import composing, describe_options, options_of
from experiments.composing.job import Job, compose_job
from experiments.composing.overrides import flags, literal, name_of, refuse, spelled_out
from experiments.composing.plugins import SETTING, with_plugins
from experiments.console.arguments import bare
from experiments.console.errors import differences, first_line, refuse_all
from experiments.runs.identity import fingerprint

STUDIES = "experiment=ablation/"


def jobs(arguments: list[str]) -> list[Job] | None:
    """All jobs of a command line, in order; None if it only asks for help. ValueError in one line for a mistake.

    Mistakes, a ValueError with a line for each, if several jobs of a multirun are wrong. A multirun without a name gets
    one, the same with any launcher.
    """
    line, presets = read(arguments)
    if line.shell_completion:
        raise ValueError('--shell-completion: Hydra completes no command of ours; eval "$(prune-lm completion)" does')
    if line.help or line.hydra_help or line.cfg or line.info:
        return None
    parsed = parse(line.overrides)
    swept = [override.input_line for override in parsed if override.is_sweep_override()]
    if swept and not line.multirun:
        raise ValueError(f"{swept[0]} asks for several runs; add -m, or write one value that is a list as name=[a,b]")
    with composing(line.overrides):
        refuse(line, parsed)
        if not line.multirun:
            return [compose_job(line.overrides)]
    words = sorted(word for word in line.overrides if not name_of(word).startswith("hydra"))
    if "sweep" not in map(name_of, words):
        line.overrides.append(f"sweep=sweep-{fingerprint(words)}")
    composed = compose_jobs(split(line.overrides), presets)
    if not presets:
        return composed
    from experiments.composing.method import fitting  # noqa: PLC0415 - torch, which a typing mistake need not wait for

    return fitting(composed, presets)


def parse(overrides: list[str]) -> list[Override]:
    """What Hydra reads in these words; ValueError in one line where it cannot."""
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        reason = f"cannot read the command line: {first_line(error).rstrip('.')}"
        raise ValueError(f"{reason}; write name=value, a list as name=[a,b]{bare(overrides)}") from None


def split(overrides: list[str]) -> list[list[str]]:
    """The overrides of each run that they ask for."""
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]


def compose_jobs(lines: list[list[str]], presets: Mapping[str, str]) -> list[Job]:
    """The jobs of a multirun; Mistakes if several are wrong, each named by what it does not share with all."""
    composed, wrong, names = [], {}, differences(lines)
    with composing(lines[0]):
        for line, own in zip(lines, names, strict=True):
            try:
                composed.append(compose_job(line, presets))
            except ValueError as error:
                wrong[own] = str(error)
    refuse_all(wrong, names)
    return composed


def question(arguments: list[str]) -> list[str]:
    """A command line that asks for help, as Hydra takes it: flags first. Of a multirun, --cfg shows the first run."""
    line, _ = read(arguments)
    words = [literal(word) for word in arguments]
    typed = flags(words).overrides
    overrides = split(line.overrides)[0] if line.multirun and (line.cfg or line.info) else typed
    with composing(line.overrides):
        return [*(word for word in words if word not in typed), *spelled_out(overrides)]


def read(arguments: list[str]) -> tuple[Namespace, dict[str, str]]:
    """`flags` with each preset replaced, and the preset of every setting that one sweeps over.

    A preset makes a multirun of it. ValueError in one line for one that does not exist.
    """
    line = flags(arguments)
    words = [re.sub("^experiment/ablation=", STUDIES, word) for word in line.overrides]  # as --help lists them
    words = with_plugins(words, *([str(Path(line.config_dir).absolute())] if line.config_dir else []))
    plugins = [word for word in words if word.startswith(SETTING)]
    typed = {name_of(word) for word in words if not is_preset(word)}
    line.overrides, swept = [], dict[str, str]()
    for word in words:
        if not is_preset(word):
            line.overrides.append(word)
            continue
        values = stands_for(word, *plugins)
        line.multirun |= bool(values)
        for name in [name for name in values if name not in typed]:
            line.overrides.append(f"{name}={values[name]}")
            if "," in values[name] and not values[name].startswith("["):
                swept[name] = word
    return line, swept


def is_preset(word: str) -> bool:
    """Whether a word of the command line stands for others."""
    return name_of(word) == "ablate" or (name_of(word) == "experiment" and "ablation/" in word)


@cache
def stands_for(preset: str, *plugins: str) -> dict[str, str]:
    """The values of every setting of a preset, the experiment first; `glob(*)` are all options of a group.

    `plugins` is the word of the command line that names them, if one does.
    """
    if "," in preset or "[" in preset:
        raise ValueError(f"{preset}: expected one preset alone; write a command for each")
    with composing(plugins):
        try:
            sweeper = compose("config", overrides=[preset], return_hydra_config=True).hydra.sweeper
        except MissingConfigException as error:
            raise ValueError(describe_options(error).replace("experiment/ablation=", STUDIES)) from None
        except HydraException as error:
            raise ValueError(f"{preset}: {first_line(error).rstrip('.')}") from None
        params = {name: str(values) for name, values in (sweeper.params or {}).items()}
        every = {name: ",".join(options_of(name)) for name, values in params.items() if values == "glob(*)"}
    return dict(sorted((params | every).items(), key=lambda setting: setting[0] != "experiment"))
