"""The report as one HTML page: everything in it, nothing fetched, every value escaped."""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from experiments.console.text import digits, fraction, visible
from experiments.reporting import details, sizes
from experiments.reporting.examples import examples
from experiments.reporting.findings import Findings, counts
from experiments.reporting.paper_table import PaperTable, bold, main_tables, paper_tables
from experiments.runs.record import Record
from experiments.summary.counts import COUNTED, counted
from experiments.summary.rows import column_title, has_difference, remarks
from experiments.summary.seeds import Group, alone
from experiments.summary.state import told

ASSETS = Path(__file__).parent / "assets"
TITLE = "Pruned models beside the dense ones"


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn, as figures/<name>.svg, .png and .pdf beside the page."""

    name: str
    title: str
    caption: str


def page(findings: Findings, pictures: Sequence[Picture], to: Path, missing: Sequence[str] = ()) -> str:
    """The whole page, to be written into the folder `to`. The same runs give the same page.

    missing: figures that have nothing to show, each with what it needs.
    """
    records = findings.records
    ids = details.anchors(records)
    unfinished = [(record, *told(record)) for record in findings.table.unfinished]
    statuses = ["done"] * (len(records) - len(unfinished)) + [status for _, status, _ in unfinished]
    return _template("report").render(
        title=TITLE,
        **{kind: Markup((ASSETS / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")},
        counts=counts(statuses),
        findings=findings,
        tables=[_by_metric(tables) for tables in paper_tables(findings).values()],
        bold=bold(findings),
        models={model: list(groups) for model, groups in groupby(filter(_own, findings.groups), lambda one: one.model)},
        ids=ids,
        figures=pictures,
        missing=missing,
        sources={picture.name: _source(picture, to) for picture in pictures},
        size_header=sizes.HEADER,
        sizes=sizes.rows(findings.table),
        bits_header=sizes.BITS,
        bits=sizes.bits(findings.table),
        examples=examples(findings.groups),
        details=_details(records, ids),
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
    shown = {"column_title": column_title, "digits": digits, "fraction": fraction, "remarks": remarks}
    environment.globals |= shown | {"alone": alone, "own": _own, "has_difference": has_difference}
    environment.globals |= {"counted": counted, "counted_header": COUNTED}
    return environment.get_template(f"{name}.html.j2")


def _by_metric(tables: list[PaperTable]) -> tuple[list[PaperTable], list[PaperTable]]:
    """A model's tables of its first metric, and those of the others."""
    first = main_tables(tables)
    return first, tables[len(first) :]


def _own(group: Group) -> bool:
    """Whether a group's runs are its own: the dense model may have been measured by a run that prunes."""
    return not group.dense or group.records[0].manifest["method"] == "dense"


def _source(picture: Picture, to: Path) -> str:
    """The picture as an image: its names cannot clash with another figure's, and no script in it would run."""
    content = (to / "figures" / f"{picture.name}.svg").read_bytes()
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"


def _details(records: Iterable[Record], ids: dict[Path, str]) -> str:
    """What each run says of itself, as HTML by its id: deflated and in base64, for thousands of runs say much alike."""
    template, texts = _template("run"), {}
    for record in records:
        if record.status != "unreadable":
            back = f"row-{ids[record.folder]}" if record.status == "done" else ""
            texts[ids[record.folder]] = visible(template.render(back=back, **details.describe(record)))
    return base64.b64encode(zlib.compress(json.dumps(texts).encode())).decode()
