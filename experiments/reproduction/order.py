"""The table of order: which method is better than which, over several draws of the calibration windows."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.console.grid import grid
from experiments.console.text import digits, plus_minus
from experiments.files.disk import replacing
from experiments.reproduction.cells import Cell, Outcome, account, expand, filled
from experiments.summary.interval import QUANTILES, interval

HOLDS, FAILS, NOISE, UNKNOWN = "holds", "does not hold", "within noise", "not known"
Found = Mapping[tuple[str, str, str], Mapping[int, float]]  # model, method, budget -> seed -> perplexity


def cells(table: dict[str, Any]) -> list[Cell]:
    """All cells of the table; `text` in their lines is the part of the model's text that is calibrated on.

    That part is written below the table's outputs, for it is the first `share` of a text whose rest is evaluated.
    """
    if not 2 <= len(table["seeds"]) <= len(QUANTILES) + 1:
        raise ValueError(f"seeds: expected 2 to {len(QUANTILES) + 1} of them, found {len(table['seeds'])}")
    texts = {model: {"text": str(calibration_text(table, file))} for model, file in table["texts"].items()}
    return expand(table, lambda model, method, budget: texts[model])


def calibration_text(table: dict[str, Any], file: str) -> Path:
    """The first `share` of the characters of a text, as a file of its own."""
    place = Path(table["outputs"], "text", f"{Path(file).stem}-{table['share']}.txt")
    text = Path(table["shared"], "data", "corpora", file).read_text(encoding="utf-8")
    with replacing(place) as temporary:
        temporary.write_text(text[: int(len(text) * table["share"])], encoding="utf-8")
    return place


def compared(better: Mapping[int, float], worse: Mapping[int, float]) -> tuple[float, float] | None:
    """Mean and half width of the difference, in percent of `worse`, paired by seed; None without two common seeds."""
    pairs = [100 * (better[seed] / worse[seed] - 1) for seed in better if seed in worse]
    return interval(pairs) if len(pairs) > 1 else None


def verdict(difference: tuple[float, float] | None) -> str:
    """Whether a claim `better < worse` holds: the interval of the difference is below zero, above it, or around it."""
    if difference is None:
        return UNKNOWN
    mean, half = difference
    return HOLDS if mean + half < 0 else FAILS if mean - half > 0 else NOISE


def render(table: dict[str, Any], outcomes: Mapping[Cell, Outcome]) -> str:
    """The table as Markdown: perplexities of every model, a sentence for each claimed order, and its evidence."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for cell, outcome in outcomes.items():
        values = found.setdefault((cell.model, cell.method, cell.budget), {})
        values |= {} if outcome.perplexity is None else {cell.seed: outcome.perplexity}
    parts = [f"# {table['title']}", " ".join(filled(table["notes"], table))]
    for model in table["models"]:
        dense = next((o.dense for cell, o in outcomes.items() if cell.model == model and o.dense), None)
        body = [["dense", *[digits("ppl", dense)] * len(table["usual"])]]
        for method in table["methods"]:
            body.append([method, *(_shown(table, found, model, method, budget) for budget in table["usual"])])
        parts += [f"## {model}", grid(["method", *table["usual"]], body, "lr")]
    judged = [(claim, _judged(table, found, claim)) for claim in table["claims"]]
    sentences = "\n".join(f"- {_sentence(claim, rows)}" for claim, rows in judged)
    body = [[pair, model, budget, *shown] for _, rows in judged for pair, model, budget, *shown in rows]
    evidence = grid(["claim", "model", "budget", "difference %", "verdict"], body, "lllr")
    return "\n\n".join([*parts, "## Claimed orders", sentences, evidence, account(outcomes)]) + "\n"


def _shown(table: dict[str, Any], found: Found, model: str, method: str, budget: str) -> str:
    """Mean and interval of a cell; a dash where the method refuses the budget, nothing where no seed is done."""
    values = found.get((model, method, budget))
    if not values:
        return "-" if values is None else ""
    mean, half = interval(list(values.values()))
    few = f" ({len(values)} of {len(table['seeds'])})" if len(values) < len(table["seeds"]) else ""
    return plus_minus("ppl", mean, half if len(values) > 1 else None) + few


def _judged(table: dict[str, Any], found: Found, claim: dict[str, Any]) -> list[list[str]]:
    """A row for each pair of neighbours in the claimed order, model and budget that both methods have."""
    rows = []
    for better, worse in pairwise(claim["order"]):
        for model in table["models"]:
            for budget in claim.get("budgets") or table["usual"]:
                values = [found.get((model, method, budget)) for method in (better, worse)]
                if values[0] is not None and values[1] is not None:
                    change = compared(values[0], values[1])
                    shown = "" if change is None else f"{change[0]:+.2f} ± {change[1]:.2f}"
                    rows.append([f"{better} < {worse}", model, budget, shown, verdict(change)])
    return rows


def _sentence(claim: dict[str, Any], rows: list[list[str]]) -> str:
    verdicts = [row[-1] for row in rows]
    counts = [f"{word} in {verdicts.count(word)}" for word in (HOLDS, NOISE, FAILS, UNKNOWN) if word in verdicts]
    return f"{claim['says']} ({claim['source']}): {', '.join(counts)} of {len(rows)} comparisons."
