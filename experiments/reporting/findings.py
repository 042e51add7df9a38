"""Runs as every format and picture of a report shows them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from experiments.reporting.significance import Contest, contests
from experiments.runs.record import Record
from experiments.summary.rows import Table, arrange, without_members
from experiments.summary.seeds import Group, grouped

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
