"""The report as one HTML page: everything in it, nothing fetched, every value escaped."""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isnan
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.console.text import digits, visible
from experiments.reporting import details, sizes, summary
from experiments.reporting.findings import Bold, Findings
from experiments.reporting.significance import RULES, moved
from experiments.runs.record import Record
from experiments.summary import seeds
from experiments.summary.rows import Table, column_title
from experiments.summary.seeds import Group
from experiments.summary.state import look

ASSETS = Path(__file__).parent / "assets"
WIDTH = 1280  # pixels of a figure
TITLE = "Pruned models beside the dense ones"


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn: its SVG, and its PNG and PDF as seen from the page."""

    name: str
    title: str
    caption: str
    svg: Path
    png: str
    pdf: str


def page(found: Findings, pictures: Sequence[Picture], to: Path) -> str:
    """The whole page, to be written into the folder `to`. The same runs give the same page."""
    records, table, groups = found.records, found.table, found.groups
    ids = details.anchors(records)
    unfinished = [_unfinished(record, ids) for record in table.unfinished]
    statuses = ["done"] * (len(records) - len(unfinished)) + [one["status"] for one in unfinished]
    return _template("report").render(
        title=TITLE,
        **{kind: Markup((ASSETS / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")},
        counts=summary.counts(statuses),
        facts=summary.facts(records, groups),
        best=summary.best(table, found.contests),
        notes=table.notes,
        rules=RULES,
        results=_results(found, ids),
        figures=[_figure(picture) for picture in pictures],
        sizes=_sizes(records, table),
        runs=_runs(groups, ids),
        details=_details(records, ids, to),
        unfinished=unfinished,
    )


@cache
def _template(name: str) -> Any:
    loader = FileSystemLoader(ASSETS)
    found = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )  # the escaping does not ask what the file is called
    return found.get_template(f"{name}.html.j2")


def _results(found: Findings, ids: dict[Path, str]) -> dict[str, Any]:
    """The columns, and a row for each group with its members below it where it has several."""
    rows = []
    for group in found.groups:
        several = len(group.rows) > 1
        members = [_row(one, found.metrics, set(), ids) for one in seeds.alone(group)] if several else []
        rows.append(_row(group, found.metrics, found.bold, ids) | {"members": members})
    return {"metrics": [column_title(metric) for metric in found.metrics], "rows": rows}


def _row(group: Group, columns: list[str], bold: Bold, ids: dict[Path, str]) -> dict[str, Any]:
    first = group.rows[0].record.folder
    place = ids[first] if len(group.rows) == 1 and _own(group) else ""
    return {
        "model": group.model,
        "method": group.method,
        "pattern": group.pattern,
        "sparsity": group.sparsity,
        "count": len(group.rows) if _own(group) else None,
        "dense": group.dense,
        "href": place,
        "id": place and f"row-{place}",
        "cells": [cell for metric in columns for cell in _cells(group, metric, (first, metric) in bold)],
    }


def _own(group: Group) -> bool:
    """Whether the row's run is its own: the dense model may have been measured by a run that prunes."""
    return not group.dense or group.rows[0].record.manifest["method"] == "dense"


def _cells(group: Group, metric: str, bold: bool) -> list[dict[str, Any]]:
    """A value and its difference to dense: text, half width, number to sort by, whether it is bold."""
    mean = group.means.get(metric)
    if mean is None:
        return [_cell("", None, None, False)] * 2
    few = f"{mean.count} of {len(group.rows)}" if mean.count < len(group.rows) else ""
    value = _cell(digits(metric, mean.value), _half(metric, mean.half), mean.value, bold) | {"few": few}
    difference = digits(metric, mean.difference, "+"), _half(metric, mean.difference_half), mean.difference
    return [value, _cell(*difference, moved(group, metric))]


def _half(metric: str, half: float | None) -> str | None:
    return None if half is None else digits(metric, half)


def _cell(text: str, half: str | None, value: float | None, bold: bool) -> dict[str, Any]:
    known = None if value is None or isnan(value) else str(value).replace("inf", "Infinity")
    return {"text": text, "half": half, "value": known, "bold": bold, "few": ""}


def _figure(picture: Picture) -> dict[str, Any]:
    """As an image: its names cannot clash with another figure's, and no script in it would run."""
    content = picture.svg.read_bytes()
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content)
    height = round(WIDTH * float(box[2]) / float(box[1])) if box else None  # keeps its place while it is not drawn yet
    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return {**vars(picture), "source": source, "width": WIDTH, "height": height}


def _grid(header: Sequence[str], body: Iterable[Sequence[str]]) -> summary.Grid:
    """Cells of text as a table of the page: a column of numbers is sorted as such."""
    cells = [[(text, _number(text)) for text in line] for line in body]
    numeric = [all(line[k][1] is not None or not line[k][0] for line in cells) for k in range(len(header))]
    return {"header": list(zip(header, numeric, strict=True)), "body": cells}


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _sizes(records: Sequence[Record], table: Table) -> dict[str, Any]:
    header, body = sizes.rows(table)
    notes = [sizes.missing(records), sizes.FORMULAS if body else "", sizes.SERVING]
    return {"table": _grid(header, body), "notes": list(filter(None, notes))}


def _runs(groups: Iterable[Group], ids: dict[Path, str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every finished run by model and group; the rows lead here and back."""
    models: dict[str, list[dict[str, Any]]] = {}
    for group in filter(_own, groups):
        title = ", ".join(part for part in (group.method, group.pattern) if part)
        title += "" if group.dense or group.sparsity is None else f", {group.sparsity:.4f}"
        members = [_run(one.rows[0].record, ids) | {"seed": one.method} for one in seeds.alone(group)]
        models.setdefault(group.model, []).append({"title": title, "members": members})
    return list(models.items())


def _run(record: Record, ids: dict[Path, str]) -> dict[str, Any]:
    warnings = len(details.warnings(record))
    return {"anchor": ids[record.folder], "title": record.folder.name, "seed": "", "warnings": warnings}


def _details(records: Iterable[Record], ids: dict[Path, str], to: Path) -> str:
    """What each run says of itself, as HTML by its id: deflated and in base64, for thousands of runs say much alike."""
    template, told = _template("run"), {}
    for record in records:
        if record.status != "unreadable":
            back = f"row-{ids[record.folder]}" if record.status == "done" else ""
            told[ids[record.folder]] = visible(template.render(back=back, **details.describe(record, to)))
    return base64.b64encode(zlib.compress(json.dumps(told).encode())).decode()


def _unfinished(record: Record, ids: dict[Path, str]) -> dict[str, Any]:
    """Why a run has no row: what its folder says now, for a run that was killed cannot say so itself."""
    state = look(record.folder)
    status, reason = (record.status, record.error) if record.status == "unreadable" else (state.status, state.said)
    shown = _run(record, ids) if record.status != "unreadable" else None
    return {"folder": str(record.folder), "status": status, "reason": reason or record.error, "run": shown}
