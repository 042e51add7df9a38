"""What a set of runs is, in a few lines, and which method is best where - with how sure that is."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.console.text import digits, plus_minus
from experiments.reporting.significance import Contest
from experiments.runs.record import Record
from experiments.summary.rows import Table, column_title, readable
from experiments.summary.seeds import Group

STATUSES = ("done", "failed", "interrupted", "running", "unreadable")
LISTED = 24  # so many names are listed
Cells = tuple[str, float | None]  # a text, and the number it stands for
Grid = dict[str, Any]  # header: [(title, whether a number)], body: rows of Cells


def counts(statuses: Iterable[str]) -> str:
    """How many runs there are, by status."""
    found = Counter(statuses)
    each = ", ".join(f"{found[status]} {status}" for status in STATUSES if found[status])
    return f"{found.total()} run{'s' * (found.total() != 1)}: {each}."


def facts(records: Sequence[Record], groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Models, methods, patterns, sparsities, text of calibration, code, dates: what was run, as (name, value)."""
    pruned = [group for group in groups if not group.dense]
    done = [record for record in records if record.status == "done"]
    data = sorted({str((record.manifest.get("data") or {}).get("name", "")) for record in done} - {""})
    codes = {record.code for record in done}
    dates = [manifest["finished"] for manifest in (record.manifest for record in records) if manifest.get("finished")]
    found = {
        "models": _listed(dict.fromkeys(group.model for group in groups)),
        "methods": _listed(sorted({group.method for group in pruned})),
        "patterns": _listed(sorted({group.pattern for group in pruned})),
        "sparsities asked for": _listed(sorted({f"{g.rows[0].record.manifest['sparsity']:g}" for g in pruned})),
        "calibrated on": _listed(data),
        "code": next(iter(codes), "") if len(codes) < 2 else f"{len(codes)} versions, named below",
        "newest run": max(map(str, dates), default=""),
    }
    return [(name, value) for name, value in found.items() if value]


def _listed(names: Iterable[str]) -> str:
    """The number of them where there are several, then their names."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)}: " * (len(names) > 1) + ", ".join(names[:LISTED]) + more


def best(table: Table, contests: Iterable[Contest]) -> Grid:
    """A row for each model, pattern, sparsity and readable metric: the best setting, and whether it stands out."""
    shown = set(readable(table.metrics))
    titles = [(title, False) for title in ("model", "pattern")] + [("sparsity", True), ("metric", False)]
    titles += [("best", False), ("value", True), ("difference", True), ("how sure", False)]
    return {"header": titles, "body": [_best(contest) for contest in contests if contest.metric in shown]}


def _best(contest: Contest) -> list[Cells]:
    metric, mean = contest.metric, contest.best.means[contest.metric]
    words: list[Cells] = [(contest.model, None), (contest.pattern, None), (f"{contest.sparsity:.2f}", contest.sparsity)]
    value = plus_minus(metric, mean.value, mean.half), mean.value
    difference = plus_minus(metric, mean.difference, mean.difference_half, "+"), mean.difference
    return [*words, (column_title(metric), None), (contest.best.method, None), value, difference, (sure(contest), None)]


def sure(contest: Contest) -> str:
    """Whether the best is better than the others by more than the noise, in words."""
    if not contest.rivals:
        return "the only one here"
    rival, margin, half = contest.rivals[0]
    if contest.won:
        return f"better than {rival.method}, by {plus_minus(contest.metric, margin, half)}"
    if half is None:
        by = f"{digits(contest.metric, margin)} ahead of" if margin else "the same as"
        return f"{by} {rival.method}; no error is known"
    return f"not told apart from {', '.join(group.method for group in contest.tied)}"
