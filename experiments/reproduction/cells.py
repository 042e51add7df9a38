"""The cells of the tables that are filled with runs: each is a run at a place of its table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from experiments.composing.options import CONF
from experiments.composing.overrides import FOLDERS, at_home, name_of
from experiments.reproduction.asked import Asked, pick
from experiments.reproduction.verdict import rounding
from experiments.running import components
from experiments.runs.record import Record

ROOT = Path(__file__).parents[2]
NOT_RUN = "not run"
DENSE = "dense"  # the budget of the dense model, which no seed changes


@dataclass(frozen=True)
class Cell:
    """One run of a table: a method at a budget on a model with a seed, and the settings that make it that."""

    model: str
    method: str
    budget: str
    seed: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a run found: perplexity, the dense model's, share removed; or the reason why there is nothing.

    `metrics` are those of the evaluations that the cell asks for, as the run's `record` has them.
    """

    perplexity: float | None = None
    dense: float | None = None
    sparsity: float | None = None
    code: str = ""  # what computed it
    error: str = ""
    away: bool = False  # the error is that the model is not at hand
    record: Record | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    changed: tuple[str, ...] = ()  # what its settings have otherwise than the table's own


def plain(file: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A table's YAML as it stands, with these root settings in place of its own."""
    pairs = [word.partition("=") for word in settings]
    paths = {name: at_home(value) for name, _, value in pairs if name in FOLDERS}
    others = [word for word in settings if name_of(word) not in FOLDERS]
    whole = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(others), paths)
    found: Any = OmegaConf.to_container(whole, resolve=False)
    return found


def load(file: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A table's YAML with its root settings as the command line has them: `outputs=FOLDER`, `sequences=32`.

    `shared` is seen from the repository's root. Interpolations stay: most are of one cell. Published numbers are text,
    for their digits count. FileNotFoundError where something that the table `needs` is not there, ValueError for a
    published number that has no place in it.
    """
    found = plain(file, settings) | {"name": file.stem}
    found["device"] = components.device(found["device"])
    if "shared" in found:
        found["shared"] = str((ROOT / found["shared"]).resolve())
    for place in [Path(found["shared"], name) for name in found.get("needs", [])]:
        if not place.exists():
            raise FileNotFoundError(f"{place}: not there; this table needs the real models and text, set shared=FOLDER")
    if "published" in found:
        found["published"] = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)["published"]
        refuse_strays(found)
    return found


def refuse_strays(table: Mapping[str, Any]) -> None:
    """ValueError for a published number whose value, budget, method or model the table does not have."""
    absent = table.get("absent") or []
    known = [table["values"], table["budgets"], [*table["methods"], *absent], table["models"]]
    for value, budget, method, model, entry in published(table):
        for name, there in zip((value, budget, method, model), known, strict=True):
            if name not in there:
                raise ValueError(
                    f"{table['name']}: published {value} {budget} {method} {model}: no {name} in the table"
                )
        try:
            rounding(entry["value"])
        except (ArithmeticError, ValueError):
            raise ValueError(f"{table['name']}: published {value} {budget} {method} {model}: no number") from None


def published(table: Mapping[str, Any]) -> list[tuple[str, str, str, str, dict[str, str]]]:
    """Every published number as (value, budget, method, model, {"value": printed, "spread": printed}), as listed."""
    return [
        (value, budget, method, model, number if isinstance(number, dict) else {"value": number})
        for value, budgets in (table.get("published") or {}).items()
        for budget, methods in budgets.items()
        for method, models in methods.items()
        for model, number in models.items()
    ]


def filled(lines: Sequence[str], table: Mapping[str, Any], **values: Any) -> list[str]:
    """Lines of a table with its root settings and these values in place of `${name}`."""
    settings = {name: value for name, value in table.items() if not isinstance(value, dict | list)}
    whole: Any = OmegaConf.to_container(OmegaConf.create({**settings, **values, "lines": list(lines)}), resolve=True)
    return whole["lines"]


def entries(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the table says of each of its models, some of which are only named."""
    models = table["models"]
    return models if isinstance(models, dict) else {model: {"overrides": []} for model in models}


def expand(table: Mapping[str, Any], known: Callable[[str, str, str], dict[str, Any]]) -> list[Cell]:
    """All cells, by model and seed, then by method and budget. `known` tells what else the lines of a cell may name.

    What the command line sets for every run comes last. A model without overrides has no cells, and the dense model
    one seed.
    """
    cells = []
    models = {model: entry for model, entry in entries(table).items() if entry["overrides"] is not None}
    for model, seed, (method, entry) in product(models, table["seeds"], table["methods"].items()):
        for budget in entry.get("budgets") or table["usual"]:
            if budget not in table["budgets"] or (budget == DENSE and seed != table["seeds"][0]):
                continue
            lines = [*models[model].get("base", table["overrides"]), *models[model]["overrides"]]
            lines += [*table["budgets"][budget]["overrides"], *entry["overrides"]]
            lines = evaluated([*lines, *(entry.get("models") or {}).get(model, [])], models[model].get("eval"))
            values = {"model": model, "seed": seed, **known(model, method, budget)}
            lines = [*filled(lines, table, **values), *table.get("asked", [])]
            cells.append(Cell(model, method, budget, seed, tuple(lines)))
    return cells


def evaluated(lines: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Lines of a cell that is to measure by these evaluations alone; as they are where `names` is None."""
    if names is None:
        return list(lines)
    parts = [(line, name_of(line).split(".")) for line in lines]
    kept = [line for line, (group, *rest) in parts if group != "eval" or (rest and rest[0] in names)]
    return [*kept, f"eval=[{','.join(names)}]"]


def named(table: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """The table's labels of models, each named by its label or by its option of conf/model; unknown names stay."""
    options = {name_option(entry): label for label, entry in entries(table).items()}
    return [name if name in entries(table) else options.get(name, name) for name in models]


def name_option(entry: Mapping[str, Any]) -> str | None:
    """The option of conf/model that a model's overrides choose."""
    chosen = [line.partition("=")[2] for line in entry["overrides"] or [] if name_of(line) == "model"]
    return chosen[-1] if chosen else None


def options() -> list[str]:
    """The models that conf/model offers."""
    return sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def chosen(cells: Sequence[Cell], asked: Asked) -> list[Cell]:
    """The cells of these models, methods, budgets and seeds, of all where none is named; ValueError for a stray one."""
    models = pick("model", asked.models, (cell.model for cell in cells))
    methods = pick("method", asked.methods, (cell.method for cell in cells))
    budgets = pick("budget", asked.budgets, (cell.budget for cell in cells))
    seeds = pick("seed", [str(seed) for seed in asked.seeds], (str(cell.seed) for cell in cells))
    wanted = [cell for cell in cells if cell.model in models and cell.method in methods]
    return [cell for cell in wanted if cell.budget in budgets and str(cell.seed) in seeds]


def account(outcomes: Mapping[Cell, Outcome]) -> str:
    """What a reader must know of the cells: which code computed them, which failed and why, which are not run."""
    codes = Counter(outcome.code for outcome in outcomes.values() if outcome.code)
    away = Counter((c.model, o.error) for c, o in outcomes.items() if o.away)
    failed: dict[str, Counter[str]] = {}
    for cell, outcome in outcomes.items():
        if outcome.error not in ("", NOT_RUN) and not outcome.away:
            failed.setdefault(outcome.error, Counter())[cell.method] += 1
    idle = Counter(cell.method for cell, outcome in outcomes.items() if outcome.error == NOT_RUN)
    lines = [f"{count} of {len(outcomes)} cells computed by {code}" for code, count in sorted(codes.items())]
    lines += [
        f"{model} is not at hand, its cells ({count}) are empty: {error}" for (model, error), count in away.items()
    ]
    lines += [f"{', '.join(methods)}: {methods.total()} failed: {error}" for error, methods in failed.items()]
    if idle:
        each = ", ".join(f"{method} {count}" for method, count in idle.items())
        lines.append(f"{idle.total()} of {len(outcomes)} cells are not run yet: {each}")
    return "\n".join(f"- {line}" for line in lines)
