"""What conf/ offers: opened for Hydra, and what to say of what is not there."""

from pathlib import Path

from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException

from experiments.hints import nearest

CONF = Path(__file__).parents[1] / "conf"


def composing() -> initialize:
    """Hydra, ready to compose. Our presets take the place of the plugins' own of the same name, else it merges them."""
    Plugins.instance()  # finds the plugins, and they register theirs
    for path in (CONF / "hydra" / "launcher").glob("*.yaml"):
        ConfigStore.instance().repo["hydra"]["launcher"].pop(path.name, None)
    return initialize(version_base="1.3", config_path="../conf", job_name="run")


def describe_setting(name: str, known: list[str]) -> str:
    """What there is instead of a setting that does not exist, or why it does not exist here."""
    group, _, rest = name.partition(".")
    option = rest.partition(".")[0]
    if (CONF / group / f"{option}.yaml").exists() and f"{group}.{option}" not in known:
        return f"{name}: {option} is not chosen; add it, as {group}=[{option},...], or leave this out"
    return f"{name}: no such setting{nearest(name, known)}; --help lists them"


def describe_options(error: MissingConfigException) -> str:
    """What there is instead of the option that was asked for."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if not options:
        return f"{group}={option}: of Hydra's own options only hydra/launcher can be chosen"
    return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}"
