"""Whether two folders of outputs hold the same: files, tensors, numbers, rows of the table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from experiments.files.disk import intact, sealed
from experiments.runs.record import read
from experiments.summary.rows import arrange, render

# What no two runs share, and which code it was: that may change while runs are killed.
COST = {"seconds", "saved", "memory", "stage_memory", "peaks", "started", "finished"}
PASSING = COST | {"command", "outputs", "commit", "dirty", "diff", "also"}
HISTORY = ("metrics.jsonl",)  # what tells how long it took, and tells twice what happened twice


def differences(reference: Path, outputs: Path) -> list[str]:
    """What of an undisturbed run these outputs lack or have otherwise: files, tensors, numbers, rows of the table."""
    mine, theirs = ({str(file.relative_to(top)): file for file in compared(top)} for top in (outputs, reference))
    for name in [name for name, file in mine.items() if unasked(file)]:
        del mine[name], theirs[name]
    found = [f"{outputs / name}: only in {outputs if name in mine else reference}" for name in mine.keys() ^ theirs]
    found += [
        f"{mine[name]}: not as in {reference}" for name in mine.keys() & theirs if not same(mine[name], theirs[name])
    ]
    tables = [render(replace(arrange(read([top])), notes=[])) for top in (outputs, reference)]
    return found + [f"{outputs}: another table than that of {reference}"] * (tables[0] != tables[1])


def compared(top: Path) -> list[Path]:
    """All files of outputs but locks, pictures and the log of numbers, which tells what happened twice, twice."""
    files = [file for file in top.rglob("*") if file.is_file() and file.name not in HISTORY]
    return [file for file in files if file.suffix not in (".lock", ".owner") and file.name != ".lock"]


def unasked(file: Path) -> bool:
    """Whether it is a damaged entry of the cache: nothing has asked for it since, or it would have been made again."""
    whole = intact if file.suffix == ".safetensors" else lambda place: sealed(place) is not None
    return "cache" in file.parts and file.suffix in (".safetensors", ".json") and not whole(file)


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, or the same JSON but for times, memory and places."""
    if one.suffix == ".safetensors" and one.parent.name != "model":
        if not (intact(one) and intact(other)):
            return False
        first, second = load_file(one), load_file(other)  # their facts have the seconds of a block
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    if one.suffix == ".json":
        try:
            return lasting(json.loads(one.read_text())) == lasting(json.loads(other.read_text()))
        except ValueError:
            return False
    return one.read_bytes() == other.read_bytes()


def lasting(value: Any, inner: bool = False) -> Any:
    """JSON without times (`given` of results.json too), memory and places, and without the seal over them."""
    if isinstance(value, list):
        return [lasting(part, True) for part in value]
    if not isinstance(value, dict):
        return value
    passing = PASSING if inner else PASSING | {"sha256", "given"}
    return {name: lasting(part, True) for name, part in value.items() if name not in passing}
