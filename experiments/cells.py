"""The cells of the tables that this project fills itself: each is a run, and what is missing is computed."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra import initialize
from omegaconf import OmegaConf
from tqdm import tqdm

from experiments import archive, command, identity, job, parts
from experiments.hints import nearest, one_line
from experiments.record import Run

ROOT = Path(__file__).parents[1]
NOT_RUN = "not run"


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
    """What a run found: perplexity, the dense model's, share removed; or the reason why there is nothing."""

    perplexity: float | None = None
    dense: float | None = None
    sparsity: float | None = None
    code: str = ""  # what computed it
    error: str = ""


def load(file: Path, settings: Sequence[str]) -> dict[str, Any]:
    """A table's YAML with its root settings as the command line has them: `outputs=FOLDER`, `sequences=32`.

    `shared` is seen from the repository's root. Interpolations stay: most are of one cell. ValueError for a setting
    that does not exist, FileNotFoundError where something that the table `needs` is not there.
    """
    table = OmegaConf.load(file)
    known = [name for name in table if not OmegaConf.is_config(table._get_node(name))]
    for line in settings:
        name, equals, _ = line.partition("=")
        if name not in known or not equals:
            said = f"{line}: no such setting{nearest(name, known)}; there are {', '.join(known)}"
            raise ValueError(f"{said}, each as name=value")
    table = OmegaConf.merge(table, OmegaConf.from_dotlist(list(settings)))
    found: Any = OmegaConf.to_container(table, resolve=False)
    found["shared"] = str((ROOT / found["shared"]).resolve())
    found["device"] = parts.device(found["device"])
    for place in [Path(found["shared"], name) for name in found["needs"]]:
        if not place.exists():
            raise FileNotFoundError(f"{place}: not there; this table needs the real models and text, set shared=FOLDER")
    return found


def filled(lines: Sequence[str], table: Mapping[str, Any], **values: Any) -> list[str]:
    """Lines of a table with its root settings and these values in place of `${name}`."""
    settings = {name: value for name, value in table.items() if not isinstance(value, dict | list)}
    whole: Any = OmegaConf.to_container(OmegaConf.create({**settings, **values, "lines": list(lines)}), resolve=True)
    return whole["lines"]


def expand(table: Mapping[str, Any], known: Callable[[str, str, str], dict[str, Any]]) -> list[Cell]:
    """All cells, by model and seed, then by method and budget. `known` tells what else the lines of a cell may name."""
    cells = []
    for model, seed, (method, entry) in product(table["models"], table["seeds"], table["methods"].items()):
        for budget in entry.get("budgets") or table["usual"]:
            lines = [*table["overrides"], *table["budgets"][budget]["overrides"], *entry["overrides"]]
            values = {"model": model, "seed": seed, **known(model, method, budget)}
            cells.append(Cell(model, method, budget, seed, tuple(filled(lines, table, **values))))
    return cells


def chosen(cells: Sequence[Cell], models: Sequence[str], methods: Sequence[str], shard: str) -> list[Cell]:
    """The cells of these models and methods (of all where none is named) that belong to shard "k/n".

    A shard is every n-th pair of model and seed: what methods share, and the runs whose masks others take over, are
    then found in one process, and two processes never write into one folder. ValueError for what does not exist.
    """
    for kind, asked, there in (
        ("model", models, dict.fromkeys(cell.model for cell in cells)),
        ("method", methods, dict.fromkeys(cell.method for cell in cells)),
    ):
        for name in asked:
            if name not in there:
                raise ValueError(f"no {kind} {name}{nearest(name, there)}; there are {', '.join(there)}")
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard: expected k/n with 1 <= k <= n, such as 1/2, found {shard}")
    pairs = list(dict.fromkeys((cell.model, cell.seed) for cell in cells))[int(number) - 1 :: int(count)]
    wanted = [cell for cell in cells if cell.model in (models or [cell.model])]
    return [c for c in wanted if c.method in (methods or [c.method]) and (c.model, c.seed) in pairs]


def fill(cells: Sequence[Cell], compute: Sequence[Cell]) -> dict[Cell, Outcome]:
    """What every cell's run found; only those of `compute` are run if they are not done. A failure is one cell's."""
    outcomes, wanted = {}, set(compute)
    bar = tqdm(cells, "cells", unit="cell", disable=None)
    for cell in bar:
        bar.set_postfix_str(f"{cell.model} {cell.method} {cell.budget} seed {cell.seed}")
        try:
            outcomes[cell] = _find(cell, cell in wanted)
        except Exception as error:
            outcomes[cell] = Outcome(error=one_line(error))
    return outcomes


def _find(cell: Cell, compute: bool) -> Outcome:
    with initialize(version_base="1.3", config_path="../conf"):
        asked = command.compose_job(list(cell.overrides))
    line = shlex.join(["python", "-m", "experiments.run", *cell.overrides])
    run = Run.open(asked.config, replace(asked.names, command=line))
    step = run.step("perplexity", identity.by_content(asked.config["eval"]["perplexity"]))
    if compute and not (run.done and step.exists()):
        job.run(asked.config, replace(asked.names, command=line))
    if not (run.folder / "manifest.json").exists():
        return Outcome(error=NOT_RUN)
    return _outcome(archive.load(run.folder), step.stem)


def _outcome(record: archive.Record, step: str) -> Outcome:
    key = next((key for key, at in record.results.get("step", {}).items() if at == step and key[:4] == "ppl/"), None)
    if record.status != "done" or key is None:
        return Outcome(error=record.error or (NOT_RUN if record.status == "done" else record.status))
    results = record.results
    return Outcome(results["metrics"][key], results["dense"].get(key), record.sparsity, record.code)


def account(outcomes: Mapping[Cell, Outcome]) -> str:
    """What a reader must know of the cells: which code computed them, which failed and why, which are not run."""
    codes = Counter(outcome.code for outcome in outcomes.values() if outcome.code)
    failed = Counter((c.method, o.error) for c, o in outcomes.items() if o.error not in ("", NOT_RUN))
    idle = Counter(cell.method for cell, outcome in outcomes.items() if outcome.error == NOT_RUN)
    lines = [f"{count} of {len(outcomes)} cells computed by {code}" for code, count in sorted(codes.items())]
    lines += [f"{method}: {count} failed: {error}" for (method, error), count in failed.items()]
    if idle:
        each = ", ".join(f"{method} {count}" for method, count in idle.items())
        lines.append(f"{idle.total()} of {len(outcomes)} cells are not run yet: {each}")
    return "\n".join(f"- {line}" for line in lines)
