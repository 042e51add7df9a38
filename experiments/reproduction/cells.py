"""The cells of a table: each is a run at a place of it, with the settings that make it that and what it measured."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from experiments.composing.overrides import FOLDERS, at_home, name_of
from experiments.runs.calibration import calibrations
from experiments.runs.record import Record

ROOT = Path(__file__).parents[2]
NOT_RUN = "not run"
DENSE = "dense"  # the budget of the dense model, which no seed changes
Place = tuple[str, str, str]  # model, method, budget


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
    """What a run measured: perplexity, the dense model's, share removed; or the reason why there is nothing.

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


def plain(file: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A table's YAML as it stands, with these root settings in place of its own, as lines name=value."""
    pairs = [word.partition("=") for word in settings]
    paths = {name: at_home(value) for name, _, value in pairs if name in FOLDERS}
    others = [word for word in settings if name_of(word) not in FOLDERS]
    whole = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(others), paths)
    table: Any = OmegaConf.to_container(whole, resolve=False)
    return table


def load(file: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A table's YAML with its root settings as the command line has them: `outputs=FOLDER`, `sequences=32`.

    `shared` is seen from the repository's root. Interpolations stay: most are of one cell. Published numbers are text,
    for their digits count. FileNotFoundError where something that the table `needs` is not there, ValueError for a
    published number that has no place in it.
    """
    table = plain(file, settings) | {"name": file.stem}
    if "shared" in table:
        table["shared"] = str((ROOT / table["shared"]).resolve())
    for place in [Path(table["shared"], name) for name in table.get("needs", [])]:
        if not place.exists():
            raise FileNotFoundError(f"{place}: not there; this table needs the real models and data, set shared=FOLDER")
    if "published" in table:
        table["published"] = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)["published"]
        refuse_strays(table)
    return table


def refuse_strays(table: Mapping[str, Any]) -> None:
    """ValueError for a published number whose value, budget, method or model the table does not have."""
    known = [table["values"], table["budgets"], [*table["methods"], *table.get("absent", [])], table["models"]]
    for *place, entry in published(table):
        where = f"{table['name']}: published {' '.join(place)}"
        for name, there in zip(place, known, strict=True):
            if name not in there:
                raise ValueError(f"{where}: no {name} in the table")
        try:
            rounding(entry["value"])
        except (ArithmeticError, ValueError):
            raise ValueError(f"{where}: no number") from None


def published(table: Mapping[str, Any]) -> list[tuple[str, str, str, str, dict[str, str]]]:
    """Every published number as (value, budget, method, model, {"value": printed, "spread": printed}), as listed."""
    return [
        (value, budget, method, model, number if isinstance(number, dict) else {"value": number})
        for value, budgets in table["published"].items()
        for budget, methods in budgets.items()
        for method, models in methods.items()
        for model, number in models.items()
    ]


def rounding(printed: str) -> float:
    """Half a unit of the last digit of a printed number: 0.005 of 5.47, and of 5.40 too; ValueError if it is none."""
    exponent = Decimal(printed).as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"expected a number, found {printed}")
    return float(Decimal(5).scaleb(exponent - 1))


def interpolated(lines: Sequence[str], table: Mapping[str, Any], **values: Any) -> list[str]:
    """Lines of a table with its root settings and these values in place of `${name}`."""
    settings = {name: value for name, value in table.items() if not isinstance(value, dict | list)}
    whole: Any = OmegaConf.to_container(OmegaConf.create({**settings, **values, "lines": list(lines)}), resolve=True)
    return whole["lines"]


def expand(table: Mapping[str, Any], known: Callable[[str, str, str], dict[str, Any]] = lambda *_: {}) -> list[Cell]:
    """All cells, by model and seed, then by method and budget. `known` tells what else the lines of a place may name.

    A model without overrides has no cells, and the dense model one seed. A method or budget may have fewer `seeds`, and
    evaluations that are made `once` are made with the first seed alone; a method may have lines of any `stand_in`.
    """
    cells = []
    models = {model: entry for model, entry in table["models"].items() if entry["overrides"] is not None}
    for model, seed, (method, entry) in product(models, table["seeds"], table["methods"].items()):
        for budget in entry.get("budgets") or table["usual"]:
            seeds = table["seeds"][:1] if budget == DENSE else table["seeds"]
            limits = [part["seeds"] for part in (entry, table["budgets"].get(budget, {})) if "seeds" in part]
            if budget not in table["budgets"] or not all(seed in each for each in (seeds, *limits)):
                continue
            lines = [*models[model].get("base", table["overrides"]), *models[model]["overrides"]]
            lines += [*table["budgets"][budget]["overrides"], *entry["overrides"]]
            lines += entry.get("models", {}).get(model, [])
            lines += entry.get("stand_in", []) if models[model].get("stand_in") else []
            if table.get("evaluations") and not models[model].get("stand_in"):
                lines = measured_by(lines, table["evaluations"])
            if seed != table["seeds"][0]:
                lines = without(lines, table.get("once", ()))
            values = {"model": model, "seed": seed, **known(model, method, budget)}
            cells.append(Cell(model, method, budget, seed, tuple(interpolated(lines, table, **values))))
    return cells


def without(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """Lines of a cell that does not make these evaluations, without their settings."""
    left = []
    for line in lines:
        group, *rest = name_of(line).split(".")
        if group == "eval" and not rest:
            every = line.partition("=")[2].strip("[]").split(",")
            left.append(f"eval=[{','.join(name for name in every if name not in names)}]")
        elif group != "eval" or rest[0] not in names:
            left.append(line)
    return left


def measured_by(lines: Sequence[str], names: Mapping[str, set[str]]) -> list[str]:
    """Lines of a cell that makes these evaluations alone, without the settings of others, and those given with each."""
    parts = [(line, name_of(line).split(".")) for line in lines]
    fits = lambda name="", setting="", *_: name in names and setting not in names[name]
    fitting = [line for line, (group, *rest) in parts if group != "eval" or fits(*rest)]
    return [*fitting, f"eval=[{','.join(names)}]"]


def by_place(outcomes: Mapping[Cell, Outcome]) -> dict[Place, dict[int, Outcome]]:
    """The outcomes of each model, method and budget, by seed."""
    places: dict[Place, dict[int, Outcome]] = {}
    for cell, outcome in outcomes.items():
        places.setdefault((cell.model, cell.method, cell.budget), {})[cell.seed] = outcome
    return places


def calibrated(outcomes: Mapping[Cell, Outcome]) -> dict[Cell, str | None]:
    """What the run of each cell was calibrated with, as the report names it; None where it read nothing or is not."""
    windows: dict[Cell, str | None] = dict.fromkeys(outcomes)
    for model in dict.fromkeys(cell.model for cell in outcomes):
        records = {cell: o.record for cell, o in outcomes.items() if cell.model == model and o.record}
        windows |= dict(zip(records, calibrations(list(records.values())), strict=True))
    return windows


def unlike(windows: Mapping[Cell, str | None]) -> list[str]:
    """A line for each model whose cells were not all calibrated with the same windows, seeds aside."""
    methods: dict[str, dict[str, dict[str, None]]] = {}
    for cell, name in windows.items():
        if name:
            methods.setdefault(cell.model, {}).setdefault(name, {})[cell.method] = None
    return [
        f"{model}: calibrated otherwise, and not judged against each other: "
        + "; ".join(f"{name} ({', '.join(own)})" for name, own in names.items())
        for model, names in methods.items()
        if len(names) > 1
    ]


def account(outcomes: Mapping[Cell, Outcome]) -> str:
    """What a reader must know of the cells: which code computed them, which failed and why, which are not run."""
    every = len(outcomes)
    codes = Counter(outcome.code for outcome in outcomes.values() if outcome.code)
    away = Counter((cell.model, outcome.error) for cell, outcome in outcomes.items() if outcome.away)
    idle = Counter(cell.method for cell, outcome in outcomes.items() if outcome.error == NOT_RUN)
    failed: dict[str, Counter[str]] = {}
    for cell, outcome in outcomes.items():
        if outcome.error not in ("", NOT_RUN) and not outcome.away:
            failed.setdefault(outcome.error, Counter())[cell.method] += 1
    lines = unlike(calibrated(outcomes))
    lines += [f"{count} of {every} cells computed by {code}" for code, count in sorted(codes.items())]
    for (model, reason), count in away.items():
        lines.append(f"{model} is not at hand, its cells ({count}) are empty: {reason}")
    lines += [f"{', '.join(methods)}: {methods.total()} failed: {error}" for error, methods in failed.items()]
    if idle:
        each = ", ".join(f"{method} {count}" for method, count in idle.items())
        lines.append(f"{idle.total()} of {every} cells are not run yet: {each}")
    return "\n".join(f"- {line}" for line in lines)
