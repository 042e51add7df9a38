"""What methods cost on this machine, beside the least that they could:  python -m experiments.bench

python -m experiments.bench methods --case 7b --blocks 1          seconds by stage, floor, ratio, memory
python -m experiments.bench methods --methods besa allocator.epochs=16 --case 7b --blocks 1
python -m experiments.bench latency outputs                       2:4 kernels of a GPU on the matrices of these runs
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.console.arguments import Arguments
from experiments.console.errors import ending
from experiments.running.process import large_pages

METHODS = "magnitude,wanda,sparsegpt,gblm,admm,mixed,besa,besa_layer,barber"
BENCH = Path("outputs/bench")


def parser() -> Arguments:
    """The command line."""
    line = Arguments(
        prog="python -m experiments.bench",
        description="Measure what pruning costs on this machine. The floor is what its matrix products take at the rate"
        " that is measured in the same run, or what must be read and written, if that is more.",
        epilog="example: python -m experiments.bench methods --case 7b --blocks 1 --methods wanda,sparsegpt",
    )
    kinds = line.add_subparsers(dest="kind", required=True, metavar="methods|latency")
    methods = kinds.add_parser("methods", help="each method on a model")
    methods.add_argument("--methods", default=METHODS, metavar="X,Y", help=f"of conf/experiment; default {METHODS}")
    methods.add_argument("--case", default="small", help="small, 7b, 13b, 70b, smollm2, one of ../shared, or `real`")
    methods.add_argument("--blocks", type=int, metavar="N", help="blocks of a random model; default all")
    methods.add_argument("--sequences", type=int, default=8, help="calibration windows (default 8)")
    methods.add_argument("--length", type=int, default=512, help="tokens of each (default 512)")
    methods.add_argument("--device", default="auto", help="auto | cpu | cuda")
    methods.add_argument("--dtype", default=None, help="of the model; default float32 on a CPU, bfloat16 on a GPU")
    methods.add_argument("--cpu", action="store_true", help="CPU seconds of one thread, on a machine that is shared")
    latency = kinds.add_parser("latency", help="2:4 layers of runs beside dense ones, on a GPU")
    latency.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folders with runs, at any depth")
    methods.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="further overrides of experiments.run")
    for kind in (methods, latency):
        kind.add_argument("--to", type=Path, default=BENCH, help=f"folder for what is measured (default {BENCH})")
    return line


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything ran, 2 for a mistake in the command line or what cannot be measured."""
    options = parser().parse_args(arguments)
    large_pages()
    from experiments.benchmarking import latency, methods  # noqa: PLC0415 - torch, after large_pages, takes seconds

    if options.kind == "latency":
        print(latency.measure(options.outputs, options.to))
    else:
        methods.measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
