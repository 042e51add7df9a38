"""Refuses what Hydra reads on a command line but no run can mean, in one line each, before anything is composed."""

import math
import re
from argparse import Namespace
from collections.abc import Iterable
from itertools import islice
from os.path import exists, expanduser
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from experiments.composing.groups import OWN, chosen_by, has_option, options_of
from experiments.composing.plugins import CONF
from experiments.console.arguments import without_dashes

LISTS = ("eval", "tracker", "update")  # groups of which several options can be chosen
MOST = 10_000  # runs of one multirun: each is composed and checked before the first one starts
FLAGS = ("config_name", "config_path", "experimental_rerun")
WHOLE = 2**31 - 1
RANGES = {  # by last name
    "batch": (1, WHOLE),
    "sequences": (1, 10**6),
    "length": (2, WHOLE),
    "seed": (0, 2**63 - 1),
    "windows": (1, WHOLE),
    "prompt_tokens": (0, WHOLE),
    "top_k": (1, WHOLE),
}
THEN = "then"  # where the updates stand that follow the first
FOLLOWER = f"update@{THEN}."  # what chooses one of them, less its name
FOLDERS = ("outputs", "scratch", "shared")  # settings that name one folder
PATHS = ("path", "evaluation_path", "files", *FOLDERS)  # settings that name files, by last name
PLACES = ("hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.job.chdir")  # the runner sets them


def flags(arguments: list[str]) -> Namespace:
    """The flags of a command line, and as `overrides` its settings, paths as `literal` has them.

    ValueError for a flag that does not exist.
    """

    def wrong(message: str) -> NoReturn:
        raise ValueError(f"{message}; --help lists flags and settings")

    parser = get_args_parser()
    parser.error = wrong  # its own prints the whole usage
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word.startswith("-") and word.partition("=")[0] not in parser._option_string_actions:
            wrong(without_dashes(word, following))
    return parser.parse_intermixed_args([literal(word) for word in arguments])


def literal(word: str) -> str:
    """A setting or choice that names a file, quoted where Hydra would not read the path as the shell handed it over.

    A path that begins with ~ goes on from the home of its user. As they are stay null, ???, what refers to another
    setting as ${outputs}, and what is quoted for Hydra. A comma parts several paths, unless the whole is there.
    """
    name, _, value = word.partition("=")
    last = name_of(word).rpartition(".")[2]
    quoted = value[:1] in ("'", '"') and _read(value) is not None
    if word.startswith("-") or value in ("", "null", "???") or "${" in value or quoted:
        return word
    parts = [value] if _there(value) else value.split(",")
    if last not in PATHS and not (name in OWN and any(map(is_path, parts))):
        return word
    return f"{name}={','.join(_quoted(at_home(path)) for path in parts)}"


def is_path(value: str) -> bool:
    """Whether a word names a file or folder: by a slash, as . or .., from ~ on, or because it is there."""
    return "/" in value or value in (".", "..") or value.startswith("~") or _there(value)


def _there(path: str) -> bool:
    return exists(at_home(path))  # noqa: PTH110 - pathlib raises for a name that is too long


def spelled_out(overrides: list[str]) -> list[str]:
    """The overrides of one run, `model=PATH` in full as model=local model.path=PATH, and `data=PATH` likewise.

    Of `update=[a,b]` the first is the update, and the others follow it, in place of those that an experiment chains. An
    option of that name goes before a path. While Hydra composes, for plugins have options too.
    """
    words, typed = [], as_typed(overrides)
    chained = [name for word in typed if word.startswith("experiment=") for name in followers(word.partition("=")[2])]
    for word in typed:
        group, _, text = word.partition("=")
        path = _read(text) if group in (*OWN, "update") else None
        if group == "update" and path:
            first, *others = map(str, path if isinstance(path, list) else [path])
            words += [f"update={first}", *(f"~{FOLLOWER}{name}" for name in chained if name not in others)]
            words += [f"{'' if name in chained else '+'}{FOLLOWER}{name}={name}" for name in others]
            continue
        if not isinstance(path, str) or not is_path(path) or has_option(group, path):
            words.append(word)
            continue
        option = "tokens" if group == "data" and path.endswith(".safetensors") else OWN[group]
        words += [f"{group}={option}", f"{group}.path={_quoted(path)}"]
    return words


def followers(experiment: str) -> list[str]:
    """The updates that follow the first one in an experiment, in order; none of one that does not exist."""
    chosen = chosen_by(experiment) if has_option("experiment", experiment) else {}
    return [group.removeprefix(FOLLOWER) for group in chosen if group.startswith(FOLLOWER)]


def chain_of(words: Iterable[str]) -> list[str] | None:
    """The updates that spelled out words have follow the first, in order; None where they leave the experiment's."""
    about = [word for word in words if word.lstrip("+~").startswith(FOLLOWER)]
    return [word.partition("=")[2] for word in about if not word.startswith("~")] if about else None


def as_typed(words: Iterable[str]) -> list[str]:
    """Spelled out words with all updates of a chain in one, as update=[a,b]; any other words as they are."""
    words = list(words)
    others = chain_of(words) or []
    own = [word for word in words if not word.lstrip("+~").startswith(FOLLOWER)]
    whole = lambda word: f"update=[{','.join([word.partition('=')[2], *others])}]"
    return [whole(word) if others and word.startswith("update=") else word for word in own]


def at_home(path: str) -> str:
    """A path that begins with ~ from the home of its user on; ~name stays where there is no such user."""
    return expanduser(path)  # noqa: PTH111 - pathlib's raises where there is none


def _quoted(path: str) -> str:
    return path if path and _read(path) == path else QuotedString(path, Quote.single).with_quotes()


def _read(value: str) -> Any:
    """What Hydra reads as the value of a setting; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(f"x={value}").value()
    except HydraException:
        return None


def refuse(line: Namespace, overrides: list[Override]) -> None:
    """ValueError for a flag of Hydra's that would exchange conf/, and for overrides that name nothing or too much."""
    for flag in FLAGS:
        if getattr(line, flag, None):
            reason = f"--{flag.replace('_', '-')}: all settings are those of conf/"
            raise ValueError(f"{reason}; change them as name=value, or add YAML with --config-dir=FOLDER")
    for override in overrides:
        if wrong := _syntax(override) or _option(override):
            raise ValueError(f"{override.input_line}: {wrong}")
    if math.prod(map(_values, overrides)) > MOST:
        raise ValueError(f"expected at most {MOST} runs, this asks for more; sweep over fewer values")


def name_of(override: str) -> str:
    """What an override sets: `+update.damping=1` sets update.damping."""
    return override.split("=", maxsplit=1)[0].lstrip("+~").split("@")[0]


def _syntax(override: Override) -> str:
    """What is wrong with how it is written; empty if nothing is."""
    name = override.key_or_group
    if re.search(r"_target_['\"]?\s*[=:]", override.input_line or ""):
        return "a class is chosen as an option; add a YAML to conf/, or to that of a package that plugins=[...] names"
    if override.is_delete():
        none = f", or none, as {name}=[]" if name in LISTS else ""
        return f"nothing of a run can be left out; choose another option{none}, or write null where that is one"
    if override.package is not None:
        return f"an option has one place, found @{override.package}; write {name}=OPTION"
    if name == THEN:
        return "updates that follow the first are chosen with it, as update=[admm,reconstruct]"
    if not name:
        return "expected the name of a setting in front of the =; write name=value"
    if name.startswith(PLACES):
        return "the runner sets this; outputs=FOLDER is where runs go"
    return ""


def _option(override: Override) -> str:
    """What is wrong with the option that is chosen of a group; empty if nothing is, or if it is no group."""
    name, value = override.key_or_group, override.value()
    if name.startswith("hydra") or not (CONF / name).is_dir() or isinstance(value, Glob | RangeSweep):
        return ""
    several = override.is_sweep_override() and override.is_discrete_sweep()
    if name == "update" and isinstance(value, list) and len(set(map(str, value))) < max(len(value), 1):
        return "expected updates that follow one another, each once, as [admm,reconstruct]"
    for option in override.sweep_iterator() if several else [value]:
        chosen = option if isinstance(option, list) and name in LISTS else [option]
        if not all(isinstance(word, str | QuotedString) for word in chosen):
            as_list = ", or several as [a,b]" if name in LISTS else ""
            return f"expected the name of one option of {name}{as_list}; there are {', '.join(options_of(name))}"
    return ""


def _values(override: Override) -> int:
    """How many values it stands for; ValueError for a sweep without an end or without a value."""
    if not override.is_sweep_override():
        return 1
    if isinstance(override.value(), IntervalSweep | Glob):
        raise ValueError(
            f"{override.input_line}: expected values that can be counted; write them with commas, as a,b,c"
        )
    try:
        values = len(list(islice(override.sweep_iterator(), MOST + 1)))
    except (HydraException, ValueError):  # a step of 0
        values = 0
    if not values:
        raise ValueError(f"{override.input_line}: expected at least one value; write range(start,stop,step)")
    return values


def refuse_values(values: dict[str, Any]) -> None:
    """ValueError for a number that no computation can use, whatever its part; `values` by full name, None is any."""
    for name, value in values.items():
        least, most = RANGES.get(name.rpartition(".")[2], (-math.inf, math.inf))
        if isinstance(value, int) and not least <= value <= most:
            raise ValueError(f"{name}: expected a whole number from {least} to {most}, found {value}")
    if not re.fullmatch(r"\w[\w.=+ -]{0,59}", str(values.get("sweep") or "sweep")):
        raise ValueError("sweep: expected a name of at most 60 letters, digits and any of _.=+ -; it names a file")
