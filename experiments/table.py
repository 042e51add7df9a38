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
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.console.errors import ending, nearest
from experiments.console.text import visible
from experiments.files.disk import replacing
from experiments.reproduction import cells, filling, methods, order, parity, published, standin
from experiments.reproduction.asked import Asked, read
from experiments.reproduction.dry import planned

TABLES = Path(__file__).parent / "tables"
KINDS: dict[str, Any] = {"methods": methods, "order": order, "parity": parity, "published": published}
OURS = ("order", "parity")  # written beside their YAML, whole, whatever part is run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.table",
        description="Run what is missing of a table as one multirun, print it, and write it as Markdown, CSV and LaTeX."
        " models=, methods=, budgets=, values= and seeds= choose a part; outputs=, device= and what else the YAML has"
        " at its root are set the same way; everything else is a setting of experiments.run for every cell, as"
        " data.evaluation_path=FILE or hydra/launcher=joblib.",
        epilog="example: python -m experiments.table besa_wikitext2 models=[llama2_7b] seeds=3",
    )
    found.add_argument("table", nargs="?", help="the name of a YAML in experiments/tables; --list shows all")
    found.add_argument("words", nargs="*", metavar="NAME=VALUE", help="models=[demo] seeds=3 outputs=FOLDER ...")
    found.add_argument("--list", action="store_true", help="print the names and titles of all tables")
    found.add_argument("--dry-run", action="store_true", help="print the runs, what they need and take; run nothing")
    found.add_argument("--to", type=Path, metavar="FOLDER", help="where the table goes (default: <outputs>/tables)")
    return found


@ending(others=(YAMLError, OmegaConfBaseException))
def main(arguments: Sequence[str] | None = None, tables: Path = TABLES) -> int:
    """The command; 0 if all that was to run and whose model is at hand is done, 1 if a run failed, 2 for a mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser().parse_intermixed_args(words)
    if asked.list:
        print(listing(tables))
        return 0
    typed = shlex.join(["python", "-m", "experiments.table", *words])
    return work(file_of(asked.table, tables), asked, typed)


def listing(tables: Path) -> str:
    """A line for each table: name and title."""
    files = sorted(tables.glob("*.yaml"))
    wide = max((len(file.stem) for file in files), default=0)
    return "\n".join(f"{file.stem:{wide}}  {OmegaConf.load(file).title}" for file in files)


def file_of(name: str | None, tables: Path) -> Path:
    """The YAML of a table; ValueError listing all for a name that none has."""
    known = sorted(file.stem for file in tables.glob("*.yaml"))
    if name not in known:
        said = f"no table {name}{nearest(name, known)}" if name else "expected the name of a table"
        raise ValueError(f"{said}; there are {', '.join(known)} (--list shows their titles)")
    return tables / f"{name}.yaml"


def work(file: Path, asked: argparse.Namespace, typed: str) -> int:
    """Fill, print and write one table; the exit code."""
    part = read(asked.words, cells.plain(file))
    table = cells.load(file, part.settings)
    kind = KINDS[table["kind"]]
    ours = table["kind"] in OURS
    labels = tuple(cells.named(table, part.models))
    table = table | {"asked": list(part.overrides)} if ours else standin.narrow(table, part)
    every = kind.cells(table)
    wanted = cells.chosen(every, replace(part, models=labels) if ours else Asked())
    jobs = filling.compose(every, file.stem)
    if asked.dry_run:
        print(planned({cell: jobs[cell] for cell in wanted}))
        return 0
    changed = filling.changed(jobs, kind.cells(table | {"asked": []}), table)
    outcomes = {
        cell: replace(outcome, changed=changed.get(cell, ()))
        for cell, outcome in filling.fill(jobs, wanted, typed).items()
    }
    texts = {".md": kind.render(table, outcomes)}
    texts |= {} if ours else kind.files(table, outcomes)
    folder = asked.to or (file.parent if ours else Path(table["outputs"], "tables"))
    for suffix, text in texts.items():
        with replacing(folder / f"{file.stem}{suffix}") as temporary:
            temporary.write_text(visible(text), encoding="utf-8")
    print(f"{texts['.md']}\nwrote {', '.join(str(folder / f'{file.stem}{suffix}') for suffix in texts)}")
    return 1 if any(o.error and not o.away for cell, o in outcomes.items() if cell in set(wanted)) else 0


if __name__ == "__main__":
    sys.exit(main())
