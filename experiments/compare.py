"""Two runs side by side: what differs in how they were made, in what they measure, and in what they removed.

    python -m experiments.compare RUN_A RUN_B [--outputs FOLDER] [--to FOLDER] [--csv]

Only what the runs have written is read; nothing is computed again.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.comparing import picture
from experiments.comparing.comparison import Comparison, compare, render
from experiments.console.errors import ending, nearest, unheard
from experiments.console.text import visible
from experiments.files.disk import replacing
from experiments.runs.record import load, runs

SHOWN = 5  # candidates named where a name fits several runs
MARKDOWN, PICTURE = "comparison.md", "comparison"


def find(name: str, outputs: Path) -> Path:
    """The run whose folder this is, or the one below `outputs` with this in its path; ValueError naming candidates."""
    if (Path(name) / "manifest.json").exists():
        return Path(name)
    there = sorted(runs(outputs)) if outputs.is_dir() else []
    known = {run.relative_to(outputs).as_posix(): run for run in there}
    fitting = [path for path in known if name in path]
    if len(fitting) == 1:
        return known[fitting[0]]
    if fitting:
        more = f" and {len(fitting) - SHOWN} more" * (len(fitting) > SHOWN)
        raise ValueError(f"{name} fits {len(fitting)} runs in {outputs}: {', '.join(fitting[:SHOWN])}{more}")
    others = f"one of the {len(known)} in {outputs}" if known else f"--outputs FOLDER, for there are none in {outputs}"
    hint = nearest(name, [word for path, run in known.items() for word in (path, run.name)])
    raise ValueError(
        f"{name} is no run: expected a folder with a manifest.json, or a part of the name of {others}{hint}"
    )


def write(found: Comparison, to: Path, table: bool) -> list[Path]:
    """comparison.md and the picture where there is something to show; with `table` every metric and matrix as CSV."""
    pictured = picture.draw(found.names, found.errors, found.layers, to / PICTURE)
    pictures = [to / f"{PICTURE}.{ending}" for ending in ("png", "pdf", "svg")]
    for old in () if pictured else pictures:
        old.unlink(missing_ok=True)  # an earlier comparison's picture would not belong to this one
    text = render(found, markdown=True) + f"\n\n![Both runs by depth]({PICTURE}.png)" * pictured
    with replacing(to / MARKDOWN) as temporary:
        temporary.write_text(visible(f"{text}\n"), encoding="utf-8")
    written = [to / MARKDOWN, *(pictures if pictured else [])]
    if table:
        written += [_csv(to / f"{name}.csv", lines) for name, lines in lines_of(found).items()]
    return written


def lines_of(found: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Every metric and every matrix with all digits, by the name of their file."""
    metrics = []
    for metric in found.metrics:
        low, high = metric.interval or (None, None)
        line = {"metric": metric.key, "A": metric.first, "B": metric.second, "difference": metric.difference}
        line |= {"stderr": metric.error, "low": low, "high": high, "paired": metric.paired, "verdict": metric.verdict}
        metrics.append(line)
    layers = []
    for layer in found.layers:
        both, first, second = layer.shares or (None,) * 3
        line = {"matrix": layer.name, "block": layer.block, "weights": layer.weights}
        line |= {"sparsity A": layer.sparsities[0], "sparsity B": layer.sparsities[1]}
        line |= {"kept by both": both, "kept by A alone": first, "kept by B alone": second}
        layers.append(line | {"removed in common": layer.common, "if random": layer.random})
    return {"metrics": metrics, "layers": layers}


def _csv(path: Path, lines: list[dict[str, Any]]) -> Path:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: visible(cell) if isinstance(cell, str) else cell for key, cell in line.items()} for line in lines
        )
    return path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compare two runs: configuration and code, metrics with the interval of their difference, masks,"
        " errors and sparsities by layer, time and memory.",
        epilog="example: python -m experiments.compare wanda-2of4 sparsegpt-2of4 --outputs outputs/demo --to pair",
    )
    found.add_argument("first", metavar="RUN_A", help="a run's folder, or a part of its path that no other run has")
    found.add_argument("second", metavar="RUN_B", help="likewise; differences are B - A")
    found.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="FOLDER", help="where runs are looked for"
    )
    found.add_argument("--to", type=Path, metavar="FOLDER", help="write Markdown and a picture (PNG, PDF, SVG) there")
    found.add_argument(
        "--csv", action="store_true", help="with --to: metrics.csv and layers.csv, a row for every matrix"
    )
    return found


@ending()
@unheard()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if both runs were read, 2 if one cannot be, or for a mistake in the command line."""
    asked = parser().parse_args(arguments)
    if asked.csv and asked.to is None:
        raise ValueError("--csv writes files: give --to FOLDER too")
    found = compare(*(load(find(name, asked.outputs)) for name in (asked.first, asked.second)))
    print(render(found))
    if asked.to:
        print(f"\nwrote {', '.join(map(str, write(found, asked.to, asked.csv)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
