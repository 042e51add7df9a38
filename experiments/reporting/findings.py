"""Runs as every format and picture of a report shows them, and what they are in a few lines."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from experiments.console.text import plural, some
from experiments.reporting.best import Contest, contests
from experiments.runs.record import Record
from experiments.summary.rows import Table, arrange, without_members
from experiments.summary.seeds import Group, grouped

STATUSES = ("done", "failed", "interrupted", "running", "unreadable")
LISTED = 24  # so many names are listed
Bold = set[tuple[Path, str]]  # folder of a group's first run, metric


class Findings:
    """Runs as a table, the rows of one setting as groups, and the groups held against each other: each once."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    @cached_property
    def table(self) -> Table:
        """A row for each run, and what a reader must know about them."""
        return arrange(self.records)

    @cached_property
    def groups(self) -> list[Group]:
        """Runs that differ in their seeds alone, taken together, in the order of the table."""
        return grouped(self.table)

    @cached_property
    def metrics(self) -> list[str]:
        """The columns of results: no member of a group of tasks that is there itself."""
        return without_members(self.table.metrics)

    @cached_property
    def contests(self) -> list[Contest]:
        """The best of each model, pattern, sparsity and metric. Reads the answers behind the numbers."""
        return list(contests(self.groups, self.metrics))

    @cached_property
    def bold(self) -> Bold:
        """The values to print in bold."""
        return {(contest.best.rows[0].record.folder, contest.metric) for contest in self.contests if contest.won}

    def facts(self) -> list[tuple[str, str]]:
        """Models, methods, patterns, sparsities, text of calibration, code, dates: what was run, as (name, value)."""
        pruned = [group for group in self.groups if not group.dense]
        done = [record for record in self.records if record.status == "done"]
        codes = {record.code for record in done}
        facts = {
            "models": _listed(group.model for group in self.groups),
            "methods": _listed(sorted({group.method for group in pruned})),
            "patterns": _listed(sorted({group.pattern for group in pruned})),
            "sparsities asked for": _listed(sorted({f"{group.asked:g}" for group in pruned})),
            "calibrated on": _listed(
                sorted({(record.manifest.get("data") or {}).get("name") or "" for record in done})
            ),
            "code": f"{len(codes)} versions, named below" if len(codes) > 1 else "".join(codes),
            "newest run": max((record.manifest.get("finished") or "" for record in self.records), default=""),
        }
        return [(name, value) for name, value in facts.items() if value]


def counts(statuses: Iterable[str]) -> str:
    """How many runs there are, by status."""
    totals = Counter(statuses)
    each = ", ".join(f"{totals[status]} {status}" for status in STATUSES if totals[status])
    return f"{plural(totals.total(), 'run')}: {each}."


def _listed(names: Iterable[str]) -> str:
    """The number of them where there are several, then their names."""
    names = list(dict.fromkeys(filter(None, names)))
    return f"{len(names)}: {some(names, LISTED)}" if len(names) > 1 else "".join(names)
