"""What the word at the cursor could become: for a shell that completes `prune-lm run` (see experiments/prune_lm.py)."""

from collections.abc import Iterable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments.composing.command import split
from experiments.composing.groups import OWN, composing, places
from experiments.composing.job import FORMS, options_in
from experiments.composing.overrides import PATHS, at_home, flags, name_of, spelled_out
from experiments.composing.plugins import CONF

FLAGS = ("-m", "--help", "--cfg", "--resolve", "--config-dir")


def completions(words: list[str]) -> list[str]:
    """All words that the last of these can become, given those before it; one that ends with = . / or , goes on."""
    *before, word = words
    try:
        with composing(before):
            known = settings(before)
            candidates = values(word, known) if "=" in word else next_names(word, known)
            return sorted({candidate for candidate in candidates if candidate.startswith(word)})
    except (ValueError, HydraException, OmegaConfBaseException):  # what stands before it is not to be understood
        return []


def settings(before: list[str]) -> dict[str, object]:
    """Every setting by full name, with its value as conf/ has it for the options that are chosen already."""
    line = spelled_out(split(flags(before).overrides)[0])
    written = options_in(word for word in line if (CONF / name_of(word)).is_dir()).written
    return {name: value for name, value in written.items() if not name.endswith("_target_")}


def next_names(word: str, known: dict[str, object]) -> Iterable[str]:
    """Groups of options, flags, and settings as far as their next dot."""
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"]
    branches = {name.rpartition(".")[0] for name in known}
    for name in (*groups, "hydra/launcher", *(name for name in known if name not in branches)):
        dot = name.find(".", len(word)) + 1
        yield name[:dot] if dot else f"{name}="
    yield from FLAGS


def values(word: str, known: dict[str, object]) -> Iterable[str]:
    """The word with each value that it can have: options, paths, the value that conf/ has."""
    name, _, text = word.partition("=")
    last = text.replace("[", ",").rpartition(",")[2]  # of a list, or of several runs
    ahead = word.removesuffix(last)
    for folder in (place / name for place in places()):
        yield from (f"{ahead}{file.relative_to(folder).with_suffix('')}" for file in folder.rglob("*.yaml"))
    if name.rpartition(".")[2] in PATHS or (name in OWN and last.startswith(("/", ".", "~"))):
        yield from (f"{ahead}{path}" for path in paths(last))
    elif name in FORMS:
        yield from (f"{ahead}{form}".lower() for form in FORMS[name])
    elif isinstance(known.get(name), bool):
        yield from (f"{ahead}true", f"{ahead}false")
    elif not (CONF / name).is_dir() and known.get(name) is not None:
        yield f"{ahead}{known[name]}"


def paths(start: str) -> Iterable[str]:
    """The files and folders whose path begins so; a folder ends with a slash."""
    above, slash, begun = start.rpartition("/")
    folder = Path(at_home(above + slash) or ".")
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.startswith(begun) and (begun or not entry.name.startswith(".")):
            yield f"{above}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
