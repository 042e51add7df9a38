"""The table of parity: our perplexity beside that of the papers' released code on the same models and tokens."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.composing.overrides import name_of
from experiments.console.grid import grid
from experiments.files.disk import read_json
from experiments.reproduction.cells import (
    DENSE,
    NOT_RUN,
    Cell,
    Outcome,
    Place,
    account,
    calibrated,
    expand,
    interpolated,
)
from experiments.reproduction.verdict import harmless

NM = {"unstructured": ""}  # what a pattern is called in `nm`
HEADER = ["method", "budget", "ours", "released", "difference %", "our sparsity", "released sparsity", "tolerated"]


def cells(table: dict[str, Any]) -> list[Cell]:
    """All cells of the table; `realised` in their lines is the share that the released run removed."""
    released = _released(table)
    return expand(table, lambda *place: {"realised": released.get(place, {}).get("sparsity")})


def files(table: dict[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The table as Markdown: a part for each model, our own comparisons, and what a reader must know.

    Where other settings than the released run's were typed, none of its numbers stands beside ours.
    """
    other = [line for line in table.get("typed", ()) if not harmless(name_of(line))]
    released = {} if other else _released(table)
    run = {cell: outcome for cell, outcome in outcomes.items() if outcome.error != NOT_RUN}
    rows = {cell: _row(table, cell, outcome, released) for cell, outcome in run.items()}
    parts = [f"# {table['title']}", " ".join(interpolated(table["notes"], table)), summary(rows)]
    parts += [f"Not the released run's settings, so nothing is compared: {', '.join(other)}."] if other else []
    for model in table["models"]:
        if body := [row for cell, row in rows.items() if cell.model == model]:
            ours = next((outcome.dense for cell, outcome in run.items() if cell.model == model and outcome.dense), None)
            theirs = released.get((model, DENSE, DENSE), {}).get("ppl")
            dense = f"Dense: ours {_digits(ours) or NOT_RUN}, released {_digits(theirs) or 'not compared'}."
            parts += [f"## {model}", dense, grid(HEADER, body, "llr")]
    for pair in table["comparisons"]:
        if pair["method"] in table["methods"]:
            parts.append(_compared(table, outcomes, **pair))
    return {".md": "\n\n".join([*parts, account(outcomes)]) + "\n"}


def difference(ours: float | None, theirs: float | None) -> float | None:
    """How much higher ours is, in percent of theirs; None where one of them is missing."""
    return None if ours is None or theirs is None else 100 * (ours / theirs - 1)


def verdict(percent: float, tolerance: float) -> str:
    """Whether a difference is within the tolerance, both in percent: yes, no (higher), or lower (than -tolerance)."""
    return f"{'lower' if percent < -tolerance else 'yes' if percent <= tolerance else 'no'} ({tolerance:g} %)"


def summary(rows: Mapping[Cell, list[str]]) -> str:
    """How many verdicts of each kind there are, and which cells are worse than tolerated."""
    words = [row[-1].partition(" ")[0] for row in rows.values() if row[-1]]
    higher = [f"{c.model} {c.method} {c.budget} ({row[4]} %)" for c, row in rows.items() if row[-1].startswith("no")]
    text = f"{len(words)} cells beside released code at the same sparsity: {words.count('yes')} within the tolerance, "
    text += f"{words.count('lower')} lower, {len(higher)} higher"
    return f"{text}: {', '.join(higher)}." if higher else f"{text}."


def _reference(table: dict[str, Any]) -> dict[str, Any]:
    """By model: the `dense` perplexity, and `rows` with method, target, nm (n:m or empty), ppl and sparsity.

    The file of a single model, the table's, has other names for them.
    """
    content = read_json(Path(table["shared"], table["reference"]))
    if "rows" not in content:
        return content
    names = {"method": "method", "target": "sparsity", "ppl": "released", "sparsity": "released_sparsity"}
    rows = [{own: row[name] for own, name in names.items()} | {"nm": NM[row["pattern"]]} for row in content["rows"]]
    return {model: {"dense": content["dense_first4"], "rows": rows} for model in table["models"]}


def _released(table: dict[str, Any]) -> dict[Place, dict[str, Any]]:
    """The released code's rows by their place in our table, and the dense model's perplexity at its own."""
    rows = {}
    for model, entry in _reference(table).items():
        rows[model, DENSE, DENSE] = {"ppl": entry["dense"]}
        for row in entry["rows"]:
            for budget, own in table["budgets"].items():
                if (row["target"], row["nm"]) == (own["released"]["target"], own["released"]["nm"]):
                    rows[model, row["method"], budget] = row
    return rows


def _row(table: dict[str, Any], cell: Cell, outcome: Outcome, released: Mapping[Place, dict[str, Any]]) -> list[str]:
    row = released.get((cell.model, cell.method, cell.budget), {})
    theirs, removed, tolerance = row.get("ppl"), row.get("sparsity"), table["methods"][cell.method].get("tolerance")
    percent, judged = difference(outcome.perplexity, theirs), ""
    alike = removed is not None and outcome.sparsity is not None and abs(outcome.sparsity - removed) <= table["alike"]
    if alike and percent is not None and tolerance is not None:
        judged = verdict(percent, tolerance)
    ours = ["failed" if outcome.error else _digits(outcome.perplexity), _digits(theirs), _change(percent)]
    return [cell.method, cell.budget, *ours, _digits(outcome.sparsity, 6), _digits(removed, 6), judged]


def _compared(table: dict[str, Any], outcomes: Mapping[Cell, Outcome], method: str, beside: str) -> str:
    """Two methods of ours at equal budgets, where they are calibrated alike: each model's difference, and the mean."""
    ours = {(cell.model, cell.method, cell.budget): outcome.perplexity for cell, outcome in outcomes.items()}
    windows = {(c.model, c.method, c.budget): name for c, name in calibrated(outcomes).items()}
    body = []
    for budget in table["methods"][method].get("budgets") or table["usual"]:
        pairs = [((m, method, budget), (m, beside, budget)) for m in table["models"]]
        alike = [len({windows.get(place) for place in pair} - {None}) < 2 for pair in pairs]
        each = [difference(*map(ours.get, pair)) if same else None for pair, same in zip(pairs, alike, strict=True)]
        known = [percent for percent in each if percent is not None]
        mean = fmean(known) if len(known) == len(each) else None
        body.append([budget, *map(_change, [*each, mean]), "" if mean is None else "yes" if mean <= 0 else "no"])
    header = ["budget", *(f"{model} %" for model in table["models"]), "mean %", f"no worse than {beside}"]
    return f"## {method} beside our {beside}\n\n{grid(header, body, 'lr')}"


def _digits(value: float | None, places: int = 4) -> str:
    """With more digits than elsewhere: here they are what is compared."""
    return "" if value is None else f"{value:.{places}f}"


def _change(percent: float | None) -> str:
    return "" if percent is None else f"{round(percent, 2) + 0.0:+.2f}"  # no minus zero
