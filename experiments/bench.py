"""What methods cost on this machine, beside the least that they could:  python -m experiments.bench

python -m experiments.bench methods --case 7b --blocks 1          seconds by stage, floor, ratio, memory
python -m experiments.bench methods --methods besa allocator.epochs=16 --case 7b --blocks 1
python -m experiments.bench methods --against HEAD~1              and how much faster than that commit, in one run
python -m experiments.bench growth                                how time grows with tokens, width, depth
python -m experiments.bench streaming --gigabytes 8               a model larger than memory, as a run of its own
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.disk import write_json
from experiments.ending import ending
from experiments.pages import large_pages

METHODS = "magnitude,wanda,sparsegpt,gblm,admm,mixed,besa,besa_layer,barber"
REAL = ("stories-260k", "babyllama-1m", "wiki-llama-3m")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Measure what pruning costs on this machine. The floor is what its matrix products take at the rate"
        " that is measured in the same run, or what must be read and written, if that is more.",
        epilog="example: python -m experiments.bench methods --case 7b --blocks 1 --methods wanda,sparsegpt",
    )
    kinds = found.add_subparsers(dest="what", required=True, metavar="methods|growth|streaming")
    _measuring(kinds.add_parser("growth", help="how time grows with tokens, width and depth"))
    kind = _measuring(kinds.add_parser("methods", help="each method on a model"))
    kind.add_argument("--case", default="small", help="small, 7b, 13b, 70b, or a real model of ../shared, or `real`")
    kind.add_argument("--blocks", type=int, metavar="N", help="decoder blocks; default all of that size")
    kind.add_argument("--sequences", type=int, default=8, help="calibration windows (default 8)")
    kind.add_argument("--length", type=int, default=512, help="tokens of each (default 512)")
    kind.add_argument("--against", metavar="COMMIT", help="measure that commit too, and compare")
    kind.add_argument("--record", action="store_true", help="keep the best figures of this kind of machine in the tree")
    kind = kinds.add_parser("streaming", help="a random checkpoint larger than its run's memory")
    kind.add_argument("--gigabytes", type=float, default=8.0, help="of the checkpoint, in bfloat16 (default 8)")
    kind.add_argument("--methods", default="wanda,sparsegpt", metavar="X,Y", help="experiments of conf/experiment")
    kind.add_argument("--to", type=Path, default=Path("outputs/bench"), help="folder for checkpoint, runs and record")
    kind.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="further overrides of experiments.run")
    return found


def _measuring(kind: argparse.ArgumentParser) -> argparse.ArgumentParser:
    kind.add_argument("--methods", default=METHODS, metavar="X,Y", help=f"of conf/experiment; default {METHODS}")
    kind.add_argument("--device", default="auto", help="auto | cpu | cuda")
    kind.add_argument("--dtype", default=None, help="of the model; default float32 on a CPU, bfloat16 on a GPU")
    kind.add_argument("--repeats", type=int, default=1, help="the best of so many counts (default 1)")
    kind.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    kind.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="further overrides of experiments.run")
    return kind


@ending(others=(ChildProcessError,))
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything ran, 2 for a mistake in the command line or what cannot be measured."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser().parse_args(words)
    large_pages()
    if asked.what == "streaming":
        from experiments.benchmarking.streaming import streaming  # noqa: PLC0415 - torch takes seconds

        write_json(asked.to / "streaming.json", streaming(asked))
        print(f"wrote {asked.to / 'streaming.json'}")
        return 0
    from experiments import parts  # noqa: PLC0415

    asked.device = parts.device(asked.device)
    asked.dtype = asked.dtype or ("float32" if asked.device == "cpu" else "bfloat16")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        (methods if asked.what == "methods" else grow)(asked, Path(folder), words)
    return 0


def methods(asked: argparse.Namespace, folder: Path, words: list[str]) -> None:
    """The table of costs, printed and kept as asked."""
    from experiments.benchmarking import records  # noqa: PLC0415 - torch takes seconds
    from experiments.benchmarking.cases import SIZES, Case  # noqa: PLC0415
    from experiments.benchmarking.costs import costs  # noqa: PLC0415

    names, random = REAL if asked.case == "real" else (asked.case,), (asked.blocks, asked.sequences, asked.length)
    facts = records.machine(asked.device)
    file, found = records.RECORDS / f"{records.kind(facts)}.json", []
    before, than = records.read(file), f"the record {file.name}"
    try:
        for case in [Case(name, *random) if name in SIZES else Case(name, None, None, None) for name in names]:
            for cost in costs(case, choose(asked), asked.device, asked.dtype, folder, asked.repeats):
                print(f"{cost.case} {cost.method}: {cost.seconds:.2f} s, {cost.ratio:.2f} x floor", file=sys.stderr)
                found.append(cost)
                for place, best in ((asked.json, False), (file if asked.record else None, True)):
                    if place:
                        records.keep(place, found, facts, best)
        if asked.against:
            before, than = records.of_commit(asked.against, without(words)), asked.against
    finally:  # what was measured is shown, whatever stopped the rest
        print(f"{records.table(found, before)}\nfaster: than {than}; {records.LEGEND}")


def choose(asked: argparse.Namespace) -> list[str]:
    """Each method with the settings, as one line of words."""
    return [" ".join([name, *asked.settings]) for name in asked.methods.split(",")]


def without(words: list[str]) -> list[str]:
    """The words that an earlier commit is asked with: what to measure, not what to do with it."""
    kept, skip = [], False
    for word in words[1:]:
        if not skip and word.partition("=")[0] not in ("--against", "--json", "--record"):
            kept.append(word)
        skip = word in ("--against", "--json")
    return kept


def grow(asked: argparse.Namespace, folder: Path, _: list[str]) -> None:
    """How time grows, printed and kept as asked."""
    from experiments.benchmarking.growth import FACTORS, growth  # noqa: PLC0415
    from experiments.overview import grid  # noqa: PLC0415

    body, kept = [], []
    for method, what, found, power in growth(choose(asked), asked.device, asked.dtype, folder, asked.repeats):
        each = [f"x{factor} {cost.seconds:.2f} s" for factor, cost in zip(FACTORS[what], found, strict=True)]
        body.append([method, what, *each, f"{power:.2f}"])
        kept.append({"method": method, "axis": what, "seconds": [cost.seconds for cost in found], "exponent": power})
        print(" ".join(body[-1]), file=sys.stderr)
    print(grid(["method", "axis", "smallest", "larger", "largest", "exponent"], body, 2, "simple"))
    if asked.json:
        write_json(asked.json, {"growth": kept})


if __name__ == "__main__":
    sys.exit(main())
