"""A checkpoint measured as its weights are, tensor by tensor."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A checkpoint as its weights are: the model's class, its matrices in order, what is wrong, what is not checked."""

    kind: str
    matrices: list[Any]
    faults: list[str]
    notes: list[str]
    bytes: int
    seconds: float  # of reading


def measure(
    folder: Path,
    patterns: Iterable[str] = (),
    blocks: str | None = None,
    trust_remote_code: bool = False,
    routers: bool = False,
    skipped: Iterable[str] = (),
) -> Measured:
    """Reads every tensor once; matrices in `skipped` were not to be pruned. ValueError or OSError as `verify`."""
    from tqdm import tqdm  # noqa: PLC0415 - as torch below, seconds that --help and a typing mistake need not wait for

    from experiments.models import architecture, contract, stored  # noqa: PLC0415

    held = stored.contents(folder)
    asked = architecture.architecture(folder, held.tensors, blocks, trust_remote_code, routers, skipped)
    size, chosen = sum(tensor.bytes for tensor in held.tensors.values()), set(asked.matrices)
    faults, found, patterns = [*held.faults, *asked.faults], {}, list(patterns)
    start = time.perf_counter()
    with tqdm(total=size, unit="B", unit_scale=True, desc="verify", leave=False, disable=None) as bar:
        for tensor, values in stored.read(held.tensors.values()):
            if tensor.name in chosen:
                lying = values.mT if tensor.name in asked.turned else values
                found[tensor.name] = contract.count(tensor.name, lying, patterns)
            elif odd := contract.nonfinite(values):
                faults.append(f"{tensor.name}: {odd} NaN or infinite values")
            bar.update(tensor.bytes)
    seconds = time.perf_counter() - start
    notes = [*held.notes, *(_twice(*(held.tensors[name] for name in pair)) for pair in asked.tied), *asked.notes]
    return Measured(asked.kind, [found[name] for name in asked.matrices], faults, notes, size, seconds)


def _twice(one: Any, other: Any) -> str:
    """What is to be known of two tensors that config.json ties."""
    from experiments.models import stored  # noqa: PLC0415

    names = f"{one.name} and {other.name}"
    if stored.alike(one, other, stored.first_dtype({one.name: one})):
        return f"stored twice, though tied: {names}"
    return f"config.json ties {names}, but they differ: transformers 5 keeps both, an older one drops the first"
