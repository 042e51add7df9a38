"""What the command line asks of a table: which part of it, with which of its root settings, and what else runs take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.composing.options import CONF
from experiments.composing.overrides import flags, literal, name_of, refuse
from experiments.console.errors import first_line, nearest

PARTS = ("models", "methods", "budgets", "values", "seeds")  # of a table, each a list on the command line
TOLD = ("kind", "title", "paper", "source", "trust", "unstated")  # of a table: facts, not settings
OURS = ("sweep", "ablate")
FIXED = {"model": "models", "experiment": "methods", "pattern": "budgets", "sparsity": "budgets", "seed": "seeds"}


@dataclass(frozen=True)
class Asked:
    """An empty part is all of it; `settings` and `overrides` are lines name=value."""

    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def read(words: Sequence[str], table: Mapping[str, Any]) -> Asked:
    """The command line's words beside a table's name; ValueError in one line for what none of them can be."""
    known = [name for name, value in table.items() if not isinstance(value, dict | list) and name not in TOLD]
    parts: dict[str, Any] = {}
    settings, overrides = [], []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            there = [*PARTS, *known]
            raise ValueError(f"{word}: expected name=value{nearest(name, there)}; a table has {', '.join(there)}")
        if name in PARTS:
            parts[name] = tuple(part.strip().strip("'\"") for part in text.strip("[] ").split(",") if part.strip())
        else:
            (settings if name in known else overrides).append(word if name in known else literal(word))
    if "seeds" in parts:
        parts["seeds"] = seeds(parts["seeds"], listed=any(word.startswith("seeds=[") for word in words))
    checked(overrides, [*PARTS, *known])
    return Asked(**parts, settings=tuple(settings), overrides=tuple(overrides))


def seeds(parts: Sequence[str], listed: bool) -> tuple[int, ...]:
    """Whole numbers: `seeds=3` is 0, 1 and 2, `seeds=[0,5]` are those two."""
    numbers = tuple(dict.fromkeys(int(part) for part in parts if part.isdecimal()))
    if not listed and len(numbers) == 1:
        numbers = tuple(range(numbers[0]))
    if not numbers or not all(part.isdecimal() for part in parts):
        raise ValueError(f"seeds: expected their number, as 3, or a list of them, as [0,5], found {','.join(parts)}")
    return numbers


def checked(overrides: list[str], known: Sequence[str]) -> None:
    """ValueError for overrides that no cell can have, or that a table has a word of its own for."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(f"{first_line(error).rstrip('.')}; write name=value, a list as name=[a,b]") from None
    refuse(flags(overrides), parsed)
    settings = {path.stem for path in CONF.iterdir() if path.is_dir()} | set(OmegaConf.load(CONF / "config.yaml"))
    for override in parsed:
        name, line = name_of(override.input_line or ""), override.input_line
        if name in FIXED:
            raise ValueError(f"{line}: the table sets {name}; choose with {FIXED[name]}=[...]")
        if name in OURS:
            raise ValueError(f"{line}: a table is one multirun, named after it; leave {name} out")
        if override.is_sweep_override():
            raise ValueError(f"{line}: expected one value for all cells of the table; a list is name=[a,b]")
        if name.partition(".")[0].partition("/")[0] not in settings:
            raise ValueError(
                f"{name}: no such setting{nearest(name, [*known, *settings])}; a table has {', '.join(known)}"
            )


def pick(kind: str, wanted: Sequence[str], there: Iterable[str]) -> list[str]:
    """The wanted ones of what is there, all where none is named; ValueError for one that is not."""
    known = list(dict.fromkeys(there))
    for name in wanted:
        if name not in known:
            raise ValueError(f"no {kind} {name}{nearest(name, known)}; there are {', '.join(known)}")
    return list(wanted) or known
