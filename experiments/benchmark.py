"""The tables that this project fills itself: parity with the papers' released code, and the order of the methods.

    python -m experiments.table parity
    python -m experiments.table order --shard 1/2

A table is a YAML in experiments/tables; its runs lie in its outputs as those of experiments.run do, finished ones are
read, and the table is written beside the YAML as Markdown.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import cells, order, parity
from experiments.hints import one_line

TABLES = Path(__file__).parent / "tables"
KINDS = {"order": order, "parity": parity}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.table",
        description="Run what is missing of a table, print it, and write it as Markdown. The options choose what is"
        " run; the table shows everything that is done.",
        epilog="example: python -m experiments.table order sequences=32 outputs=outputs/short --to outputs/short",
    )
    names = lambda text: text.split(",")
    found.add_argument("table", choices=sorted(KINDS))
    found.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="a root setting of the YAML: outputs=FOLDER")
    found.add_argument("--models", type=names, default=[], metavar="A,B", help="run these models alone")
    found.add_argument("--methods", type=names, default=[], metavar="X,Y", help="run these methods alone")
    found.add_argument("--shard", default="1/1", metavar="K/N", help="run every n-th pair of model and seed alone")
    found.add_argument("--to", type=Path, default=TABLES, metavar="FOLDER", help="where the Markdown goes")
    return found


def main(arguments: Sequence[str] | None = None, tables: Path = TABLES) -> int:
    """The command; 0 if all that it was to run is done, 1 if a cell failed, 2 for a mistake in the command line."""
    asked = parser().parse_intermixed_args(arguments)
    kind = KINDS[asked.table]
    try:
        table = cells.load(tables / f"{asked.table}.yaml", asked.settings)
        every = kind.cells(table)
        wanted = cells.chosen(every, asked.models, asked.methods, asked.shard)
        outcomes = cells.fill(every, wanted)
        text = kind.render(table, outcomes)
        asked.to.mkdir(parents=True, exist_ok=True)
        place = asked.to / f"{asked.table}.md"
        temporary = place.with_suffix(".part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(place)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"{text}\nwrote {place}")
    return 1 if any(outcomes[cell].error for cell in wanted) else 0
