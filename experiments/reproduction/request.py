"""What a command line asks of a table: a part of it, models that stand in for its own, and settings of its runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.composing.groups import composing, evaluations_of, options_of
from experiments.composing.job import name_model
from experiments.composing.overrides import FOLDERS, at_home, flags, is_path, literal, name_of, refuse
from experiments.composing.plugins import CONF
from experiments.console.errors import first_line, nearest
from experiments.files.disk import file_name
from experiments.models import location
from experiments.reproduction.verdict import harmless

PARTS = ("models", "methods", "budgets", "values", "seeds")  # of a table, each a list on the command line
FACTS = ("kind", "title", "paper", "source", "trust", "unstated")  # of a table, which nothing sets
MULTIRUN = ("sweep", "ablate")
FIXED = {"model": "models", "experiment": "methods", "pattern": "budgets", "sparsity": "budgets", "seed": "seeds"}
TEXT = ("data=stdlib", "data.sequences=32")  # of a stand-in: small, and there wherever Python is
TASKS = ("eval=[perplexity,zeroshot,audit]", "eval.zeroshot.tasks=[stdlib]")


@dataclass(frozen=True)
class Request:
    """A part of a table, all of what is empty; as lines name=value, settings of its root and overrides of its runs."""

    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def read(words: Sequence[str], table: Mapping[str, Any]) -> Request:
    """The command line's words beside a table's name; ValueError in one line for what none of them can be."""
    root = [name for name, value in table.items() if not isinstance(value, dict | list) and name not in FACTS]
    parts: dict[str, Any] = {}
    settings, overrides = [], []
    for word in words:
        name, equals, text = word.partition("=")
        if equals and name in PARTS:
            parts[name] = tuple(part.strip().strip("'\"") for part in text.strip("[] ").split(",") if part.strip())
            if name == "seeds":
                parts[name] = seeds(parts[name], listed=text.startswith("["))
        elif equals and name in root:
            settings.append(word)
        else:
            overrides.append(literal(word))
    check(overrides, [*PARTS, *root])
    return Request(**parts, settings=tuple(settings), overrides=tuple(overrides))


def seeds(parts: Sequence[str], listed: bool) -> tuple[int, ...]:
    """Whole numbers: `seeds=3` is 0, 1 and 2, `seeds=[0,5]` are those two."""
    numbers = tuple(dict.fromkeys(int(part) for part in parts if part.isdecimal()))
    if not listed and len(numbers) == 1:
        numbers = tuple(range(numbers[0]))
    if not numbers or not all(part.isdecimal() for part in parts):
        raise ValueError(f"seeds: expected their number, as 3, or a list of them, as [0,5], found {','.join(parts)}")
    return numbers


def check(overrides: list[str], known: Sequence[str]) -> None:
    """ValueError for overrides that no cell can have, or that a table has a word of its own for (one of `known`)."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(
            f"{first_line(error).rstrip('.')}; write name=value, a list as name=[a,b]; a table has {', '.join(known)}"
        ) from None
    with composing(overrides):
        refuse(flags(overrides), parsed)
    settings = {path.stem for path in CONF.iterdir() if path.is_dir()} | set(OmegaConf.load(CONF / "config.yaml"))
    for override in parsed:
        name, line = name_of(override.input_line or ""), override.input_line
        if name in FIXED:
            raise ValueError(f"{line}: the table sets {name}; choose with {FIXED[name]}=[...]")
        if name in MULTIRUN:
            raise ValueError(f"{line}: a table is one multirun, named after it; leave {name} out")
        if override.is_sweep_override():
            raise ValueError(f"{line}: expected one value for all cells of the table; a list is name=[a,b]")
        if re.split("[./]", name)[0] not in settings:
            near = nearest(name, [*known, *settings])
            raise ValueError(f"{name}: no such setting{near}; a table has {', '.join(known)}")


def narrow(table: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The table with the models, methods, budgets, values and seeds alone that are asked for; `typed`: the overrides.

    A model that the table does not have, but conf/model or a plugin does, stands in, and an experiment is a method.
    ValueError for what none has, and for a model.path given to several models.
    """
    part = {**table, "typed": request.overrides, "methods": table["methods"] | experiments(table, request)}
    own = offered("experiment", request) if set(request.methods) - set(part["methods"]) else []
    for name, chosen in (("methods", request.methods), ("budgets", request.budgets), ("values", request.values)):
        refuse_absent(name.removesuffix("s"), chosen, part.get(name, {}), own if name == "methods" else ())
        part[name] = {each: entry for each, entry in part.get(name, {}).items() if each in chosen or not chosen}
    part["usual"] = [budget for budget in table["usual"] if budget in part["budgets"]]
    part["seeds"] = list(request.seeds or table["seeds"])
    if request.seeds:  # of all methods and budgets, also those that have fewer
        for name in ("methods", "budgets"):
            part[name] = {each: {k: v for k, v in own.items() if k != "seeds"} for each, own in part[name].items()}
    models = {
        label: table["models"].get(label) or stand_in(part, name, request)
        for label, name in labels(table, request).items()
    }
    runs = [label for label, entry in models.items() if entry["overrides"] is not None]
    if len(runs) > 1 and any(name_of(line) == "model.path" for line in request.overrides):
        raise ValueError(f"model.path: one folder is one model, here are {len(runs)}; choose it with models=[ONE]")
    return part | {"models": models, "evaluations": evaluations(part, request)}


def labels(table: Mapping[str, Any], request: Request) -> dict[str, str]:
    """The models that are asked for: what the table calls each, and its name on the command line.

    Each of the table's own may be named by its option of conf/model instead. A folder is called as its runs call it.
    Where a table needs models or tokens of ../shared, no other one stands in. ValueError or FileNotFoundError for what
    is not there.
    """
    own = table["models"]
    known = {option_of(entry): label for label, entry in own.items()} | {label: label for label in own}
    others = not any(need.startswith(("data/models", "parity")) for need in table.get("needs", []))
    options = offered("model", request) if others else []
    chosen: dict[str, str] = {}
    for name in request.models:
        path = folder_of(name, request) if others and name not in {*known, *options} - {"local"} else None
        label = name_model(path) if path else known.get(name, name)
        if path:
            location.located(at_home(path))
        else:
            refuse_absent("model", [label], [*own, *options])
        chosen[label if not path or label not in {*own, *chosen} else path] = name
    return chosen or {label: label for label in own}


def folder_of(name: str, request: Request) -> str | None:
    """The path of a model that is no option: one that stands in the list, or what model.path says of `local`."""
    if name == "local":
        paths = [line.partition("=")[2].strip("'\"") for line in request.overrides if name_of(line) == "model.path"]
        return paths[-1] if paths else None
    return name if is_path(name) else None


def part_name(table: Mapping[str, Any], part: Mapping[str, Any], request: Request) -> str:
    """What the files of a part of a table are called: the table's name, and each word that makes it another one.

    So a part never takes the place of the whole, nor of another part.
    """
    words = [
        f"{name}={','.join(map(str, part[name]))}" for name in PARTS if set(part[name]) != set(table.get(name, ()))
    ]
    words += [line for line in request.settings if name_of(line) not in (*FOLDERS, "device")]
    words += [line for line in request.overrides if name_of(line) == "eval" or not harmless(name_of(line))]
    return file_name("-".join([table["name"], *words]))


def experiments(table: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Those that are asked for as methods, and that the table has not; none where it compares with released code."""
    asked = [] if table.get("kind") == "parity" else [name for name in request.methods if name not in table["methods"]]
    there = offered("experiment", request) if asked else []
    return {name: {"overrides": [f"experiment={name}"]} for name in asked if name in there}


def offered(group: str, request: Request) -> list[str]:
    """The options of a group, those of the plugins that are asked for included."""
    with composing(request.overrides):
        return options_of(group)


def option_of(entry: Mapping[str, Any]) -> str | None:
    """The option of conf/model that a model's overrides choose."""
    return next((line.partition("=")[2] for line in entry["overrides"] or [] if name_of(line) == "model"), None)


def refuse_absent(kind: str, chosen: Sequence[str], there: Iterable[str], others: Sequence[str] = ()) -> None:
    """ValueError for a chosen one that is not there; `others` may be meant as well, and are too many to list."""
    known = list(dict.fromkeys(there))
    for name in chosen:
        if name not in known:
            raise ValueError(f"no {kind} {name}{nearest(name, [*known, *others])}; there are {', '.join(known)}")


def evaluations(table: Mapping[str, Any], request: Request) -> dict[str, set[str]] | None:
    """The evaluations that runs of the table's own models are to make alone, by `eval=` or `values=`; None: all.

    With the settings that a suite gives to each, in place of the table's.
    """
    if lines := [line for line in request.overrides if name_of(line) == "eval"]:
        chosen: dict[str, set[str]] = {}
        with composing(request.overrides):
            for option in lines[-1].partition("=")[2].strip("[] ").split(","):
                chosen |= evaluations_of(option.strip())
        return chosen
    if not request.values:
        return None
    if pictured(table):
        return {"top1": set(), "audit": set()}
    keys = [str(value.get("key")) for value in table["values"].values()]
    texts = [key.removeprefix("ppl/").partition("@")[0] if key.startswith("ppl/") else "zeroshot" for key in keys]
    return {name: set() for name in [*texts, "audit"]}


def pictured(table: Mapping[str, Any]) -> bool:
    """Whether a published table is of images."""
    return any("images" in value for value in table["values"].values())


def stand_in(table: Mapping[str, Any], option: str, request: Request) -> dict[str, Any]:
    """What a table would say of a model that is not one of its own: text and tasks that need no download.

    A table without published numbers is measured on any model as on its own, and one of images on the same images, as
    no other ones have a model's classes; `data=` and `eval=` on the command line take their place.
    """
    if table["kind"] != "published":
        return {"overrides": [f"model={option}"]}
    groups = [name_of(line) for line in request.overrides]
    lines = [f"model={option}"]
    if pictured(table):
        typed = {"data", "eval"} & set(groups)
        base = [line for line in table["overrides"] if name_of(line).split(".")[0] not in typed]
        return {"base": base, "overrides": lines, "stand_in": True}
    if "data" not in groups:
        lines += TEXT
    if "eval" not in groups:
        scored = any(str(value.get("key")).startswith("acc") for value in table["values"].values())
        lines += TASKS if scored else ("eval=[perplexity,audit]",)
    base = [line for line in table["overrides"] if name_of(line).split(".")[0] not in ("data", "eval", "model")]
    return {"base": base, "overrides": lines, "stand_in": True}
