"""The report as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from experiments.reporting.findings import Findings
from experiments.reporting.page import Picture
from experiments.reporting.summary import counts
from experiments.runs.record import Record
from experiments.summary.rows import Row, Table, render


def markdown(found: Findings, pictures: Sequence[Picture]) -> str:
    """The table with every metric, its notes, and the figures."""
    parts = [
        "# Pruned models beside the dense ones",
        counts(record.status for record in found.records),
        "`ppl/<text>@<window>` is perplexity, `acc/<task>` accuracy, `acc_norm/<task>` accuracy normalised by answer"
        " length; ± is one standard error over the evaluation data. The"
        " difference is pruned minus dense; its ± is over pairs of the same windows."
        " Sparsity is the realised share of removed weights.",
        render(found.table, markdown=True),
        *(f"![{picture.title}]({picture.png})\n\n{picture.caption}" for picture in pictures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sheet(table: Table) -> str:
    """Every number as it stands in the runs' JSON; the runs without results have their status and error."""
    lines = [_line(row) for row in table.rows] + [_unfinished(record) for record in table.unfinished]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(row: Row) -> dict[str, Any]:
    manifest, results = row.record.manifest, row.record.results
    line: dict[str, Any] = {"model": row.model, "method": row.method, "pattern": row.pattern}
    # A dense row may come from a pruned run: then its run, times and memory are not its own.
    own = row.method != "dense" or manifest["method"] == "dense"
    line |= {"asked": manifest["sparsity"] if own else None, "sparsity": row.sparsity, "status": row.record.status}
    line |= {"error": "", "identity": manifest["identity"] * own, "folder": str(row.record.folder) * own}
    for metric, value in row.values.items():
        line |= {metric: value.value, f"{metric} stderr": value.error}
        line |= {f"{metric} dense": value.dense, f"{metric} difference": value.difference}
        line |= {f"{metric} difference stderr": value.difference_error}
    for section in ("seconds", "memory") if own else ():
        line |= {f"{section}/{what}": amount for what, amount in results.get(section, {}).items()}
    return line


def _unfinished(record: Record) -> dict[str, Any]:
    line = {key: record.manifest.get(key) for key in ("model", "method", "pattern", "identity")}
    asked = {"asked": record.manifest.get("sparsity"), "folder": str(record.folder)}
    return line | asked | {"status": record.status, "error": record.error}
