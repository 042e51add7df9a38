"""A published table: our number beside the printed one, with what may be said of the difference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.composing.overrides import name_of
from experiments.console.families import family
from experiments.console.grid import escape, grid, latex, sheet
from experiments.console.text import plus_minus
from experiments.reproduction import verdict
from experiments.reproduction.cells import (
    DENSE,
    NOT_RUN,
    Cell,
    Outcome,
    account,
    by_place,
    expand,
    interpolated,
    published,
    rounding,
)
from experiments.runs.protocol import flat, rank
from experiments.summary.seeds import interval

HEADER = ["value", "budget", "method", "ours", "published", "difference", "%", "verdict", "source"]
SAYS = (
    "Ours is the mean over the seeds and half of its 95 % interval (t distribution). The published number is one draw:"
    " it is within noise where it lies in the 95 % prediction interval of one more draw of ours, widened by its"
    " rounding and its published spread; that of a dense model where it anchors the protocol."
)
STAND_IN = "a stand-in: none of this table's models, so the published column does not apply"
FAILED = "failed"
WITHOUT = "without one of ours"
cells = expand  # of a table, for whoever fills it


@dataclass(frozen=True)
class Row:
    """A value of a method at a budget on a model: ours, what is printed, and the verdict.

    ours, half_interval: mean over `seeds` of the `runs` and half of its 95 % interval, in the unit of print (an
    `accuracy` in percent); difference and percent only where it is comparable, reasons where it is not; error: why
    there is none. The fields that come first are the columns of the CSV.
    """

    model: str
    stand_in: bool
    value: str
    budget: str
    method: str
    seeds: int
    ours: float | None
    half_interval: float | None
    published: str
    spread: str
    difference: float | None
    percent: float | None
    verdict: str
    reasons: tuple[str, ...]
    error: str
    runs: int
    accuracy: bool

    def text(self, number: float, half: float | None = None, sign: str = "") -> str:
        """A number in the unit of print, as every command shows it."""
        key, unit = ("acc", 100) if self.accuracy else ("ppl", 1)
        return plus_minus(key, number / unit, None if half is None else half / unit, sign)


def rows(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> list[Row]:
    """Every place that has a run or a published number, by model, value, budget and method."""
    places, listed = by_place(outcomes), []
    printed = {tuple(place): number for *place, number in published(table)}
    for model, entry in table["models"].items():
        numbers = {} if entry.get("stand_in") else printed
        for value in values(table, model, printed, outcomes):
            for budget in table["budgets"]:
                for method in [*table["methods"], *table.get("absent", [])]:
                    number = numbers.get((value, budget, method, model), {})
                    runs = [*places.get((model, method, budget), {}).values()]
                    if number or runs:
                        listed.append(_row(table, (model, value, budget, method), runs, number))
    return listed


def values(table: Mapping[str, Any], model: str, printed: Mapping[Any, Any], outcomes: Any) -> list[str]:
    """The values to show of a model: those printed of it, all where nothing is, a stand-in's own metrics."""
    if table["models"][model].get("stand_in"):
        keys = {key for cell, outcome in outcomes.items() if cell.model == model for key in outcome.metrics}
        return sorted((key for key in keys if not key.startswith("acc_norm/")), key=rank) or ["-"]
    shown = [value for value in table["values"] if any(key[0] == value and key[3] == model for key in printed)]
    return shown or ([] if printed else list(table["values"]))


def _row(
    table: Mapping[str, Any], place: tuple[str, str, str, str], outcomes: Sequence[Outcome], number: Mapping[str, str]
) -> Row:
    """The row of these runs, one for each seed, and of this published number, if there is one."""
    model, value, budget, method = place
    measure = table["values"].get(value) or {"key": value}
    accuracy = bool((known := family(measure.get("key") or "")) and known.percent)
    keys = [(outcome, verdict.measured(outcome, measure)) for outcome in outcomes]
    ours = [outcome.metrics[key] * (100 if accuracy else 1) for outcome, key in keys if key]
    mean, half = interval(ours) if ours else (None, None)
    error = next(filter(None, map(state, outcomes)), "" if ours else NOT_RUN)
    why, judged, change, percent = dict[str, None](), "", None, None
    if number:
        why = dict.fromkeys(why for outcome in outcomes for why in verdict.reasons(table, model, value, outcome))
        why |= dict.fromkeys([*verdict.grids(table["methods"].get(method, {}), outcomes), *verdict.mixed(outcomes)])
    if number and why and ours:
        judged = verdict.NOT_COMPARABLE
    elif number and mean is not None:
        near = verdict.nearness(measure, float(number["value"])) if budget == DENSE else 0.0
        judged = _judge(ours, number, outcomes, near, not accuracy)
        change = mean - float(number["value"])
        percent = 100 * change / float(number["value"])
    half = half if len(ours) > 1 else None
    numbers = (len(ours), mean, half, number.get("value", ""), number.get("spread", ""), change, percent)
    stand_in = bool(table["models"][model].get("stand_in"))
    return Row(model, stand_in, value, budget, method, *numbers, judged, tuple(why), error, len(outcomes), accuracy)


def _judge(
    ours: Sequence[float], number: Mapping[str, str], outcomes: Sequence[Outcome], near: float, lower: bool
) -> str:
    """The verdict on numbers that are comparable, and the same if they are so `near`."""
    slack = max(rounding(number["value"]) + float(number.get("spread", 0)), near)
    draws = any(drawn(outcome) for outcome in outcomes if outcome.metrics)
    return verdict.verdict(ours, float(number["value"]), slack, draws, lower)


def state(outcome: Outcome) -> str:
    """Why there is nothing of a run, or that it is not run; empty if there is."""
    if outcome.error in ("", NOT_RUN):
        return outcome.error
    return f"{'not at hand' if outcome.away else FAILED}: {outcome.error}"


def drawn(outcome: Outcome) -> bool:
    """Whether a seed changes what the run measured: it calibrated on windows that are drawn, or its method draws."""
    if outcome.record is None:
        return True
    manifest, rounded = outcome.record.manifest, verdict.quantizer(outcome)
    parts = [manifest["config"][part] for part in ("metric", "allocator", "update")]
    method = [name for part in (*parts, rounded) for name in flat({"part": part})]
    draws = any(name.endswith(".seed") for name in method) or bool(manifest["config"].get("given"))
    changed = manifest["sparsity"] > 0 or "bits" in rounded
    return changed and (draws or manifest.get("data") is not None)


def files(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The table by suffix: Markdown, CSV (every number with its digits), and LaTeX (booktabs)."""
    listed = rows(table, outcomes)
    footnotes = list(dict.fromkeys(row.reasons for row in listed if row.reasons))
    body = [["model", *HEADER], *([row.model, *shown(table, row, footnotes)] for row in listed)]
    header, *lines = [[escape(cell) for cell in line] for line in body]
    tabular = f"% {table['title']}: {table['source']}\n{latex(header, [lines], 'llllr')}\n"
    source = {"trust": table["trust"], "source": table["source"]}
    sheets = [vars(row) | {"reasons": "; ".join(row.reasons)} | source for row in listed]
    for line in sheets:
        del line["runs"], line["accuracy"]
    return {".md": markdown(table, outcomes, listed, footnotes), ".csv": sheet(sheets), ".tex": tabular}


def markdown(
    table: Mapping[str, Any],
    outcomes: Mapping[Cell, Outcome],
    listed: Sequence[Row],
    footnotes: Sequence[tuple[str, ...]],
) -> str:
    """Verdicts counted, a part for each model, why rows are not comparable, and what was run."""
    notes = " ".join(interpolated(table["notes"], table))
    parts = [f"# {table['title']}", f"Published: {table['source']} ({table['trust']}). {notes}".strip(), SAYS]
    if table["unstated"]:
        parts.append(f"Nothing is compared, for the source does not state {table['unstated']}.")
    if listed:
        parts.append(summary(listed))
    for model, entry in table["models"].items():
        if body := [shown(table, row, footnotes) for row in listed if row.model == model]:
            title = f"## {model}, {STAND_IN}" if entry.get("stand_in") else f"## {model}"
            parts += [title, grid(HEADER, body, "lllr")]
    if footnotes:
        parts.append("\n".join(["Not comparable:\n", *(f"{n}. {'; '.join(f)}" for n, f in enumerate(footnotes, 1))]))
    return "\n\n".join(part for part in [*parts, remarks(table, outcomes), account(outcomes)] if part) + "\n"


def shown(table: Mapping[str, Any], row: Row, footnotes: Sequence[tuple[str, ...]]) -> list[str]:
    """The cells of a row, as people read them."""
    ours = FAILED if row.error.startswith(FAILED) else ""
    if row.ours is not None:
        ours = row.text(row.ours, row.half_interval)
        if row.seeds < row.runs:
            ours += f" ({row.seeds} of {row.runs})"
    return [
        row.value,
        row.budget,
        row.method,
        ours,
        f"{row.published} ± {row.spread}" if row.spread else row.published,
        "" if row.difference is None else row.text(row.difference, sign="+"),
        "" if row.percent is None else f"{row.percent:+.2f}",
        f"{row.verdict} ({footnotes.index(row.reasons) + 1})" if row.reasons else row.verdict,
        f"{table['paper']}, {table['trust']}" if row.published else "",
    ]


def summary(listed: Sequence[Row]) -> str:
    """How many verdicts of each kind there are."""
    kinds = (verdict.NOISE, verdict.BETTER, verdict.WORSE, verdict.NOT_COMPARABLE, verdict.NOT_JUDGED, WITHOUT)
    verdicts = Counter(row.verdict or WITHOUT for row in listed if row.published)
    each = [f"{verdicts[kind]} {kind}" for kind in kinds if verdicts[kind]]
    return f"{verdicts.total()} published numbers: {', '.join(each)}." if each else "No published number is shown."


def remarks(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> str:
    """What is published only, which models have no cells, and which runs read a local file for the hub's."""
    lines = []
    if table.get("absent"):
        lines.append(f"published only, not a method of this project: {', '.join(table['absent'])}")
    for model, entry in table["models"].items():
        if entry["overrides"] is None:
            lines.append(f"{model} has no cells: {entry['reason']}")
        for method, own in table["methods"].items() if entry.get("stand_in") else ():
            lines += [f"{model} has {', '.join(own['stand_in'])} in {method}"] if "stand_in" in own else []
    configs = [outcome.record.manifest["config"] for outcome in outcomes.values() if outcome.record]
    typed = [name_of(line) for line in table["typed"]]
    if read := [name for name in typed if any(verdict.is_file(name, config) for config in configs)]:
        lines.append(f"read from local files, taken for the published data: {', '.join(read)}")
    return "\n".join(f"- {line}" for line in lines)
