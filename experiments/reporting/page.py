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

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from experiments.console.text import digits, fraction, visible
from experiments.reporting import best, details, sizes
from experiments.reporting.findings import Bold, Findings, counts
from experiments.runs.record import Record
from experiments.summary.rows import column_title
from experiments.summary.seeds import Group, alone
from experiments.summary.state import look

ASSETS = Path(__file__).parent / "assets"
WIDTH = 1280  # pixels of a figure
TITLE = "Pruned models beside the dense ones"


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn, as figures/<name>.svg, .png and .pdf beside the page."""

    name: str
    title: str
    caption: str


def page(findings: Findings, pictures: Sequence[Picture], to: Path) -> str:
    """The whole page, to be written into the folder `to`. The same runs give the same page."""
    records, table = findings.records, findings.table
    ids = details.anchors(records)
    unfinished = [_unfinished(record, ids) for record in table.unfinished]
    statuses = ["done"] * (len(records) - len(unfinished)) + [one["status"] for one in unfinished]
    notes, sized = [sizes.missing(records), sizes.SERVING], sizes.rows(table)
    return _template("report").render(
        title=TITLE,
        **{kind: Markup((ASSETS / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")},
        counts=counts(statuses),
        facts=findings.facts(),
        best=_grid(best.HEADER, best.rows(table, findings.contests), best.ALIGN),
        notes=table.notes,
        rules=best.RULES,
        metrics=list(map(column_title, findings.metrics)),
        rows=_results(findings, ids),
        figures=[_figure(picture, to) for picture in pictures],
        sizes=_grid(sizes.HEADER, sized, sizes.ALIGN),
        size_notes=[note for note in ([sizes.FORMULAS, *notes] if sized else notes) if note],
        runs=_runs(findings.groups, ids),
        details=_details(records, ids, to),
        unfinished=unfinished,
    )


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,  # whatever the file is called
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["fraction"] = fraction
    return environment.get_template(f"{name}.html.j2")


def _grid(header: Sequence[str], body: list[list[str]], align: str) -> dict[str, Any]:
    """A table of the page; columns are aligned as in `console.grid`, and those of numbers (r) sorted as numbers."""
    return {"header": header, "body": body, "align": align.ljust(len(header), align[-1])}


def _results(findings: Findings, ids: dict[Path, str]) -> list[dict[str, Any]]:
    """A row for each group, with its members below it where it has several."""
    rows = []
    for group in findings.groups:
        members = alone(group) if len(group.rows) > 1 else []
        row = _row(group, findings.metrics, findings.bold, ids)
        rows.append(row | {"members": [_row(one, findings.metrics, set(), ids) for one in members]})
    return rows


def _row(group: Group, metrics: list[str], bold: Bold, ids: dict[Path, str]) -> dict[str, Any]:
    first = group.rows[0].record.folder
    return {
        "group": group,
        "count": len(group.rows) if _own(group) else None,
        "run": ids[first] if len(group.rows) == 1 and _own(group) else "",
        "cells": [cell for metric in metrics for cell in _cells(group, metric, (first, metric) in bold)],
    }


def _own(group: Group) -> bool:
    """Whether the row's run is its own: the dense model may have been measured by a run that prunes."""
    return not group.dense or group.rows[0].record.manifest["method"] == "dense"


def _cells(group: Group, metric: str, bold: bool) -> list[dict[str, Any]]:
    """A metric and its difference to dense; a mean over some of the runs alone says over how many."""
    mean = group.means.get(metric)
    if mean is None:
        return [_cell(metric, None, None)] * 2
    few = f"{mean.count} of {len(group.rows)}" if mean.count < len(group.rows) else ""
    value = _cell(metric, mean.value, mean.half) | {"bold": bold, "few": few}
    difference = _cell(metric, mean.difference, mean.difference_half, "+")
    return [value, difference | {"bold": best.moved(group, metric)}]


def _cell(metric: str, value: float | None, half: float | None, sign: str = "") -> dict[str, Any]:
    """Text, half width, and the number to sort by as scripts write it."""
    number = None if value is None or isnan(value) else str(value).replace("inf", "Infinity")
    cell = {"text": digits(metric, value, sign), "half": digits(metric, half), "value": number}
    return cell | {"bold": False, "few": ""}


def _figure(picture: Picture, to: Path) -> dict[str, Any]:
    """As an image: its names cannot clash with another figure's, and no script in it would run."""
    content = (to / "figures" / f"{picture.name}.svg").read_bytes()
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content)
    height = round(WIDTH * float(box[2]) / float(box[1])) if box else None  # keeps its place while it is not drawn yet
    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return {**vars(picture), "source": source, "width": WIDTH, "height": height}


def _runs(groups: Iterable[Group], ids: dict[Path, str]) -> dict[str, list[dict[str, Any]]]:
    """Every finished run by model and group; the rows lead here and back."""
    models: dict[str, list[dict[str, Any]]] = {}
    for group in filter(_own, groups):
        parts = [group.method, group.pattern, "" if group.dense else fraction(group.sparsity)]
        members = [_run(one.rows[0].record, ids) | {"seed": one.method} for one in alone(group)]
        entry = {"title": ", ".join(filter(None, parts)), "members": members}
        models.setdefault(group.model, []).append(entry)
    return models


def _run(record: Record, ids: dict[Path, str]) -> dict[str, Any]:
    warnings = len(details.warnings(record))
    return {"anchor": ids[record.folder], "title": record.folder.name, "seed": "", "warnings": warnings}


def _details(records: Iterable[Record], ids: dict[Path, str], to: Path) -> str:
    """What each run says of itself, as HTML by its id: deflated and in base64, for thousands of runs say much alike."""
    template, texts = _template("run"), {}
    for record in records:
        if record.status != "unreadable":
            back = f"row-{ids[record.folder]}" if record.status == "done" else ""
            texts[ids[record.folder]] = visible(template.render(back=back, **details.describe(record, to)))
    return base64.b64encode(zlib.compress(json.dumps(texts).encode())).decode()


def _unfinished(record: Record, ids: dict[Path, str]) -> dict[str, Any]:
    """Why a run has no row: what its folder says now, for a run that was killed cannot say so itself."""
    if record.status == "unreadable":
        return {"folder": record.folder, "status": record.status, "reason": record.error, "run": None}
    state = look(record.folder)
    reason = state.detail or record.error
    return {"folder": record.folder, "status": state.status, "reason": reason, "run": _run(record, ids)}
