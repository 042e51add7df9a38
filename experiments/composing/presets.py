"""Prepared multiruns: `ablate=AXIS` and `experiment=ablation/NAME` stand for settings and values.

A preset is replaced by what it stands for before anything is composed, so its runs are named, identified and shared as
if every word had been typed. What is typed beside it wins.
"""

import re
from argparse import Namespace
from functools import cache

from hydra import compose
from hydra.errors import HydraException, MissingConfigException

from experiments.composing.options import CONF, composing, describe_options
from experiments.composing.overrides import flags, name_of
from experiments.console.errors import first_line

STUDIES = "experiment=ablation/"


def read(arguments: list[str]) -> tuple[Namespace, dict[str, str]]:
    """`flags` with each preset replaced, and the preset of every setting that one sweeps over.

    A preset makes a multirun of it. ValueError in one line for one that does not exist.
    """
    asked = flags(arguments)
    words = [re.sub("^experiment/ablation=", STUDIES, word) for word in asked.overrides]  # as --help lists them
    typed = {name_of(word) for word in words if not is_preset(word)}
    asked.overrides, swept = [], dict[str, str]()
    for word in words:
        if not is_preset(word):
            asked.overrides.append(word)
            continue
        values = stands_for(word)
        asked.multirun |= bool(values)
        for name in [name for name in values if name not in typed]:
            asked.overrides.append(f"{name}={values[name]}")
            swept |= {name: word} if "," in values[name] and not values[name].startswith("[") else {}
    return asked, swept


def is_preset(word: str) -> bool:
    """Whether a word of the command line stands for others."""
    return name_of(word) == "ablate" or (name_of(word) == "experiment" and "ablation/" in word)


@cache
def stands_for(preset: str) -> dict[str, str]:
    """The values of every setting of a preset, the experiment first; `glob(*)` are all options of a group."""
    if "," in preset or "[" in preset:
        raise ValueError(f"{preset}: expected one preset alone; write a command for each")
    try:
        with composing():
            asked = compose("config", overrides=[preset], return_hydra_config=True).hydra
    except MissingConfigException as error:
        raise ValueError(describe_options(error).replace("experiment/ablation=", STUDIES)) from None
    except HydraException as error:
        raise ValueError(f"{preset}: {first_line(error).rstrip('.')}") from None
    params = asked.sweeper.params or {}
    return {name: values_of(name, str(params[name])) for name in sorted(params, key=lambda name: name != "experiment")}


def values_of(group: str, values: str) -> str:
    """The values of a setting, or all options of a group."""
    return values if values != "glob(*)" else ",".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))
