"""What methods cost on this machine, beside the least that they could:  python -m experiments.bench

python -m experiments.bench methods --case 7b --blocks 1          seconds by stage, floor, ratio, memory
python -m experiments.bench methods --methods besa allocator.epochs=16 --case 7b --blocks 1
python -m experiments.bench streaming --gigabytes 8               a model larger than memory, as a run of its own
python -m experiments.bench latency outputs                       2:4 kernels of a GPU on the matrices of these runs
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.console.errors import ending
from experiments.files.disk import write_json
from experiments.running.process import large_pages

METHODS = "magnitude,wanda,sparsegpt,gblm,admm,mixed,besa,besa_layer,barber"
BENCH = Path("outputs/bench")
REAL = ("stories-260k", "babyllama-1m", "wiki-llama-3m")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Measure what pruning costs on this machine. The floor is what its matrix products take at the rate"
        " that is measured in the same run, or what must be read and written, if that is more.",
        epilog="example: python -m experiments.bench methods --case 7b --blocks 1 --methods wanda,sparsegpt",
    )
    kinds = found.add_subparsers(dest="what", required=True, metavar="methods|streaming|latency")
    methods = _methods(kinds)
    streaming = kinds.add_parser("streaming", help="a random checkpoint larger than its run's memory")
    streaming.add_argument("--gigabytes", type=float, default=8.0, help="of the checkpoint, in bfloat16 (default 8)")
    streaming.add_argument("--methods", default="wanda,sparsegpt", metavar="X,Y", help="experiments of conf/experiment")
    latency = kinds.add_parser("latency", help="2:4 layers of runs beside dense ones, on a GPU")
    latency.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folders with runs, at any depth")
    for kind in (methods, streaming):
        kind.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="further overrides of experiments.run")
    for kind in (methods, streaming, latency):
        kind.add_argument("--to", type=Path, default=BENCH, help=f"folder for what is measured (default {BENCH})")
    return found


def _methods(kinds: Any) -> argparse.ArgumentParser:
    kind = kinds.add_parser("methods", help="each method on a model")
    kind.add_argument("--methods", default=METHODS, metavar="X,Y", help=f"of conf/experiment; default {METHODS}")
    kind.add_argument("--case", default="small", help="small, 7b, 13b, 70b, or a real model of ../shared, or `real`")
    kind.add_argument("--blocks", type=int, metavar="N", help="decoder blocks; default all of that size")
    kind.add_argument("--sequences", type=int, default=8, help="calibration windows (default 8)")
    kind.add_argument("--length", type=int, default=512, help="tokens of each (default 512)")
    kind.add_argument("--device", default="auto", help="auto | cpu | cuda")
    kind.add_argument("--dtype", default=None, help="of the model; default float32 on a CPU, bfloat16 on a GPU")
    kind.add_argument("--repeats", type=int, default=1, help="the best of so many counts (default 1)")
    return kind


@ending(others=(ChildProcessError,))
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything ran, 2 for a mistake in the command line or what cannot be measured."""
    asked = parser().parse_args(arguments)
    large_pages()
    if asked.what == "streaming":
        from experiments.benchmarking.streaming import streaming  # noqa: PLC0415 - torch takes seconds

        write_json(asked.to / "streaming.json", streaming(asked))
        print(f"wrote {asked.to / 'streaming.json'}")
        return 0
    if asked.what == "latency":
        from experiments.benchmarking import latency  # noqa: PLC0415 - torch takes seconds

        print(latency.measure(asked.outputs, asked.to))
        return 0
    from experiments.running import components  # noqa: PLC0415

    asked.device = components.device(asked.device)
    asked.dtype = asked.dtype or ("float32" if asked.device == "cpu" else "bfloat16")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        methods(asked, Path(folder))
    return 0


def methods(asked: argparse.Namespace, folder: Path) -> None:
    """The table of costs, printed beside the best of earlier ones, which the record keeps."""
    from experiments.benchmarking import records  # noqa: PLC0415 - torch takes seconds
    from experiments.benchmarking.cases import SIZES, Case  # noqa: PLC0415
    from experiments.benchmarking.costs import costs  # noqa: PLC0415

    names, random = REAL if asked.case == "real" else (asked.case,), (asked.blocks, asked.sequences, asked.length)
    facts = records.machine(asked.device)
    file, measured = asked.to / f"{records.kind(facts)}.json", []
    before = records.read(file)
    try:
        for case in [Case(name, *random) if name in SIZES else Case(name, None, None, None) for name in names]:
            for cost in costs(case, choose(asked), asked.device, asked.dtype, folder, asked.repeats):
                print(f"{cost.case} {cost.method}: {cost.seconds:.2f} s, {cost.ratio:.2f} x floor", file=sys.stderr)
                measured.append(cost)
                records.keep(file, cost, facts)
    finally:  # what was measured is shown, whatever stopped the rest
        print(f"{records.table(measured, before)}\nfaster: than the record {file}; {records.LEGEND}")


def choose(asked: argparse.Namespace) -> list[str]:
    """Each method with the settings, as one line of words."""
    return [" ".join([name, *asked.settings]) for name in asked.methods.split(",")]


if __name__ == "__main__":
    sys.exit(main())
