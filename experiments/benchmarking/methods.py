"""Costs of methods as tables, and the best of them in a record of each kind of machine: JSON, Markdown beside it."""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarking.costs import PACKAGED, SIZES, Case, Cost, Speed, costs
from experiments.console.grid import grid
from experiments.console.text import timing
from experiments.files.disk import read_json, write_json
from experiments.running import components
from experiments.runs import provenance
from experiments.runs.machine import facts

REAL = ("stories-260k", "babyllama-1m", "wiki-llama-3m")
STAGES = ("survey", "calibrate", "statistics", "allocate", "select", "update", "propagate", "write", "other")
LEGEND = (
    "of forwards: over as many plain forwards as passes, a backward one for two; needed: a block, its statistics, a"
    " layer of activations"
)
Costs = Mapping[tuple[str, str], Cost]  # by case and method


def measure(options: Namespace) -> None:
    """Measures the methods, and prints what they cost beside the best of earlier times, which the record keeps."""
    device = components.device(options.device)
    if options.cpu and (device != "cpu" or torch.get_num_threads() > 1):
        raise ValueError(
            "--cpu: counts the seconds of one thread; set OMP_NUM_THREADS=1 and --device cpu, or leave it out"
        )
    dtype = options.dtype or ("float32" if device == "cpu" else "bfloat16")
    methods = [" ".join([name, *options.settings]) for name in options.methods.split(",")]
    machine = facts(device) | {"versions": provenance.versions()}
    file, measured = options.to / f"{kind(machine)}.json", []
    before = read(file)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for case in cases(options):
                for cost in costs(case, methods, device, dtype, Path(folder)):
                    print(f"{cost.case} {cost.method}: {cost.seconds:.2f} s, {cost.ratio:.2f} x floor", file=sys.stderr)
                    measured.append(cost)
                    keep(file, cost, machine)
    finally:  # what was measured is shown, whatever stopped the rest
        print(f"{table(measured, before)}\nfaster: than the record {file}; {LEGEND}")


def cases(options: Namespace) -> list[Case]:
    """The models that are asked for: small real ones as they are, others with so many tokens, random ones and blocks.

    ValueError for blocks of a real one, which has them all.
    """
    if options.case in SIZES:
        return [Case(options.case, options.blocks, options.sequences, options.length, options.cpu)]
    if options.blocks:
        raise ValueError(f"--blocks={options.blocks}: {options.case} is a real model, measured whole; leave it out")
    if options.case in PACKAGED:
        return [Case(options.case, None, options.sequences, options.length, options.cpu)]
    return [Case(name, cpu=options.cpu) for name in (REAL if options.case == "real" else [options.case])]


def table(costs: Collection[Cost], before: Costs, style: str = "simple") -> str:
    """A line for each cost, then its stages; `faster`: how many times faster than `before`, where there is a record."""
    body, stages = [], []
    seen = [name for name in STAGES if any(cost.stages.get(name) for cost in costs)]
    for cost in costs:
        earlier = before.get((cost.case, cost.method))
        line = {"case": cost.case, "method": cost.method}
        line |= {"seconds": timing(cost.seconds), "floor": timing(cost.floor), "ratio": f"{cost.ratio:.2f}"}
        if before:
            line["faster"] = f"{earlier.seconds / cost.seconds:.2f}" if earlier else ""
        line |= {"passes": "{:g} + {:g}".format(*cost.passes), "of forwards": timing(cost.of_forwards)}
        line |= {"GFLOP": f"{cost.operations / 1e9:.1f}", "peak MB": f"{cost.peak / 1e6:.0f}"}
        body.append(line | {"of needed": f"{cost.memory:.2f}"})
        stages.append([cost.case, cost.method, *(timing(cost.stages.get(name, 0.0)) for name in seen)])
    header = list(body[0]) if body else ["case", "method"]
    first = grid(header, [list(line.values()) for line in body], "llr", style)
    return f"{first}\n\nseconds by stage\n\n{grid(['case', 'method', *seen], stages, 'llr', style)}"


def kind(machine: dict[str, Any]) -> str:
    """The name of a machine's record: its chip, and its threads where that is what computes."""
    chip = "".join(letter if letter.isalnum() else "-" for letter in str(machine["chip"])).strip("-").lower()
    return chip if machine["device"].startswith("cuda") else f"{chip}-{machine['threads']}-threads"


def read(file: Path) -> dict[tuple[str, str], Cost]:
    """The costs of a record by case and method; none where there is no such file."""
    best = {}
    for cost in read_json(file, {}).get("costs", []):
        known = {field.name: cost[field.name] for field in fields(Cost)}
        best[cost["case"], cost["method"]] = Cost(**known | {"speed": Speed(**cost["speed"])})
    return best


def keep(file: Path, cost: Cost, machine: dict[str, Any]) -> None:
    """Add a cost to a record, unless what stands there of its case and method took less time."""
    best = read(file)
    earlier = best.get((cost.case, cost.method))
    if earlier is None or cost.seconds < earlier.seconds:
        best[cost.case, cost.method] = cost
    write_json(file, {"machine": machine, "costs": [asdict(each) for each in best.values()]})
    page = "\n\n".join(markdown(best.values(), machine)) + "\n"
    file.with_suffix(".md").write_text(page, encoding="utf-8")


def markdown(costs: Collection[Cost], machine: dict[str, Any]) -> list[str]:
    """A record for people: what was measured, where, when, and how fast the machine was at that time."""
    body = []
    for cost in costs:
        rates = [f"{rate / 1e9:.1f}" for rate in (cost.speed.rate, cost.speed.wide, cost.speed.bandwidth)]
        body.append([cost.case, cost.method, cost.date[:10], (cost.commit or "")[:8], *rates])
    names = ["case", "method", "date", "commit", "GFLOP/s", "in float32", "GB/s"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "transformers"))
    return [
        f"# {machine['chip']}: {machine['device']}, {machine['threads']} of {machine['cores']} cores",
        f"{versions}. {LEGEND}.",
        table(costs, {}, "pipe"),
        "measured at",
        grid(names, body, "llllr"),
    ]
