"""The table that papers print: methods as rows, budgets as columns, one metric of one model."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from experiments.console.families import higher
from experiments.console.grid import grid, no_html
from experiments.console.text import digits, fraction, inline, some
from experiments.reporting.findings import Findings
from experiments.runs.protocol import different
from experiments.summary.counts import along
from experiments.summary.naming import made_of
from experiments.summary.rows import column_title, differing, has_difference
from experiments.summary.seeds import Group
from experiments.summary.shared import main_metrics

COLUMNS = 8  # of one table: what a page in portrait and a terminal hold
CELLS = 3  # with fewer numbers there is nothing to lay out
NAMED = 6  # so many rows are named
PATHS = 3  # so many things are named that differ along a row
BOLD = "better than each other one of its column by more than the noise, among runs of one calibration"
COUNTED = "bits: per weight of the pruned matrices, with grids and masks"
PRECISE = " and of codes of as many bits on grids of one kind"


@dataclass(frozen=True)
class PaperTable:
    """A metric of a model by method and budget (pattern and sparsity that was asked for).

    dense: the dense model's, None where it is not known. rows: a group for each budget, None where there is no run.
    bold: the folder of a group's first run and a metric, where it is the best among equals by more than the noise.
    bits: of each row, "dense" among them, bits per weight of its runs; nothing where none is quantised.
    """

    model: str
    metric: str
    budgets: list[tuple[str, float]]
    dense: float | None
    rows: dict[str, list[Group | None]]
    bold: set[tuple[Path, str]]
    means: str = BOLD  # what bold is
    bits: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Model, metric, and which direction is better."""
        better = "higher" if higher(self.metric) else "lower"
        return f"{self.model}: {column_title(self.metric)} ({better} is better)"

    @property
    def patterns(self) -> list[tuple[str, list[str]]]:
        """The columns from left to right: a pattern as papers write it, and its sparsities in percent."""
        parts = groupby(self.budgets, key=lambda budget: budget[0])
        return [(written(name), [f"{100 * target:g} %" for _, target in budgets]) for name, budgets in parts]

    @property
    def titles(self) -> list[str]:
        """Those of the columns before the budgets."""
        return ["method", "bits"] if self.bits else ["method"]

    def begin(self, name: str) -> list[str]:
        """The cells of a row under `titles`."""
        return [name, self.bits[name]] if self.bits else [name]

    @property
    def lines(self) -> dict[str, list[tuple[float | None, bool]]]:
        """For each row its values, None where there is no run, and whether they are bold."""
        value = lambda group: group.means[self.metric].value if group else None
        bold = lambda group: bool(group) and (group.rows[0].record.folder, self.metric) in self.bold
        return {name: [(value(group), bold(group)) for group in groups] for name, groups in self.rows.items()}

    @property
    def groups(self) -> list[Group]:
        """All that have a place in it."""
        return [group for groups in self.rows.values() for group in groups if group]

    @cached_property
    def notes(self) -> list[str]:
        """What rows and columns hide: circumstances, seeds, sparsities, and what is not one thing along a row."""
        lines = [f"not alike in all rows: {line}" for line in differing(row for g in self.groups for row in g.rows)]
        seeds = {name: max(len(g.rows) for g in groups if g) for name, groups in self.rows.items()}
        several = [name for name, count in seeds.items() if count > 1]
        means = "all rows" if len(several) == len(seeds) else some(several, NAMED)
        missed = [
            f"{fraction(group.sparsity)} by {group.method} at {written(group.pattern)} {100 * group.target:g} %"
            for group in self.groups
            if group.sparsity is not None and round(group.sparsity, 2) != round(group.target, 2)
        ]
        lines += [COUNTED] if self.bits else []
        lines += [f"means over up to {max(seeds.values())} seeds: {means}"] if several else []
        lines += [f"removed, other than asked: {', '.join(missed)}"] if missed else []
        return lines + [line for name, groups in self.rows.items() for line in _unlike(name, filter(None, groups))]


def bold(findings: Findings) -> str:
    """What is bold in the tables of a report."""
    return BOLD + PRECISE if findings.table.quantised else BOLD


def written(pattern: str) -> str:
    """A pattern as papers write it: 2:4 for 2of4."""
    return re.sub(r"^(\d+)of(\d+)$", r"\1:\2", pattern)


def paper_tables(findings: Findings) -> dict[str, list[PaperTable]]:
    """The tables of each model, those of its main metric first; none where few runs say little.

    One of many budgets is parted into several.
    """
    models = {model: list(groups) for model, groups in groupby(findings.groups, key=lambda group: group.model)}
    main, tables = main_metrics(findings.groups), {}
    for model, (dense, *pruned) in models.items():
        metrics = sorted(findings.metrics, key=lambda metric: metric != main.get(model))
        tables[model] = [table for metric in metrics for table in _parts(metric, dense, pruned, findings)]
    return {model: own for model, own in tables.items() if own}


def _parts(metric: str, dense: Group, groups: list[Group], findings: Findings) -> Iterator[PaperTable]:
    """The table of this metric in parts of so many budgets as fit; none where no two numbers are side by side."""
    cells: dict[str, dict[tuple[str, float], Group]] = {}
    for group in groups:
        if metric in group.means:
            name, budget = group.method, (group.pattern, group.target)
            while budget in cells.setdefault(name, {}):
                name += ", again"  # one setting and seed in two folders
            cells[name][budget] = group
    budgets = list(dict.fromkeys((g.pattern, g.target) for g in groups if metric in g.means))
    count = sum(map(len, cells.values()))
    if count < CELLS or count == len(cells) == len(budgets):
        return
    known = dense.means.get(metric)
    for part in _columns(budgets):
        present = {name: own for name, own in sorted(cells.items()) if own.keys() & set(part)}
        rows = {name: [own.get(budget) for budget in part] for name, own in present.items()}
        dense_value, bits = known and known.value, _bits({"dense": [dense]} | rows)
        yield PaperTable(dense.model, metric, part, dense_value, rows, findings.bold, bold(findings), bits)


def _bits(rows: dict[str, list[Group | None]]) -> dict[str, str]:
    """Bits per weight along each row; nothing where no run is quantised."""
    present = {name: [group for group in groups if group] for name, groups in rows.items()}
    coded = any(group.precision for groups in present.values() for group in groups)
    return {name: along(groups) for name, groups in present.items()} if coded else {}


def _columns(budgets: list[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """All budgets if they fit beside each other, else parts of one pattern each."""
    if len(budgets) <= COLUMNS:
        return [budgets]
    patterns = [list(part) for _, part in groupby(budgets, key=lambda budget: budget[0])]
    return [own[start : start + COLUMNS] for own in patterns for start in range(0, len(own), COLUMNS)]


def _unlike(name: str, groups: Iterable[Group]) -> list[str]:
    """What is not the same in all columns of a row, beside the budget: text, code or libraries by their content."""
    made = [_apart_from_budget(made_of(record)) for group in groups for record in group.records]
    paths = sorted({path for other in made for path in different(made[0], other)})
    return [f"{name} is not of one make in all columns: {some(paths, PATHS)}"] if paths else []


def _apart_from_budget(leaves: dict[str, object]) -> dict[str, object]:
    words = {path: path.split(".") for path in leaves}
    return {path: leaves[path] for path, names in words.items() if "pattern" not in names and names[-1] != "sparsity"}


def render(tables: Iterable[PaperTable], markdown: bool = False) -> str:
    """The tables as text; what is bold has a star in front of it on a terminal."""
    return "\n\n".join(_text(table, markdown) for table in tables)


def _text(table: PaperTable, markdown: bool) -> str:
    strong, gap, style = ("**{}**", " ", "pipe") if markdown else ("*{}", "\n", "simple")
    header = [*table.titles, *(f"{name}{gap}{share}" for name, shares in table.patterns for share in shares)]
    dense = [[*table.begin("dense"), *[_cell(table.metric, table.dense)] * len(table.budgets)]]
    body = dense if has_difference(table.metric) else []
    for name, values in table.lines.items():
        cells = [(_cell(table.metric, value), bold) for value, bold in values]
        body.append([*map(inline, table.begin(name)), *(strong.format(cell) if bold else cell for cell, bold in cells)])
    bold = any(bold for values in table.lines.values() for _, bold in values)
    notes = [f"{'bold' if markdown else '*'}: {table.means}"] if bold else []
    notes = [inline(note) for note in notes + table.notes]
    lines = [f"- {no_html(note)}" for note in notes] if markdown else [f"note: {note}" for note in notes]
    title = f"**{no_html(inline(table.title))}**" if markdown else inline(table.title)
    return "\n\n".join(part for part in (title, grid(header, body, "lr", style), "\n".join(lines)) if part)


def _cell(metric: str, value: float | None) -> str:
    return "-" if value is None else digits(metric, value)


def main_tables(tables: Iterable[PaperTable]) -> list[PaperTable]:
    """Those of the metric that comes first for each model."""
    first: dict[str, str] = {}
    return [table for table in tables if first.setdefault(table.model, table.metric) == table.metric]


def first_tables(findings: Findings) -> list[str]:
    """For a terminal: methods by budget of each model, by its first metric."""
    return [render(main_tables(tables)) for tables in paper_tables(findings).values()]


def readable_tables(tables: Iterable[PaperTable], findings: Findings) -> list[PaperTable]:
    """Those of the metrics that a text has room for, and of the first."""
    tables = list(tables)
    shown = {*findings.table.short, *(table.metric for table in main_tables(tables))}
    return [table for table in tables if table.metric in shown]
