"""Packages outside this repository that a command line trusts: their settings are found, their classes may be made.

`plugins=[mypackage]`, or PRUNE_PLUGINS=mypackage for every command, names them. The folder conf/ of a package has
groups and options as ours has. A folder of settings alone is named by its path, also as --config-dir FOLDER. By default
there is none.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin

from experiments.console.arguments import CONF
from experiments.runs.identity import targets
from experiments.runs.sources import OURS

VARIABLE = "PRUNE_PLUGINS"
SETTING = "plugins="


class Places(SearchPathPlugin):
    """Where Hydra looks for settings behind conf/."""

    folders: ClassVar[Sequence[Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Puts the folders of the plugins behind conf/."""
        for folder in self.folders:
            search_path.append("plugins", f"file://{folder}")


def look_into(plugins: Sequence[str]) -> None:
    """From now on Hydra looks into the settings of these plugins, and of no others.

    ValueError in one line for a plugin that is not there, and for an option that two places have.
    """
    Plugins.instance().register(Places)
    Places.folders = _folders(tuple(plugins))


def plugins_of(words: Iterable[str]) -> list[str]:
    """The plugins that a command line names, or else the environment; ValueError for what is no list of names."""
    typed = [word for word in words if word.startswith(SETTING)]
    if not typed:
        return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    try:
        value = OverridesParser.create().parse_override(typed[-1]).value()
    except HydraException:
        value = None
    names = [getattr(name, "text", name) for name in (value if isinstance(value, list) else [value])]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{typed[-1]}: expected a list of packages or folders, as plugins=[mypackage]")
    return names


def with_plugins(words: Sequence[str], *more: str) -> list[str]:
    """The words with all their plugins and these in one, so that whoever gets them needs no environment."""
    plugins = [*plugins_of(words), *more]
    quoted = ",".join(QuotedString(name, Quote.single).with_quotes() if "/" in name else name for name in plugins)
    return [*(word for word in words if not word.startswith(SETTING)), *([f"{SETTING}[{quoted}]"] if plugins else [])]


def refuse_untrusted(config: dict[str, Any], plugins: Sequence[str]) -> None:
    """ValueError in one line for a class that is neither of this project nor of these plugins."""
    trusted = tuple(f"{name}." for name in (*OURS, *plugins))
    for part, settings in config.items():
        for target in targets(settings):
            if not str(target).startswith(trusted):
                top = str(target).partition(".")[0]
                raise ValueError(
                    f"{part}: {target} is no class of this project; plugins=[{top}] trusts that package, or"
                    f" {VARIABLE}={top} in the environment"
                )


@cache
def _folders(plugins: tuple[str, ...]) -> list[Path]:
    """The folders of settings that plugins have, each of whose options no other place has."""
    folders = [folder for name in plugins if (folder := _folder(name))]
    for number, folder in enumerate(folders):
        for file in folder.rglob("*.yaml"):
            own = file.relative_to(folder)
            for other in (CONF, *folders[:number]):
                if (other / own).exists() and other != folder:
                    raise ValueError(f"{file}: {other} has a {own} too; call one of them something else")
    return list(dict.fromkeys(folders))


def _folder(plugin: str) -> Path | None:
    """The folder of settings of a package, or a folder that is named by its path; None for a package without one."""
    if "/" in plugin:
        if not Path(plugin).is_dir():
            raise ValueError(f"plugins: no folder {plugin}")
        return Path(plugin).absolute()
    try:
        spec = find_spec(plugin)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"plugins: Python finds no package {plugin}; install it, or name its folder in PYTHONPATH")
    places = [Path(place, "conf").absolute() for place in spec.submodule_search_locations or []]
    return next(filter(Path.is_dir, places), None)
