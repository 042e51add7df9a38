"""All methods beside each other: quality, what is left of the dense model's, and what pruning cost."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from experiments.console.grid import escape, grid, latex, sheet
from experiments.console.text import duration, plus_minus, size
from experiments.reproduction.cells import Cell, Outcome, account, entries, filled
from experiments.reproduction.published import cells
from experiments.runs.protocol import rank
from experiments.summary.interval import interval
from experiments.summary.rows import column_title, readable

__all__ = ["cells", "files", "render"]
COST = ["pruning", "host memory", "device memory"]
SAYS = (
    "Mean over the seeds and half of its 95 % interval (t distribution); recovery is the dense perplexity divided by"
    " the pruned one, the pruned accuracy divided by the dense one. Time is that of pruning alone, memory the peak of"
    " the whole process, the largest over the seeds. A dash marks a budget that the method refuses."
)
Found = Mapping[tuple[str, str, str], Sequence[Outcome]]  # model, method, budget -> its seeds


def render(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> str:
    """The table as Markdown: for each model and metric a row for each method, then what each budget cost."""
    found = together(outcomes)
    parts = [f"# {table['title']}", " ".join([*filled(table["notes"], table), SAYS])]
    budgets = list(table["budgets"])
    for model in entries(table):
        mine = [outcome for place, each in found.items() if place[0] == model for outcome in each]
        for metric in metrics(mine):
            body = [[method, *quality(table, found, model, method, metric)] for method in table["methods"]]
            dense = dense_of(mine, metric)
            title = f"## {model}, {column_title(metric)}: dense {shown(metric, [dense]) if dense else 'not known'}"
            parts += [title, grid(["method", *_twice(budgets)], body, "lr")]
        body = [[method, *costs(table, found, model, method)] for method in table["methods"]]
        parts += [f"## {model}, cost: time and peak memory", grid(["method", *budgets], body, "lr")]
    return "\n\n".join([*parts, account(outcomes)]) + "\n"


def together(outcomes: Mapping[Cell, Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    """The outcomes of the seeds of each place."""
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for cell, outcome in outcomes.items():
        found.setdefault((cell.model, cell.method, cell.budget), []).append(outcome)
    return found


def metrics(outcomes: Sequence[Outcome]) -> list[str]:
    """The metrics that a reader compares methods by: perplexities, and the mean accuracy."""
    return readable(sorted({key for outcome in outcomes for key in outcome.metrics}, key=rank))


def dense_of(outcomes: Sequence[Outcome], metric: str) -> float | None:
    """The dense model's metric as its runs know it."""
    known = (outcome.record.results.get("dense", {}).get(metric) for outcome in outcomes if outcome.record)
    return next((value for value in known if value is not None), None)


def _twice(budgets: Sequence[str]) -> list[str]:
    return [title for budget in budgets for title in (budget, "recovery")]


def quality(table: Mapping[str, Any], found: Found, model: str, method: str, metric: str) -> list[str]:
    """Mean, interval and recovery of a method at every budget."""
    text = []
    for budget in table["budgets"]:
        outcomes = found.get((model, method, budget))
        values = [outcome.metrics[metric] for outcome in outcomes or [] if metric in outcome.metrics]
        ratio = recovery(metric, values, dense_of(outcomes or [], metric))
        few = f" ({len(values)} of {len(outcomes)})" if outcomes and 0 < len(values) < len(outcomes) else ""
        dash = "-" if outcomes is None else ""
        text += [shown(metric, values) + few if values else dash, f"{100 * ratio:.1f} %" if ratio else dash]
    return text


def recovery(metric: str, values: Sequence[float], dense: float | None) -> float | None:
    """The share of the dense model's quality that is left; None where one of them is not known."""
    if not values or dense is None:
        return None
    return dense / fmean(values) if metric.startswith("ppl/") else fmean(values) / dense


def shown(metric: str, values: Sequence[float]) -> str:
    """Mean and half width of the interval, accuracies in percent."""
    mean, half = interval(values)
    return plus_minus(metric, mean, half if len(values) > 1 else None)


def cost(outcomes: Sequence[Outcome]) -> tuple[float | None, int | None, int | None]:
    """Mean seconds of pruning, and the largest peaks of host and device memory in bytes; None where not measured."""
    results = [outcome.record.results for outcome in outcomes if outcome.record]
    seconds = [found["seconds"]["prune"] for found in results if "prune" in found.get("seconds", {})]
    peaks = [[m for found in results if (m := found.get("memory", {}).get(f"{place}_peak"))] for place in _PLACES]
    return fmean(seconds) if seconds else None, *(max(peak, default=None) for peak in peaks)


_PLACES = ("host", "device")


def costs(table: Mapping[str, Any], found: Found, model: str, method: str) -> list[str]:
    """Time and memory of a method at every budget: "3.1 s, 812 MiB", on a device "3.1 s, 812 MiB, 2.1 GiB"."""
    text = []
    for budget in table["budgets"]:
        outcomes = found.get((model, method, budget))
        seconds, host, device = cost(outcomes or [])
        parts = [] if seconds is None else [duration(seconds)]
        parts += [size(peak) for peak in (host, device) if peak is not None]
        text.append(", ".join(parts) or ("-" if outcomes is None else ""))
    return text


def files(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The same as CSV, a line for each place and metric, and as LaTeX tables (booktabs), one for each metric."""
    found, lines, tabulars = together(outcomes), [], []
    header = [escape(title) for title in ["method", *_twice(list(table["budgets"]))]]
    for model in entries(table):
        mine = {place: each for place, each in found.items() if place[0] == model}
        for metric in metrics([outcome for each in mine.values() for outcome in each]):
            body = [[method, *quality(table, found, model, method, metric)] for method in table["methods"]]
            tabular = latex(header, [[[escape(cell) for cell in line] for line in body]], "lr")
            tabulars.append(f"% {model}, {column_title(metric)}\n{tabular}")
            lines += [_line(metric, place, each) for place, each in mine.items() if _values(metric, each)]
    return {".csv": sheet(lines), ".tex": "\n\n".join(tabulars) + "\n"}


def _values(metric: str, outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.metrics[metric] for outcome in outcomes if metric in outcome.metrics]


def _line(metric: str, place: tuple[str, str, str], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A line of the CSV: what the seeds of a place have of a metric."""
    model, method, budget = place
    values, dense = _values(metric, outcomes), dense_of(outcomes, metric)
    mean, half = interval(values)
    line = {"model": model, "metric": metric, "method": method, "budget": budget, "seeds": len(values), "mean": mean}
    line |= {"half_interval": half if len(values) > 1 else None, "dense": dense}
    line |= {"recovery": recovery(metric, values, dense)}
    return line | dict(zip(("seconds", "host_peak", "device_peak"), cost(outcomes), strict=True))
