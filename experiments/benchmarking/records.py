"""Costs as a table, and the best of them in a record of each kind of machine: JSON, and Markdown beside it."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from experiments.benchmarking.costs import Cost
from experiments.console.grid import grid
from experiments.console.text import timing
from experiments.files.disk import now, read_json, write_json
from experiments.runs import provenance

STAGES = ("survey", "calibrate", "statistics", "allocate", "select", "update", "propagate", "write", "other")
LEGEND = (
    "of forwards: over as many plain forwards as passes, a backward one for two; needed: a block, its statistics, a"
    " layer of activations"
)
HEADER = ("seconds", "floor", "ratio", "faster", "passes", "of forwards", "GFLOP", "peak MB", "of needed")


def table(costs: Iterable[Cost], before: dict[tuple[str, str], dict[str, Any]], style: str = "simple") -> str:
    """A line for each cost, then its stages; `faster`: how many times faster than `before`, by case and method."""
    body, stages, costs = [], [], list(costs)
    seen = [name for name in STAGES if any(cost.stages.get(name) for cost in costs)]
    for cost in costs:
        earlier = before.get((cost.case, cost.method))
        faster = f"{earlier['seconds'] / cost.seconds:.2f}" if earlier else ""
        numbers = [timing(cost.seconds), timing(cost.floor), f"{cost.ratio:.2f}", *([faster] if before else [])]
        peak = cost.host if cost.device is None else cost.device
        times = "" if cost.of_forwards is None else f"{cost.of_forwards:.2f}"
        work = [f"{cost.passes[0]} + {cost.passes[1]}", times, f"{cost.operations / 1e9:.1f}"]
        body.append([cost.case, cost.method, *numbers, *work, f"{peak / 1e6:.0f}", f"{cost.memory:.2f}"])
        stages.append([cost.case, cost.method, *(timing(cost.stages.get(name, 0.0)) for name in seen)])
    header = [name for name in HEADER if before or name != "faster"]
    tables = (
        grid(["case", "method", *header], body, "llr", style),
        grid(["case", "method", *seen], stages, "llr", style),
    )
    return "\n\nseconds by stage\n\n".join(tables)


def machine(device: str) -> dict[str, Any]:
    """What the figures are measured on, and with what code."""
    return provenance.machine(device) | provenance.code() | {"versions": provenance.versions()}


def kind(machine: dict[str, Any]) -> str:
    """The name of a machine's record: its chip, and its threads where that is what computes."""
    chip = "".join(letter if letter.isalnum() else "-" for letter in str(machine["chip"])).strip("-").lower()
    return chip if machine["device"].startswith("cuda") else f"{chip}-{machine['threads']}-threads"


def read(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The costs of a record by case and method; none where there is no such file."""
    return {(cost["case"], cost["method"]): cost for cost in read_json(file, {}).get("costs", [])}


def keep(file: Path, cost: Cost, facts: dict[str, Any]) -> None:
    """Add a cost to a record, unless what stands there of its case and method took less time."""
    best = read(file)
    known = best.get((cost.case, cost.method))
    if known is None or cost.seconds < known["seconds"]:
        told = {"ratio": cost.ratio, "memory": cost.memory, "date": now(), "commit": facts["commit"]}
        best[cost.case, cost.method] = asdict(cost) | told
    write_json(file, {"machine": facts, "costs": list(best.values())})
    publish(file)


def publish(file: Path) -> None:
    """A record as Markdown beside it: what was measured, where, when, and how fast the machine was at that time."""
    record = read_json(file, {})
    facts, entries = record["machine"], record["costs"]
    found = [Cost(**{part.name: entry[part.name] for part in fields(Cost)}) for entry in entries]
    rates = [[f"{e['speed'][name] / 1e9:.1f}" for name in ("rate", "wide", "bandwidth")] for e in entries]
    when = [[e["case"], e["method"], e["date"][:10], (e["commit"] or "")[:8]] for e in entries]
    names = ["case", "method", "date", "commit", "GFLOP/s", "in float32", "GB/s"]
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "transformers"))
    told = [
        f"# {facts['chip']}: {facts['device']}, {facts['threads']} of {facts['cores']} cores",
        f"{versions}. {LEGEND}.",
        table(found, {}, "pipe"),
        "measured at",
        grid(names, [[*one, *other] for one, other in zip(when, rates, strict=True)], "llllr"),
    ]
    file.with_suffix(".md").write_text("\n\n".join(told) + "\n", encoding="utf-8")
