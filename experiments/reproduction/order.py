"""The table of order: which method is better than which, over several draws of the calibration windows."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.console.grid import grid
from experiments.console.text import digits, plus_minus
from experiments.files.disk import replacing
from experiments.reproduction.cells import Cell, Outcome, Place, account, by_place, expand, interpolated
from experiments.summary.seeds import interval

HOLDS, FAILS, NOISE, UNKNOWN = "holds", "does not hold", "within noise", "not known"
Perplexities = Mapping[Place, Mapping[int, float]]  # by seed


def cells(table: dict[str, Any]) -> list[Cell]:
    """All cells of the table; `text` in their lines is the part of the model's text that is calibrated on.

    That part is written below the table's outputs, for it is the first `share` of a text whose rest is evaluated.
    """
    texts = {model: {"text": str(calibration_text(table, table["texts"][model]))} for model in table["models"]}
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


def files(table: dict[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The table as Markdown: perplexities of every model, a sentence for each claimed order, and its evidence."""
    perplexities = {
        place: {seed: outcome.perplexity for seed, outcome in seeds.items() if outcome.perplexity is not None}
        for place, seeds in by_place(outcomes).items()
    }
    parts = [f"# {table['title']}", " ".join(interpolated(table["notes"], table))]
    for model in table["models"]:
        dense = next((o.dense for cell, o in outcomes.items() if cell.model == model and o.dense), None)
        body = [["dense", *(digits("ppl", dense) for _ in table["usual"])]]
        for method in table["methods"]:
            body.append([method, *(_shown(table, perplexities, model, method, budget) for budget in table["usual"])])
        parts += [f"## {model}", grid(["method", *table["usual"]], body, "lr")]
    judged = [(claim, rows) for claim in table["claims"] if (rows := _judged(table, perplexities, claim))]
    sentences = "\n".join(f"- {_sentence(claim, rows)}" for claim, rows in judged)
    body = [row for _, rows in judged for row in rows]
    evidence = grid(["claim", "model", "budget", "difference %", "verdict"], body, "lllr")
    return {".md": "\n\n".join([*parts, "## Claimed orders", sentences, evidence, account(outcomes)]) + "\n"}


def _shown(table: dict[str, Any], perplexities: Perplexities, model: str, method: str, budget: str) -> str:
    """Mean and interval of a cell; a dash where the method refuses the budget, nothing where no seed is done."""
    values = perplexities.get((model, method, budget))
    if not values:
        return "-" if values is None else ""
    mean, half = interval(list(values.values()))
    text = plus_minus("ppl", mean, half if len(values) > 1 else None)
    return f"{text} ({len(values)} of {len(table['seeds'])})" if len(values) < len(table["seeds"]) else text


def _judged(table: dict[str, Any], perplexities: Perplexities, claim: dict[str, Any]) -> list[list[str]]:
    """A row for each pair of neighbours in the claimed order, model and budget that both methods have."""
    rows = []
    for better, worse in pairwise(claim["order"]):
        for model in table["models"]:
            for budget in claim.get("budgets") or table["usual"]:
                one, other = (perplexities.get((model, method, budget)) for method in (better, worse))
                if one is not None and other is not None:
                    change = compared(one, other)
                    shown = "" if change is None else f"{change[0]:+.2f} ± {change[1]:.2f}"
                    rows.append([f"{better} < {worse}", model, budget, shown, verdict(change)])
    return rows


def _sentence(claim: dict[str, Any], rows: list[list[str]]) -> str:
    verdicts = [row[-1] for row in rows]
    counts = [f"{word} in {verdicts.count(word)}" for word in (HOLDS, NOISE, FAILS, UNKNOWN) if word in verdicts]
    return f"{claim['says']} ({claim['source']}): {', '.join(counts)} of {len(rows)} comparisons."
