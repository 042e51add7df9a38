"""What conf/ and the plugins of a command line offer: opened for Hydra, and what to say of what is not there."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from experiments.composing.plugins import CONF, look_into, plugins_of
from experiments.console.errors import nearest

OWN = {"model": "local", "data": "textfile"}  # groups whose choice may be a path: the option that reads it


def composing(words: Iterable[str] = ()) -> initialize:
    """Hydra, ready to compose what a command line asks for, with its plugins.

    Our presets take the place of the launchers' own of the same name, else it merges them.
    """
    Plugins.instance()  # finds the launchers, and they register theirs
    for preset in (CONF / "hydra" / "launcher").glob("*.yaml"):
        ConfigStore.instance().repo["hydra"]["launcher"].pop(preset.name, None)
    look_into(plugins_of(words))
    return initialize(version_base="1.3", config_path="../../conf", job_name="run")


def places() -> list[Path]:
    """The folders in which the Hydra that composes finds options: conf/, and those of plugins."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return [Path(source.path) for source in sources if source.scheme() == "file"]


def options_of(group: str) -> list[str]:
    """The options of a group, by name, while Hydra composes."""
    return sorted(path.stem for place in places() for path in (place / group).glob("*.yaml"))


def has_option(group: str, name: str) -> bool:
    """Whether a group has an option of this name, also of a group below it, while Hydra composes."""
    return any((place / group / f"{name}.yaml").is_file() for place in places())


def chosen_by(experiment: str) -> dict[str, str]:
    """The options of other groups that an experiment chooses, by group."""
    chosen = [entry for entry in _settings("experiment", experiment).get("defaults", []) if isinstance(entry, dict)]
    return {group.rpartition("/")[2]: option for entry in chosen for group, option in entry.items()}


def evaluations_of(option: str) -> dict[str, set[str]]:
    """What an option of eval measures: itself, or each evaluation of a suite, with the settings that this gives it.

    While Hydra composes; an option that is not there stands for itself.
    """
    there, parts = options_of("eval"), dict[str, set[str]]()
    settings = _settings("eval", option) if option in there else {}
    for member in (name for name in settings.get("defaults", []) if name in there):
        for name, given in evaluations_of(member).items():
            parts[name] = parts.get(name, set()) | given
    return {name: given | set(settings.get(name, ())) for name, given in parts.items()} or {option: set()}


def elsewhere(name: str) -> str:
    """Which options have a setting that those chosen have not, and which experiments choose them; empty if none has."""
    group, _, rest = name.partition(".")
    options = [option for option in options_of(group) if rest in _settings(group, option)]
    experiments = [name for name in options_of("experiment") if chosen_by(name).get(group) in options]
    if not options:
        return ""
    chosen = f" (experiment={', '.join(experiments)})" if experiments else ""
    return f"{group}={', '.join(options)} has it{chosen}"


def _settings(group: str, option: str) -> dict[str, Any]:
    """An option's YAML as it is written."""
    return _plain(next(file for place in places() if (file := place / group / f"{option}.yaml").exists()))


@cache
def _plain(file: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))


def describe_setting(name: str, known: list[str]) -> str:
    """What there is instead of a setting that does not exist, or why it does not exist here."""
    group, _, rest = name.partition(".")
    option, _, setting = rest.partition(".")
    if group == "eval" and option not in (members := evaluations_of(option)):
        own = [one for member in members if (one := f"eval.{member}.{setting}") in known]
        return f"{name}: {option} is a suite of {', '.join(members)}; set {' or '.join(own) or 'what these have'}"
    if option in options_of(group) and f"{group}.{option}" not in known:
        return f"{name}: {option} is not chosen; add it, as {group}=[{option},...], or leave this out"
    if group == "then" and option in options_of("update") and f"then.{option}" not in known:
        return f"{name}: {option} follows no update here; add it, as update=[admm,{option}], or leave this out"
    if options := elsewhere(name):
        return f"{name}: no such setting here; {options}"
    return f"{name}: no such setting{nearest(name, known)}; --help lists them"


def describe_options(error: MissingConfigException) -> str:
    """What there is instead of the option that does not exist."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = options_of(group)
    if not options:
        return f"{group}={option}: of Hydra's own options only hydra/launcher can be chosen"
    path = f", or a path, as {group}=./{option}" if group in OWN else ""
    return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}{path}"
