"""Two runs side by side: what differs in how they were made, in what they measure, and in what they removed.

    python -m experiments.compare RUN_A RUN_B [--outputs FOLDER] [--to FOLDER] [--csv]

Only what the runs have written is read; nothing is computed again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.comparing import picture
from experiments.comparing.comparison import Comparison, compare, render
from experiments.comparing.layers import Layer
from experiments.console.arguments import Arguments
from experiments.console.errors import ending, nearest, unheard
from experiments.console.grid import sheet
from experiments.console.text import visible
from experiments.figures import canvas
from experiments.files.disk import replacing
from experiments.runs.record import load, runs

SHOWN = 5  # candidates named where a name fits several runs


def find(name: str, outputs: Path) -> Path:
    """The run whose folder this is, or the one below `outputs` with this in its path; ValueError naming candidates."""
    if (Path(name) / "manifest.json").exists():
        return Path(name)
    folders = sorted(runs(outputs)) if outputs.is_dir() else []
    known = {folder.relative_to(outputs).as_posix(): folder for folder in folders}
    fitting = [path for path in known if name in path]
    if len(fitting) == 1:
        return known[fitting[0]]
    if fitting:
        more = f" and {len(fitting) - SHOWN} more" if len(fitting) > SHOWN else ""
        raise ValueError(f"{name} fits {len(fitting)} runs in {outputs}: {', '.join(fitting[:SHOWN])}{more}")
    others = f"one of the {len(known)} in {outputs}" if known else f"--outputs FOLDER, for there are none in {outputs}"
    hint = nearest(name, [word for path, folder in known.items() for word in (path, folder.name)])
    raise ValueError(
        f"{name} is no run: expected a folder with a manifest.json, or a part of the name of {others}{hint}"
    )


def write(comparison: Comparison, to: Path, table: bool) -> list[Path]:
    """comparison.md and the picture where there is something to show; with `table` every matrix as CSV."""
    texts = {"comparison.md": f"{render(comparison, markdown=True)}\n"}
    pictures = [to / f"comparison.{ending}" for ending in canvas.FORMATS]
    figure = picture.draw(comparison)
    if figure is not None:
        canvas.save(figure, to / "comparison")
        texts["comparison.md"] += "\n![Both runs by depth](comparison.png)\n"
    else:  # an earlier comparison's picture would not belong to this one
        for old in pictures:
            old.unlink(missing_ok=True)
    if table:
        texts["layers.csv"] = sheet([_line(layer) for layer in comparison.layers])
    for name, text in texts.items():
        with replacing(to / name) as temporary:
            temporary.write_text(visible(text), encoding="utf-8")
    return [to / name for name in texts] + (pictures if figure is not None else [])


def _line(layer: Layer) -> dict[str, Any]:
    """A matrix with all digits; empty where nothing is known."""
    both, first, second = layer.shares
    line = {"matrix": layer.name, "block": layer.block, "weights": layer.weights}
    line |= {"sparsity A": layer.sparsities[0], "sparsity B": layer.sparsities[1]}
    line |= {"kept by both": both, "kept by A alone": first, "kept by B alone": second}
    line |= {"removed in common": layer.common, "if random": layer.random}
    return {name: None if value != value else value for name, value in line.items()}


def _parser() -> Arguments:
    parser = Arguments(
        prog="python -m experiments.compare",
        description="Compare two runs: configuration and code, metrics with the interval of their difference, masks,"
        " errors and sparsities by layer, time and memory.",
        epilog="example: python -m experiments.compare wanda-2of4 sparsegpt-2of4 --outputs outputs/demo --to pair",
    )
    parser.add_argument("first", metavar="RUN_A", help="a run's folder, or a part of its path that no other run has")
    parser.add_argument("second", metavar="RUN_B", help="likewise; differences are B - A")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="FOLDER", help="where runs are looked for"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write Markdown and a picture (PNG, PDF, SVG) there")
    parser.add_argument("--csv", action="store_true", help="with --to: layers.csv, a row for every matrix")
    return parser


@ending()
@unheard()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if both runs were read, 2 if one cannot be, or for a mistake in the command line."""
    options = _parser().parse_args(arguments)
    if options.csv and options.to is None:
        raise ValueError("--csv writes files: give --to FOLDER too")
    comparison = compare(*(load(find(name, options.outputs)) for name in (options.first, options.second)))
    print(render(comparison))
    if options.to:
        print(f"\nwrote {', '.join(map(str, write(comparison, options.to, options.csv)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
