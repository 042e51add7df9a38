"""One report over all runs found on disk: the table on the terminal, as Markdown and CSV, and the picture.

    python -m experiments.report OUTPUTS... [--to FOLDER]

Only what the runs have written is read; nothing is computed again.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.archive import Record, read
from experiments.hints import one_line
from experiments.plot import sparsity_perplexity
from experiments.table import Row, Table, arrange, render

MARKDOWN, CSV, PICTURE = "report.md", "report.csv", "sparsity-perplexity.png"


def report(folders: Iterable[Path | str], to: Path | str) -> str:
    """Writes report.md, report.csv and sparsity-perplexity.png into `to`; returns the table and what was written.

    Raises FileNotFoundError for a folder that does not exist, ValueError when there is no run below any of them.
    """
    folders, to = [Path(folder) for folder in folders], Path(to)
    records = read(folders)
    if not records:
        raise ValueError(f"no runs in {', '.join(map(str, folders))}: expected folders with a manifest.json below it")
    table = arrange(records)
    to.mkdir(parents=True, exist_ok=True)
    pictured = sparsity_perplexity(records, to / PICTURE)
    if not pictured:
        (to / PICTURE).unlink(missing_ok=True)  # an earlier report's picture would not belong to this table
    _write(to / MARKDOWN, _markdown(records, table, pictured))
    _write(to / CSV, _csv(table))
    written = [to / MARKDOWN, to / CSV, *([to / PICTURE] if pictured else [])]
    return f"{render(table)}\n\nwrote {', '.join(map(str, written))}"


def _markdown(records: list[Record], table: Table, pictured: bool) -> str:
    counts = {
        status: sum(record.status == status for record in records)
        for status in ("done", "failed", "running", "unreadable")
    }
    parts = [
        "# Pruned models beside the dense ones",
        f"{len(records)} runs: {', '.join(f'{count} {status}' for status, count in counts.items() if count)}.",
        "`ppl/<text>@<window>` is perplexity, `acc/<task>` accuracy, `acc_norm/<task>` accuracy normalised by answer"
        " length; ± is one standard error over the evaluation data. The"
        " difference is pruned minus dense; its ± is over pairs of the same windows."
        " Sparsity is the realised share of removed weights.",
        f"![Perplexity against sparsity]({PICTURE})" * pictured,
        render(table, markdown=True),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _csv(table: Table) -> str:
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
    own = (
        row.method == manifest["method"]
    )  # a dense row may come from a pruned run: then its run, times and memory are not its own
    line |= {"asked": manifest["sparsity"] if own else None, "sparsity": row.sparsity, "status": row.record.status}
    line |= {
        "error": "",
        "identity": manifest["identity"] if own else "",
        "folder": str(row.record.folder) if own else "",
    }
    for metric, value in row.values.items():
        line |= {metric: value.value, f"{metric} stderr": value.error}
        line |= {f"{metric} dense": value.dense, f"{metric} difference": value.difference}
    for section in ("seconds", "memory") if own else ():
        line |= {f"{section}/{what}": amount for what, amount in results.get(section, {}).items()}
    return line


def _unfinished(record: Record) -> dict[str, Any]:
    line = {key: record.manifest.get(key) for key in ("model", "method", "pattern", "identity")}
    asked = {"asked": record.manifest.get("sparsity"), "folder": str(record.folder)}
    return line | asked | {"status": record.status, "error": record.error}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Print one table over all runs found on disk, dense models first, and write it as Markdown and CSV"
        " with the sparsity-perplexity plot. Failed and unfinished runs are listed below it with their reason.",
        epilog="example: python -m experiments.report outputs --to outputs/summary",
    )
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folders with runs, at any depth")
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where the report goes; by default the first OUTPUTS folder"
    )
    asked = parser.parse_args(arguments)
    try:
        print(report(asked.outputs, asked.to or asked.outputs[0]))
    except (OSError, ValueError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
