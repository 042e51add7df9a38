"""A published table: our number beside the printed one, with what may be said of the difference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from experiments.console.grid import escape, grid, latex, sheet
from experiments.console.text import plus_minus
from experiments.reproduction import guard
from experiments.reproduction.cells import DENSE, NOT_RUN, Cell, Outcome, account, entries, expand, filled, published
from experiments.reproduction.verdict import BETTER, NOISE, NOT_COMPARABLE, NOT_JUDGED, WORSE, rounding, verdict
from experiments.runs.protocol import flat, rank
from experiments.summary.interval import interval

HEADER = ["value", "budget", "method", "ours", "published", "difference", "%", "verdict", "source"]
SAYS = (
    "Ours is the mean over the seeds and half of its 95 % interval (t distribution). The published number is one draw:"
    " it is within noise where it lies in the 95 % prediction interval of one more draw of ours, widened by its"
    " rounding and its published spread; that of a dense model where it anchors the protocol."
)
STAND_IN = "a stand-in: none of this table's models, so the published column does not apply"
FAILED = "failed"
Found = Mapping[tuple[str, str, str], Mapping[Cell, Outcome]]  # model, method, budget -> the cells of its seeds


@dataclass(frozen=True)
class Row:
    """A value of a method at a budget on a model: what we found, seed by seed, what is printed, and the verdict.

    `ours` is in the unit of print: accuracies (`accuracy`) in percent. `error` tells why there is nothing.
    """

    model: str
    value: str
    budget: str
    method: str
    accuracy: bool
    ours: tuple[float, ...]
    seeds: int
    error: str
    printed: str
    spread: str
    verdict: str
    reasons: tuple[str, ...]


def cells(table: Mapping[str, Any]) -> list[Cell]:
    """All cells of the table, a model that stands in among them."""
    return expand(table, lambda *place: {})


def rows(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> list[Row]:
    """Every place that has a run or a published number, by model, value, budget and method."""
    found: dict[tuple[str, str, str], dict[Cell, Outcome]] = {}
    for cell, outcome in outcomes.items():
        found.setdefault((cell.model, cell.method, cell.budget), {})[cell] = outcome
    printed = {place[:4]: place[4] for place in published(table)}
    listed = []
    for model, entry in entries(table).items():
        for value in values(table, model, printed, outcomes):
            for budget in table["budgets"]:
                for method in [*table["methods"], *(table.get("absent") or [])]:
                    number = {} if entry.get("stand_in") else printed.get((value, budget, method, model), {})
                    if number or (model, method, budget) in found:
                        listed.append(_row(table, found, (model, value, budget, method), number))
    return listed


def values(table: Mapping[str, Any], model: str, printed: Mapping[Any, Any], outcomes: Any) -> list[str]:
    """The values to show of a model: those printed of it, all where nothing is, a stand-in's own metrics."""
    if entries(table)[model].get("stand_in"):
        keys = {key for cell, outcome in outcomes.items() if cell.model == model for key in outcome.metrics}
        return sorted((key for key in keys if not key.startswith("acc_norm/")), key=rank) or ["-"]
    shown = [value for value in table["values"] if any(key[0] == value and key[3] == model for key in printed)]
    return shown or ([] if printed else list(table["values"]))


def _row(table: Mapping[str, Any], found: Found, place: tuple[str, str, str, str], number: Mapping[str, str]) -> Row:
    model, value, budget, method = place
    outcomes = found.get((model, method, budget), {})
    measure = table["values"].get(value) or {"key": value}
    keys = {cell: guard.measured(outcome, measure) for cell, outcome in outcomes.items()}
    accuracy = str(measure.get("key")).startswith("acc")
    ours = tuple((100 if accuracy else 1) * outcomes[cell].metrics[key] for cell, key in keys.items() if key)
    states = [state(outcome) for outcome in outcomes.values()]
    error = next((said for said in states if said), "" if ours else NOT_RUN)
    why: dict[str, None] = {}
    if number:
        why = dict.fromkeys(r for outcome in outcomes.values() for r in guard.reasons(table, model, value, outcome))
    judged = _judge(table, ours, number, bool(why), [o for o in outcomes.values() if o.metrics], not accuracy, budget)
    printed, spread = number.get("value", ""), number.get("spread", "")
    return Row(model, value, budget, method, accuracy, ours, len(outcomes), error, printed, spread, judged, tuple(why))


def _judge(
    table: Mapping[str, Any],
    ours: Sequence[float],
    number: Mapping[str, str],
    barred: bool,
    outcomes: Sequence[Outcome],
    lower: bool,
    budget: str,
) -> str:
    """The verdict on a row; empty where there is nothing of ours, or nothing published."""
    if not ours or not number:
        return ""
    if barred:
        return NOT_COMPARABLE
    printed = float(number["value"])
    slack = rounding(number["value"]) + float(number.get("spread", 0))
    if budget == DENSE and lower:
        slack = max(slack, table.get("anchor", guard.ANCHOR) * printed)
    return verdict(ours, printed, slack, any(map(drawn, outcomes)), lower)


def state(outcome: Outcome) -> str:
    """Why there is nothing of a run, or that it is not run; empty if there is."""
    if outcome.error in ("", NOT_RUN):
        return outcome.error
    return f"{'not at hand' if outcome.away else FAILED}: {outcome.error}"


def drawn(outcome: Outcome) -> bool:
    """Whether a seed changes what the run found: it was calibrated on windows that are drawn, or its method draws."""
    if outcome.record is None:
        return True
    manifest = outcome.record.manifest
    method = flat({part: manifest["config"][part] for part in ("metric", "allocator", "update")})
    draws = any(name.endswith(".seed") for name in method) or bool(manifest["config"].get("given"))
    return manifest["sparsity"] > 0 and (draws or manifest.get("data") is not None)


def render(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> str:
    """The table as Markdown: verdicts counted, a part for each model, why rows are not comparable, and what was run."""
    listed = rows(table, outcomes)
    footnotes = list(dict.fromkeys(row.reasons for row in listed if row.reasons))
    said = " ".join(filled(table["notes"] or [], table))
    parts = [f"# {table['title']}", f"Published: {table['source']} ({table['trust']}). {said}".strip(), SAYS]
    parts += [f"Nothing is compared, for the source does not state {table['unstated']}."] * bool(table.get("unstated"))
    parts += [summary(listed)] if listed else []
    for model, entry in entries(table).items():
        body = [shown(table, row, footnotes) for row in listed if row.model == model]
        title = f"## {model}" + f", {STAND_IN}" * bool(entry.get("stand_in"))
        parts += [title, grid(HEADER, body, "lllr")] if body else []
    if footnotes:
        parts.append("\n".join(["Not comparable:\n", *(f"{n}. {'; '.join(f)}" for n, f in enumerate(footnotes, 1))]))
    return "\n\n".join(part for part in [*parts, remarks(table, outcomes), account(outcomes)] if part) + "\n"


def shown(table: Mapping[str, Any], row: Row, footnotes: Sequence[tuple[str, ...]]) -> list[str]:
    """The cells of a row, as people read them."""
    mean, half = interval(row.ours) if row.ours else (None, None)
    if mean is None:
        ours = FAILED if row.error.startswith(FAILED) else ""
    else:
        ours = _shown(row, mean, half if half is not None and isfinite(half) else None)
    few = f" ({len(row.ours)} of {row.seeds})" if row.ours and len(row.ours) < row.seeds else ""
    change, percent = apart(row)
    mark = f" ({footnotes.index(row.reasons) + 1})" if row.reasons else ""
    return [
        row.value,
        row.budget,
        row.method,
        ours + few,
        row.printed + (f" ± {row.spread}" if row.spread else ""),
        "" if change is None else _shown(row, change, sign="+"),
        "" if percent is None else f"{percent:+.2f}",
        row.verdict + mark,
        f"{table['paper']}, {table['trust']}" if row.printed else "",
    ]


def apart(row: Row) -> tuple[float | None, float | None]:
    """Ours minus the published number, and that in percent of it; nothing for one that is not comparable."""
    if not row.ours or not row.printed or row.reasons:
        return None, None
    printed = float(row.printed)
    change = interval(row.ours)[0] - printed
    return change, 100 * change / printed


def _shown(row: Row, number: float, half: float | None = None, sign: str = "") -> str:
    """A number in the unit of print, as every command shows it."""
    key, unit = ("acc", 100) if row.accuracy else ("ppl", 1)
    return plus_minus(key, number / unit, None if half is None else half / unit, sign)


def summary(listed: Sequence[Row]) -> str:
    """How many verdicts of each kind there are."""
    words = (NOISE, BETTER, WORSE, NOT_COMPARABLE, NOT_JUDGED)
    verdicts = Counter(row.verdict or "without one of ours" for row in listed if row.printed)
    each = [f"{verdicts[word]} {word}" for word in (*words, "without one of ours") if verdicts[word]]
    return f"{verdicts.total()} published numbers: {', '.join(each)}." if each else "No published number is shown."


def remarks(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> str:
    """What is published only, and which runs read a local file for the hub's."""
    absent = table.get("absent") or []
    lines = [f"published only, not a method of this project: {', '.join(absent)}"] * bool(absent)
    lines += [f"{m} has no cells: {e['reason']}" for m, e in entries(table).items() if e["overrides"] is None]
    read = {n: None for o in outcomes.values() if o.record for n in guard.local(o.record.manifest["config"])}
    lines += [f"read from local files, taken for the published text: {', '.join(read)}"] * bool(read)
    return "\n".join(f"- {line}" for line in lines)


def files(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The same as CSV, every number with its digits, and as a LaTeX table (booktabs)."""
    listed = rows(table, outcomes)
    footnotes = list(dict.fromkeys(row.reasons for row in listed if row.reasons))
    body = [[row.model, *shown(table, row, footnotes)] for row in listed]
    tabular = latex(
        [escape(title) for title in ["model", *HEADER]], [[[escape(cell) for cell in line] for line in body]], "llllr"
    )
    return {".csv": spreadsheet(table, listed), ".tex": f"% {table['title']}: {table['source']}\n{tabular}\n"}


def spreadsheet(table: Mapping[str, Any], listed: Sequence[Row]) -> str:
    """The rows as CSV."""
    lines = []
    for row in listed:
        mean, half = interval(row.ours) if row.ours else (None, None)
        change, percent = apart(row)
        stand_in = bool(entries(table)[row.model].get("stand_in"))
        line = {"model": row.model, "stand_in": stand_in, "value": row.value, "budget": row.budget}
        line |= {"method": row.method, "seeds": len(row.ours), "ours": mean}
        line |= {"half_interval": half if half is None or isfinite(half) else None, "published": row.printed}
        line |= {"spread": row.spread, "difference": change, "percent": percent, "verdict": row.verdict}
        line |= {"reasons": "; ".join(row.reasons), "error": row.error}
        lines.append(line | {"trust": table["trust"], "source": table["source"]})
    return sheet(lines)
