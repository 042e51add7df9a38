"""A report over all runs found on disk: one HTML page with tables, figures and every run, Markdown, CSV and LaTeX.

    python -m experiments.report OUTPUTS... [--model NAME] [--sweep NAME] [--calibration NAME] [--method NAME]
        [--pattern NAME] [--metric NAME] [--to FOLDER] [--html] [--markdown] [--csv] [--latex] [--wandb]

Only what the runs have written is read; nothing is computed again.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.console.arguments import Arguments
from experiments.console.errors import ending
from experiments.console.text import plural, visible
from experiments.figures.catalogue import FIGURES
from experiments.files.disk import file_name, replacing
from experiments.reporting.findings import Findings
from experiments.reporting.formats import markdown, paper, spreadsheet
from experiments.reporting.page import Picture, page
from experiments.reporting.paper_table import first_tables
from experiments.reporting.selection import METRIC, OPTIONS, part
from experiments.runs.record import Record, read
from experiments.summary.rows import render
from experiments.summary.seeds import Group

FORMATS = {"html": "report.html", "markdown": "report.md", "csv": "report.csv", "latex": "report.tex"}
PICTURED = {"html", "markdown"}  # formats that show the figures
ENDINGS = ("png", "pdf", "svg")
PLACE = "where it goes; by default the first OUTPUTS folder, or one in it of its own for a part of the runs or metrics"


def find(folders: Sequence[Path]) -> list[Record]:
    """The runs; FileNotFoundError for a folder that does not exist, ValueError when there is no run in any of them."""
    if not (records := read(folders)):
        raise ValueError(f"no runs in {', '.join(map(str, folders))}: expected folders with a manifest.json below it")
    return records


def write(findings: Findings, to: Path, formats: Iterable[str] = tuple(FORMATS)) -> list[Path]:
    """Writes the report into the folder `to` in these formats, with the figures if one shows them; returns the files.

    The same runs give the same bytes.
    """
    pictures = draw(findings.groups, to) if PICTURED & set(formats) else []
    drawn = {picture.name for picture in pictures}
    lacking = [figure for figure in FIGURES if figure.name not in drawn and figure.suits(findings.groups)]
    missing = [f"{figure.title} (needs {figure.needs})" for figure in lacking]
    makers = {
        "html": lambda: page(findings, pictures, to, missing),
        "markdown": lambda: markdown(findings, pictures, missing),
        "csv": lambda: spreadsheet(findings.table),
        "latex": lambda: paper(findings),
    }
    written = []
    for name in formats:
        with replacing(to / FORMATS[name]) as temporary:
            temporary.write_text(visible(makers[name]()), encoding="utf-8")
        written.append(to / FORMATS[name])
    return written + [to / "figures" / f"{picture.name}.{ending}" for picture in pictures for ending in ENDINGS]


def draw(groups: Sequence[Group], to: Path) -> list[Picture]:
    """Every figure that has something to show, in <to>/figures; those of an earlier report that do not are removed."""
    pictures = []
    for figure in FIGURES:
        place = to / "figures" / figure.name
        if figure.draw(groups, place):
            pictures.append(Picture(figure.name, figure.title, figure.caption))
        else:
            for ending in ENDINGS:
                place.with_name(f"{place.name}.{ending}").unlink(missing_ok=True)
    return pictures


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    formats = [name for name in FORMATS if getattr(options, name)] or list(FORMATS)
    wanted = {name: getattr(options, name) for name in (*OPTIONS, "metric") if getattr(options, name)}
    findings = part(find(options.outputs), wanted)
    name = "-".join(["report", *(f"{option}={','.join(words)}" for option, words in wanted.items())])
    to = options.to or options.outputs[0] / (file_name(name) if wanted else "")
    files = write(findings, to, formats)
    written = [str(to / FORMATS[name]) for name in formats]
    if figures := (len(files) - len(formats)) // len(ENDINGS):
        written.append(f"{plural(figures, 'figure')} as {', '.join(ENDINGS)} in {to / 'figures'}")
    print("\n\n".join([*first_tables(findings), render(findings.table), f"wrote {', '.join(written)}"]))
    if options.wandb:
        from experiments.trackers.upload import upload  # noqa: PLC0415 - wandb takes seconds

        print(upload(files, to.resolve().name))
    return 0


def _parser() -> Arguments:
    parser = Arguments(
        prog="python -m experiments.report",
        description="Report on all runs found on disk: a table on the terminal, dense models first, and as files"
        " one HTML page with sortable results, figures and every run, the table as Markdown, CSV and LaTeX, and each"
        " figure as PNG, PDF and SVG. Failed and unfinished runs are listed with their reason.",
        epilog="example: python -m experiments.report outputs --to outputs/summary",
    )
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folders with runs, at any depth")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=PLACE)
    for name, what in (OPTIONS | {"metric": METRIC}).items():
        names = {"action": "extend", "type": _names, "default": [], "metavar": "NAME"}
        parser.add_argument(f"--{name}", help=f"only these {what}; several with commas, or again", **names)
    for name, file in FORMATS.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"write {file}; without any of these, all of them")
    parser.add_argument("--wandb", action="store_true", help="upload what was written to W&B as an artifact")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
