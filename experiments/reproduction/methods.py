"""All methods beside each other: quality, what is left of the dense model's, what pruning cost, and claimed orders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.console.families import family, higher, name_of, recovery
from experiments.console.grid import escape, grid, latex, sheet
from experiments.console.text import digits, duration, percent, plus_minus, size
from experiments.files.disk import replacing
from experiments.reproduction.cells import Cell, Outcome, Place, account, by_place, calibrated, expand, interpolated
from experiments.runs.difference import over_pairs
from experiments.runs.protocol import rank
from experiments.runs.record import AT_LEAST
from experiments.summary.rows import column_title, readable
from experiments.summary.seeds import half_width, interval

SAYS = (
    "Mean over the seeds and half of its 95 % interval (t distribution); recovery is the share of the dense model's"
    " quality that is left: dense / pruned where less is better, else pruned / dense. A dash marks a budget that is not"
    " asked of a method."
)
SAYS_OF_COST = (
    "Time is that of pruning alone, from nothing: what was found in the cache counts with the time that making it took."
    " Memory is the peak of the whole process, the largest over the seeds."
)
GAP = "share of {}'s remaining log-perplexity gap that is closed"
PERPLEXITY = "ppl"  # what judges a claimed order where a table says nothing else
# Of a claimed order.
VERDICTS = HOLDS, NOISE, FAILS, UNKNOWN, UNLIKE = (
    "holds",
    "within noise",
    "does not hold",
    "not known",
    "calibrated otherwise",
)


def cells(table: Mapping[str, Any]) -> list[Cell]:
    """All cells of the table. Where it has `texts`, `text` in their lines is the part of the model's text that is
    calibrated on: the first `share` of one whose rest is evaluated, written below the table's outputs.
    """
    texts = table.get("texts", {})
    parts = {model: {"text": str(first_part(table, texts[model]))} for model in table["models"] if model in texts}
    return expand(table, lambda model, method, budget: parts.get(model, {}))


def first_part(table: Mapping[str, Any], file: str) -> Path:
    """The first `share` of the characters of a text, as a file of its own."""
    place = Path(table["outputs"], "text", f"{Path(file).stem}-{table['share']}.txt")
    text = Path(table["shared"], "data", "corpora", file).read_text(encoding="utf-8")
    with replacing(place) as temporary:
        temporary.write_text(text[: int(len(text) * table["share"])], encoding="utf-8")
    return place


def files(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> dict[str, str]:
    """The table by suffix. Markdown: for each model and metric a row for each method, how much of what its `gap` method
    loses is given back, what each budget cost, and whether claims hold; LaTeX (booktabs): the first two; CSV: a line
    for each place and metric.
    """
    costly = table.get("cost", True)
    says = f"{SAYS} {SAYS_OF_COST}" if costly else SAYS
    parts = [f"# {table['title']}", " ".join([*interpolated(table["notes"], table), says])]
    tabulars, lines = [], []
    for model in table["models"]:
        places = {place[1:]: [*seeds.values()] for place, seeds in by_place(outcomes).items() if place[0] == model}
        every = [outcome for seeds in places.values() for outcome in seeds]
        for metric in readable(sorted({key for outcome in every for key in outcome.metrics}, key=rank)):
            shown, own = of_metric(table, outcomes, model, metric)
            lines += own
            for heading, (header, *body) in shown:
                parts += [f"## {heading}", grid(header, body, "lr")]
                titles, *rows = [[escape(cell) for cell in line] for line in (header, *body)]
                tabulars.append(f"% {heading}\n{latex(titles, [rows], 'lr')}")
        if costly:
            body = [[method, *costs(table, places, method)] for method in table["methods"]]
            parts += [f"## {model}, cost: time and peak memory", grid(["method", *table["budgets"]], body, "lr")]
    markdown = "\n\n".join([*parts, *judged(table, outcomes), account(outcomes)]) + "\n"
    return {".md": markdown, ".csv": sheet(lines), ".tex": "\n\n".join(tabulars) + "\n"}


def of_metric(
    table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome], model: str, metric: str
) -> tuple[list[tuple[str, list[list[str]]]], list[dict[str, Any]]]:
    """Of a metric of a model: headings with their tables, and the lines of the CSV."""
    places = {place[1:]: [*seeds.values()] for place, seeds in by_place(outcomes).items() if place[0] == model}
    own = {place: quality(metric, seeds) for place, seeds in places.items()}
    title = f"{model}, {column_title(metric)}"
    dense = digits(metric, dense_of([outcome for seeds in places.values() for outcome in seeds], metric))
    shown, lines = [(f"{title}: dense {dense}" if dense else title, by_method(table, own, metric))], []
    found = shares(table, outcomes, model, metric) if "gap" in table and name_of(metric) == PERPLEXITY else {}
    if found:
        shown.append((f"{title}: {GAP.format(table['gap'])}", by_share(table, found)))
    for (method, budget), line in own.items():
        place = {"model": model, "metric": metric, "method": method, "budget": budget}
        share = dict(zip(("closed", "closed_half_interval"), found.get((method, budget), ()), strict=False))
        spent = cost(places[method, budget]) if table.get("cost", True) else {}
        lines += [place | line | share | spent] if line["seeds"] else []
    return shown, lines


def dense_of(outcomes: Sequence[Outcome], metric: str) -> float | None:
    """The dense model's metric as its runs know it."""
    known = (outcome.record.results.get("dense", {}).get(metric) for outcome in outcomes if outcome.record)
    return next((value for value in known if value is not None), None)


def quality(metric: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A metric over the seeds that have it, of so many runs: their number, mean, half of its 95 % interval, the dense
    model's, and the share of that quality that is left; None for what is not known.
    """
    values = [outcome.metrics[metric] for outcome in outcomes if metric in outcome.metrics]
    mean, half = interval(values) if values else (None, None)
    dense = dense_of(outcomes, metric)
    half = half if len(values) > 1 else None
    line = {"runs": len(outcomes), "seeds": len(values), "mean": mean, "half_interval": half}
    return line | {"dense": dense, "recovery": recovery(metric, mean, dense)}


def by_method(table: Mapping[str, Any], own: Mapping[tuple[str, str], dict[str, Any]], metric: str) -> list[list[str]]:
    """Titles, and a row for each method: at every budget mean and interval, and recovery where the dense model has the
    metric; dashes where it refuses one.
    """
    columns = 2 if any(line["recovery"] is not None for line in own.values()) else 1
    rows = [["method", *(title for budget in table["budgets"] for title in (budget, "recovery")[:columns])]]
    for method in table["methods"]:
        pairs = (qualities(own.get((method, budget)), metric) for budget in table["budgets"])
        rows.append([method, *(cell for pair in pairs for cell in pair[:columns])])
    return rows


def qualities(line: Mapping[str, Any] | None, metric: str) -> tuple[str, str]:
    """Mean with interval, and recovery; dashes where there is no such cell."""
    if line is None:
        return "-", "-"
    few, every = line["seeds"], line["runs"]
    mean = plus_minus(metric, line["mean"], line["half_interval"])
    left = percent(line["recovery"])
    return f"{mean} ({few} of {every})" if 0 < few < every else mean, f"{left} %" if left else ""


def shares(
    table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome], model: str, metric: str
) -> dict[tuple[str, str], tuple[float, float | None]]:
    """The share of what the table's `gap` method still loses that each method closes, by method and budget, where that
    is known and both were calibrated alike.
    """
    places, names = by_place(outcomes), windows(outcomes)
    found = {}
    for method, budget in product(table["methods"], table["budgets"]):
        pair = [(model, method, budget), (model, table["gap"], budget)]
        if all(place in places for place in pair) and len(set.union(*(names[place] for place in pair))) < 2:
            found[method, budget] = closed(*(places[place] for place in pair), metric)
    return {place: share for place, share in found.items() if share is not None}


def closed(seeds: Mapping[int, Outcome], gap: Mapping[int, Outcome], metric: str) -> tuple[float, float | None] | None:
    """(ln p_gap - ln p) / (ln p_gap - ln p_dense), paired by seed: its mean, and half of its 95 % interval.

    None for the half of one seed, and for the whole where there is no gap to close.
    """
    dense = dense_of([*seeds.values(), *gap.values()], metric)
    common = [(gap[seed].metrics.get(metric), one.metrics.get(metric)) for seed, one in seeds.items() if seed in gap]
    pairs = [(log(start), log(end)) for start, end in common if start and end]
    if not pairs or not dense or any(start <= log(dense) for start, _ in pairs):
        return None
    mean, half = interval([(start - end) / (start - log(dense)) for start, end in pairs])
    return mean, half if len(pairs) > 1 else None


def by_share(table: Mapping[str, Any], found: Mapping[tuple[str, str], tuple[float, float | None]]) -> list[list[str]]:
    """Titles, and a row for each method: its share at every budget with its interval."""
    rows = [["method", *table["budgets"]]]
    for method in table["methods"]:
        known = [found.get((method, budget)) for budget in table["budgets"]]
        rows.append([method, *("" if share is None else in_percent(*share) for share in known)])
    return rows


def in_percent(mean: float, half: float | None) -> str:
    """A share as "61.2 ± 1.0 %"."""
    return f"{100 * mean:.1f}{'' if half is None else f' ± {100 * half:.1f}'} %"


def cost(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Mean seconds of pruning from nothing, and the largest peaks of host and device memory in bytes; None: not known.

    Where nothing but the least is known of any run, that is `at_least`.
    """
    results = [outcome.record.results for outcome in outcomes if outcome.record]
    known, least = (
        [r["seconds"][s] for r in results if s in r.get("seconds", {})] for s in ("prune", f"prune{AT_LEAST}")
    )
    line: dict[str, float | None] = {"seconds": fmean(known) if known else None}
    line["at_least"] = max(least) if least and not known else None
    for place in ("host_peak", "device_peak"):
        peaks = [each["memory"][place] for each in results if each.get("memory", {}).get(place)]
        line[place] = max(peaks, default=None)
    return line


def costs(table: Mapping[str, Any], places: Mapping[tuple[str, str], Sequence[Outcome]], method: str) -> list[str]:
    """Time and memory of a method at every budget: "3.1 s, 812 MiB", on a device "3.1 s, 812 MiB, 2.1 GiB"."""
    text = []
    for budget in table["budgets"]:
        seconds, least, *peaks = cost(places.get((method, budget), [])).values()
        parts = [] if seconds is None else [duration(seconds)]
        parts += [] if least is None else [f"at least {duration(least)}"]
        parts += [size(peak) for peak in peaks if peak is not None]
        text.append(", ".join(parts) or ("" if (method, budget) in places else "-"))
    return text


def judged(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome]) -> list[str]:
    """A sentence for each claimed order of methods, and the evidence for it; nothing for a table without claims."""
    sentences, evidence = [], []
    for claim in table.get("claims", []):
        if rows := compare(table, outcomes, claim):
            verdicts = Counter(row[-1] for row in rows)
            counts = ", ".join(f"{kind} in {verdicts[kind]}" for kind in VERDICTS if verdicts[kind])
            sentences.append(f"- {claim['says']} ({claim['source']}): {counts} of {len(rows)} comparisons.")
            evidence += rows
    header = ["claim", "model", "budget", "metric", "difference", "verdict"]
    return ["## Claimed orders", "\n".join(sentences), grid(header, evidence, "llllr")] if sentences else []


def compare(table: Mapping[str, Any], outcomes: Mapping[Cell, Outcome], claim: Mapping[str, Any]) -> list[list[str]]:
    """A row for each pair of neighbours in the claimed order, model, budget and metric that both methods have.

    The metrics are one of each family that the table has `judged`, or perplexity.
    """
    rows, places, names = [], by_place(outcomes), windows(outcomes)
    for better, worse in pairwise(claim["order"]):
        for model, budget in product(table["models"], claim.get("budgets") or table["usual"]):
            pair = [(model, method, budget) for method in (better, worse)]
            if not all(place in places for place in pair):
                continue
            alike = len(set.union(*(names[place] for place in pair))) < 2
            for judge in table.get("judged", [PERPLEXITY]):
                one, other = (places[place] for place in pair)
                change = difference(measured(one, judge), measured(other, judge), judge, errors(one, other, judge))
                claimed = f"{better} {'>' if higher(judge) else '<'} {worse}"
                told = [shown(change, judge), verdict(change, higher(judge))] if alike else ["", UNLIKE]
                rows.append([claimed, model, budget, judge, *told])
    return rows


def windows(outcomes: Mapping[Cell, Outcome]) -> dict[Place, set[str]]:
    """What the runs of each place were calibrated with, seeds aside; two of them are compared over one such name."""
    names: dict[Place, set[str]] = {}
    for cell, name in calibrated(outcomes).items():
        names.setdefault((cell.model, cell.method, cell.budget), set()).update({name} - {None})
    return names


def measured(outcomes: Mapping[int, Outcome], judge: str) -> dict[int, float]:
    """A metric of this family where it is known, by seed."""
    values = {}
    for seed, outcome in outcomes.items():
        known = (value for key, value in outcome.metrics.items() if name_of(key) == judge)
        value = outcome.perplexity if judge == PERPLEXITY else next(known, None)
        values |= {} if value is None else {seed: value}
    return values


def errors(better: Mapping[int, Outcome], worse: Mapping[int, Outcome], judge: str) -> list[float | None]:
    """Standard errors of the differences over the evaluated images or answers, of the seeds that both have; a claim on
    perplexities is one of the text at hand, and has none.
    """
    if judge == PERPLEXITY:
        return []
    found: list[float | None] = []
    for seed in better:
        first, second = (side[seed].record if seed in side else None for side in (worse, better))
        key = next((key for key in better[seed].metrics if name_of(key) == judge), "")
        if seed in worse and key in worse[seed].metrics:
            found.append(over_pairs(first, second, key) if first and second else None)
    return found


def difference(
    better: Mapping[int, float],
    worse: Mapping[int, float],
    judge: str = PERPLEXITY,
    errors: Sequence[float | None] = (),
) -> tuple[float, float] | None:
    """Mean and half width of the difference, paired by seed: of perplexities in percent of `worse`.

    The interval is over the draws; where the `errors` over what was evaluated are given, over that too. None without
    two common seeds, and where an error is not known: few images may move in no draw, and be noise.
    """
    common = [(better[seed], worse[seed]) for seed in better if seed in worse]
    pairs = [100 * (one / other - 1) if judge == PERPLEXITY else one - other for one, other in common]
    if len(pairs) < 2 or None in errors:
        return None
    half = half_width(pairs, errors)
    return None if half is None else (fmean(pairs), half)


def shown(change: tuple[float, float] | None, judge: str) -> str:
    """A difference with its interval and its unit: percent of a perplexity, points of a share, a metric's own."""
    if change is None:
        return ""
    if judge == PERPLEXITY:
        return f"{change[0]:+.2f} ± {change[1]:.2f} %"
    known = family(judge)
    return plus_minus(judge, *change, sign="+") + (" points" if known is not None and known.percent else "")


def verdict(difference: tuple[float, float] | None, higher: bool = False) -> str:
    """Whether a claim holds: the interval of the difference is below zero, above it, or around it; `higher` is better
    of some metrics.
    """
    if difference is None:
        return UNKNOWN
    mean, half = difference
    mean = -mean if higher else mean
    return HOLDS if mean + half < 0 else FAILS if mean - half > 0 else NOISE
