"""Fills a table of experiments/tables with runs, prints it beside what is published, and writes it.

    python -m experiments.table besa_wikitext2 models=[llama2_7b] seeds=3
    python -m experiments.table besa_wikitext2 models=[demo] --dry-run

A table is a YAML; its runs lie in its outputs as those of experiments.run do, and finished ones are read.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.composing.plugins import with_plugins
from experiments.console.arguments import Arguments
from experiments.console.errors import ending, nearest
from experiments.console.text import visible
from experiments.files.disk import replacing
from experiments.reproduction import cells, methods, parity, published
from experiments.reproduction.cells import NOT_RUN
from experiments.reproduction.request import narrow, part_name, read

TABLES = Path(__file__).parent / "tables"
KINDS = {"methods": methods, "parity": parity, "published": published}


def parser() -> Arguments:
    """The command line."""
    line = Arguments(
        prog="python -m experiments.table",
        description="Run what is missing of a table as one multirun, print it, and write it as Markdown, CSV and LaTeX."
        " models=, methods=, budgets=, values= and seeds= choose a part; outputs=, device= and what else the YAML has"
        " at its root are set the same way; everything else is a setting of experiments.run for every cell, as"
        " data.evaluation_path=FILE or hydra/launcher=joblib. The files of a part are named after it.",
        epilog="example: python -m experiments.table besa_wikitext2 models=[llama2_7b] seeds=3",
    )
    line.add_argument("table", nargs="?", help="the name of a YAML in experiments/tables; --list shows all")
    line.add_argument("words", nargs="*", metavar="NAME=VALUE", help="models=[demo] seeds=3 outputs=FOLDER ...")
    line.add_argument("--list", action="store_true", help="print the names and titles of all tables")
    line.add_argument("--dry-run", action="store_true", help="print the runs, what they need and take; run nothing")
    line.add_argument("--finished", action="store_true", help="run nothing: fill the table with the runs that are done")
    line.add_argument("--config-dir", type=Path, metavar="FOLDER", help="YAML of your own, as for experiments.run")
    line.add_argument("--to", type=Path, metavar="FOLDER", help="where the table goes (default: <outputs>/tables)")
    return line


@ending(others=(YAMLError, OmegaConfBaseException))
def main(arguments: Sequence[str] | None = None, tables: Path = TABLES) -> int:
    """The command; 0 if all that was to run and whose model is at hand is done, 1 if a run failed, 2 for a mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_intermixed_args(words)
    if options.list:
        print(listing(tables))
        return 0
    return fill(file_of(options.table, tables), options, shlex.join(["python", "-m", "experiments.table", *words]))


def listing(tables: Path) -> str:
    """A line for each table: name and title."""
    files = sorted(tables.glob("*.yaml"))
    wide = max((len(file.stem) for file in files), default=0)
    return "\n".join(f"{file.stem:{wide}}  {OmegaConf.load(file).title}" for file in files)


def file_of(name: str | None, tables: Path) -> Path:
    """The YAML of a table; ValueError listing all for a name that none has."""
    known = sorted(file.stem for file in tables.glob("*.yaml"))
    if name not in known:
        wrong = f"no table {name}{nearest(name, known)}" if name else "expected the name of a table"
        raise ValueError(f"{wrong}; there are {', '.join(known)} (--list shows their titles)")
    return tables / f"{name}.yaml"


def fill(file: Path, options: argparse.Namespace, typed: str) -> int:
    """Fill, print and write the part of one table that is asked for; the exit code."""
    request = read(options.words, cells.plain(file))
    if options.config_dir:
        plugins = with_plugins(request.overrides, str(options.config_dir.absolute()))
        request = replace(request, overrides=tuple(plugins))
    whole = cells.load(file, request.settings)
    table = narrow(whole, request)
    kind = KINDS[table["kind"]]
    from experiments.reproduction import filling  # noqa: PLC0415 - torch takes seconds that a list or a mistake need not wait for

    jobs = filling.compose(kind.cells(table), request.overrides, file.stem)
    if options.dry_run:
        print(filling.planned(jobs))
        return 0
    outcomes = filling.read(jobs) if options.finished else filling.fill(jobs, typed)
    name = part_name(whole, table, request)
    texts = {f"{name}{suffix}": text for suffix, text in kind.files(table, outcomes).items()}
    folder = options.to or Path(table["outputs"], "tables")
    for written, text in texts.items():
        with replacing(folder / written) as temporary:
            temporary.write_text(visible(text), encoding="utf-8")
    print(f"{texts[f'{name}.md']}\nwrote {', '.join(str(folder / written) for written in texts)}")
    idle = {NOT_RUN} if options.finished else set()
    return 1 if any(outcome.error not in {"", *idle} and not outcome.away for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
