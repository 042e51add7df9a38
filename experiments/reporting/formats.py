"""The report as Markdown, as CSV, and as LaTeX to paste into a paper."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.console.families import EVERYWHERE, KNOWN, name_of, recovery
from experiments.console.grid import escape, latex, sheet, spanning
from experiments.console.text import digits, inline
from experiments.reporting.findings import Findings, counts
from experiments.reporting.page import TITLE, Picture
from experiments.reporting.paper_table import COUNTED as BITS
from experiments.reporting.paper_table import PaperTable, paper_tables, readable_tables
from experiments.reporting.paper_table import render as by_budget
from experiments.runs.bits import flat
from experiments.runs.identity import fingerprint
from experiments.runs.record import Record
from experiments.summary.counts import COUNTED, counted
from experiments.summary.rows import Row, Table, differing, has_difference, render
from experiments.summary.seeds import Group
from experiments.summary.state import told

KINDS = {  # label of a LaTeX table -> its title, and the families that share it; declared ones have their own
    "ppl": (r"perplexity $\downarrow$", ("ppl",)),
    "acc": (r"accuracy (\%) $\uparrow$", ("acc", "acc_norm")),
}

TEXT = (
    "`ppl/<text>@<window>` is perplexity, `acc/<task>` accuracy, `acc_norm/<task>` accuracy normalised by answer length"
)
IMAGES = "`acc/<images>@<number>` is top-1 accuracy"
COUNTING = (
    " zeros: of quantised runs the share of all weights that are 0. bits: per weight of the pruned matrices, codes,"
    " grids and masks (a bit for each weight, log2(C(m, n)) / m where exactly n of every m are kept)."
)


def markdown(findings: Findings, pictures: Sequence[Picture], missing: Sequence[str] = ()) -> str:
    """Methods by budget, the table with every metric, its notes, the figures, and which are `missing` for what."""
    named = "".join(f", `{name}/...` {title} ({better} is better)" for name, title, better in findings.declared)
    parts = [
        f"# {TITLE}",
        counts(record.status for record in findings.records),
        *(by_budget(readable_tables(tables, findings), markdown=True) for tables in paper_tables(findings).values()),
        f"{IMAGES if findings.over == 'images' else TEXT}{named}; ± is one standard error over the evaluation data. The"
        f" difference is pruned minus dense; its ± is over pairs of the same {findings.over}."
        " Sparsity is the realised share of removed weights." + (COUNTING if findings.table.quantised else ""),
        render(findings.table, markdown=True),
        *(f"![{picture.title}](figures/{picture.name}.png)\n\n{picture.caption}" for picture in pictures),
        f"Not drawn: {'; '.join(missing)}." if missing else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def spreadsheet(table: Table) -> str:
    """Every number as it stands in the runs' JSON; the runs without results have their status and error."""
    return sheet(
        [_line(row, table.quantised) for row in table.rows] + [_unfinished(record) for record in table.unfinished]
    )


def _line(row: Row, quantised: bool) -> dict[str, Any]:
    manifest, results = row.record.manifest, row.record.results
    line: dict[str, Any] = {"model": row.model, "method": row.method, "pattern": row.pattern}
    # A dense row may come from a pruned run: then its run, times and memory are not its own.
    own = row.method != "dense" or manifest["method"] == "dense"
    line |= {"asked": manifest["sparsity"] if own else None, "sparsity": row.sparsity, "status": row.record.status}
    line |= {
        "error": "",
        "identity": manifest["identity"] if own else "",
        "folder": str(row.record.folder) if own else "",
    }
    if own and quantised:
        line |= flat(results, manifest["config"])
    for metric, value in row.values.items():
        line |= {metric: value.value, f"{metric} stderr": value.error}
        line |= {f"{metric} dense": value.dense, f"{metric} difference": value.difference}
        line |= {f"{metric} difference stderr": value.difference_error}
        line |= {f"{metric} recovery": recovery(metric, value.value, value.dense)}
    for section in ("seconds", "saved", "given", "memory") if own else ():
        line |= {f"{section}/{what}": amount for what, amount in results.get(section, {}).items()}
    return line


def _unfinished(record: Record) -> dict[str, Any]:
    line = {key: record.manifest.get(key) for key in ("model", "method", "pattern", "identity")}
    asked = {"asked": record.manifest.get("sparsity"), "folder": str(record.folder)}
    status, why = told(record)
    return line | asked | {"status": status, "error": why}


def paper(findings: Findings) -> str:
    r"""LaTeX tables that need `\usepackage{booktabs}`: methods by budget for each model and metric, then all numbers.

    Those have a row for each group, one table for each model and kind of metric. Values are means with half widths of
    95 % intervals; the best are bold where they are better than all others by more than the noise, corrected for the
    number of comparisons.
    Comments say which code made the runs, when the newest ended, and what else a reader must know.
    """
    parts = ["\n".join(_comments(findings.table))]
    for tables in paper_tables(findings).values():
        parts += [_compact(table, number) for number, table in enumerate(readable_tables(tables, findings), 1)]
    for model, members in groupby(findings.groups, key=lambda group: group.model):
        rows = list(members)
        for kind, (_, families) in _kinds().items():
            known = [m for m in findings.metrics if m.partition("/")[0] in families and any(m in g.means for g in rows)]
            measured = [group for group in rows if group.means.keys() & set(known)]  # no dense row of a divergence
            if known:
                parts.append(_float(model, kind, measured, known, findings))
    return "\n\n".join(parts) + "\n"


def _kinds() -> dict[str, tuple[str, tuple[str, ...]]]:
    """All labels with title and families: a table for each main family that an evaluation declared."""
    arrow = {True: r"$\uparrow$", False: r"$\downarrow$"}
    declared = {name: family for name, family in KNOWN.items() if family.main and name not in EVERYWHERE}
    unit = lambda one: r" (\%)" if one.percent else ""
    title = lambda one: f"{escape(one.title)}{unit(one)} {arrow[one.higher]}"
    return KINDS | {name: (title(one), (name,)) for name, one in declared.items()}


def _comments(table: Table) -> Iterator[str]:
    runs = [row.record for row in table.rows]
    yield r"% needs \usepackage{booktabs}"
    if ended := max((record.manifest.get("finished") or "" for record in runs), default=""):
        yield f"% newest run of {inline(ended)}"
    yield from (f"% code: {inline(code)}" for code in sorted({record.code for record in runs}))
    yield from (f"% note: {inline(note)}" for note in table.notes)


def _compact(table: PaperTable, number: int) -> str:
    """A table environment of methods by budget; values alone, for all else is in the long table."""
    known = KNOWN[name_of(table.metric)]
    unit, arrow = r" (\%)" if known.percent else "", r"$\uparrow$" if known.higher else r"$\downarrow$"
    above = [*(("", 1) for _ in table.titles), *((escape(name), len(shares)) for name, shares in table.patterns)]
    header = [*map(str.title, table.titles), *(escape(share) for _, shares in table.patterns for share in shares)]
    dense = "--" if table.dense is None else f"${_math(table.metric, table.dense)}$"
    cells = lambda line: [_plain(table.metric, *value) for value in line]
    body = [[*map(escape, table.begin(name)), *cells(line)] for name, line in table.lines.items()]
    parts = (
        [[[*table.begin("dense"), spanning(dense, len(table.budgets))]], body]
        if has_difference(table.metric)
        else [body]
    )
    tabular = latex(header, parts, "lr", above)
    caption = (
        f"{escape(table.model)}: {escape(known.title)}{unit} {arrow}, {_title(table.metric)}, by method and budget"
    )
    caption += f"; bold: {table.means}" if r"\mathbf" in tabular else ""
    caption += "".join(f"; {escape(note)}" for note in table.notes)
    return _environment(caption, f"{_label(table.model)}-budgets-{number}", tabular)


def _plain(metric: str, value: float | None, bold: bool) -> str:
    if value is None:
        return "--"
    return rf"$\mathbf{{{_math(metric, value)}}}$" if bold else f"${_math(metric, value)}$"


def _environment(caption: str, label: str, tabular: str) -> str:
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}", rf"\label{{tab:{label}}}"]
    return "\n".join([*lines, tabular, r"\end{table}"])


def _float(model: str, kind: str, groups: list[Group], metrics: list[str], findings: Findings) -> str:
    """A table environment with caption and label; a rule before each pattern and sparsity."""
    several = any(len(group.rows) > 1 for group in groups)
    precise = any(group.precision for group in groups)
    header = ["Method", "Pattern", "Sparsity", *([name.title() for name in COUNTED] if precise else [])]
    header += [*(["Seeds"] if several else []), *map(_title, metrics)]
    key = lambda group: (not group.dense, group.pattern, None if group.sparsity is None else round(group.sparsity, 2))
    cells = lambda group: _words(group, several, precise) + _numbers(group, metrics, findings.bold)
    parts = [list(map(cells, part)) for _, part in groupby(groups, key=key)]
    caption = f"{escape(model)}, pruned and dense: {_kinds()[kind][0]}."
    caption += " $\\pm$: half width of the 95\\,\\% interval, over"
    caption += " the evaluation data and the seeds" if several else " the evaluation data"
    if any(metric.startswith("acc_norm/") for metric in metrics):
        caption += "; norm.: by the length of the answers"
    caption += f"; {BITS}" if precise else ""
    tabular = latex(header, parts, "llr")
    if r"\mathbf" in tabular:
        equals = "pattern, bits, grids and sparsity" if precise else "pattern and sparsity"
        caption += f"; bold: the best of its {equals}, and significantly better than each other one there"
        over = "images" if findings.over == "images" else "windows or answers"
        caption += f" (over pairs of the same {over}, corrected for the number of comparisons)"
    unlike = differing(row for group in groups for row in group.rows)
    caption += "".join(f"; not alike in all rows: {escape(line)}" for line in unlike)
    return _environment(caption, f"{_label(model)}-{kind}", tabular)


def _label(model: str) -> str:
    """A name in letters that a label takes; six digits of its hash follow where it has others, for no two are one."""
    plain = re.sub("[^A-Za-z0-9.-]+", "-", model)
    return plain if plain == model else f"{plain}-{fingerprint(model)[:6]}"


def _title(metric: str) -> str:
    """A column's title below that of its kind."""
    family, _, what = metric.partition("/")
    return escape(what) + (" (norm.)" if family == "acc_norm" else "")


def _words(group: Group, several: bool, precise: bool) -> list[str]:
    share = "" if group.sparsity is None or group.dense else f"{group.sparsity:.3f}"
    precision = counted(group) if precise else []
    return [
        escape(group.method),
        escape(group.pattern),
        share,
        *precision,
        *([str(len(group.rows))] if several else []),
    ]


def _numbers(group: Group, metrics: list[str], bold: set[tuple[Path, str]]) -> list[str]:
    """Means and their intervals in math; empty where there are none."""
    cells = []
    for metric in metrics:
        mean = group.means.get(metric)
        value = "" if mean is None else _math(metric, mean.value)
        if not group.dense and (group.rows[0].record.folder, metric) in bold:
            value = rf"\mathbf{{{value}}}"
        if mean is not None and mean.half is not None:
            value += rf" \pm {_math(metric, mean.half)}"
        cells.append(f"${value}$" if value else "")
    return cells


def _math(metric: str, value: float) -> str:
    """A metric's digits as LaTeX math."""
    if not math.isfinite(value):
        return r"\mathrm{NaN}" if math.isnan(value) else r"\infty"
    return re.sub(r"e\+?(-?)0*(\d+)", r" \\times 10^{\1\2}", digits(metric, value))
