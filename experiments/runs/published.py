"""What a method is called, whatever words it was asked for in: metric=wanda update=zero is wanda."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from experiments.console.arguments import CONF
from experiments.runs.protocol import flat

METHOD = ("metric", "allocator", "update", "quantizer")
Experiment = tuple[dict[str, str], dict[str, Any]]  # the options of METHOD, and its other settings by full name


def experiment_of(options: Mapping[str, str], config: dict[str, Any], places: Iterable[Path] = (CONF,)) -> str | None:
    """The experiment of these options of metric, allocator and update that has the settings of a configuration.

    Those that it does not set itself are free, as where it is chosen by name; a scope counts where the pattern has one.
    places: folders with experiment/*.yaml. None where there is no such experiment.
    """
    settings = flat(config)
    settings.setdefault("given", settings.get("given.names.method"))
    for name, (parts, own) in [entry for place in places for entry in _experiments(place).items()]:
        wanted = {"given": None} | own
        if "scope" in wanted:
            scope = wanted.pop("scope")
            wanted |= {"pattern.scope": scope} if "pattern.scope" in settings else {}
        if parts == options and all(settings.get(key) == value for key, value in wanted.items()):
            return name
    return None


def renamed(method: str, config: dict[str, Any]) -> str:
    """A method as its manifest has it (an experiment or metric, and what is exchanged in it), as it is called."""
    if config.get("then"):
        return method
    first, *others = [word for word in method.split("+") if not word.startswith("given-")]
    parts, _ = _experiments(CONF).get(first, ({}, {}))
    options = {"allocator": "uniform", "quantizer": "none"} | (parts or {_groups().get(first, ""): first})
    options |= {_groups().get(word, ""): word for word in others}
    return (experiment_of(options, config) if others else None) or method


@cache
def _groups() -> dict[str, str]:
    """The group of each option of a method: no two have an option of one name."""
    return {file.stem: group for group in METHOD for file in (CONF / group).glob("*.yaml")}


@cache
def _experiments(place: Path) -> dict[str, Experiment]:
    """The experiments of a folder, by name."""
    files = sorted((place / "experiment").glob("*.yaml"))
    return {file.stem: _experiment(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}


def _experiment(settings: dict[str, Any]) -> Experiment:
    chosen = {group.rpartition("/")[2]: option for entry in settings["defaults"] for group, option in entry.items()}
    own = {name: value for name, value in settings.items() if name not in ("defaults", "hydra")}
    return {"allocator": "uniform", "quantizer": "none"} | chosen, flat(own)
