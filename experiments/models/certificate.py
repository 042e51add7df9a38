"""A checkpoint measured as its weights are, tensor by tensor: what it is certified with, and what verify finds."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.files.disk import read_json, write_json
from experiments.models import contract, stored
from experiments.models.contract import Matrix
from experiments.models.location import CERTIFICATE, hashes
from experiments.models.skeleton import becomes, explained, faults, judged
from experiments.models.stored import Stored, some
from prune.decoder import Decoder

STACKING = {"MergeModulelist", "SplitModulelist", "Concatenate", "Chunk", "Split"}  # conversions that keep rows rows
Places = Mapping[str, tuple[str, Any]]  # as `skeleton.becomes` tells them


@dataclass(frozen=True)
class Measured:
    """A checkpoint as its weights are: the model's class, its matrices in order, what is wrong, what is not checked."""

    kind: str
    matrices: list[Matrix]
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
    """Reads every tensor once. `blocks`, `routers`: as in model.blocks and model.routers; `skipped`: matrices that were
    not to be pruned, by full name.

    ValueError or OSError in one line for what cannot be read, and for a config.json that makes no causal LM.
    """
    tensors = stored.sound(str(folder), folder)
    with explained(str(folder)):
        model, wrong = judged(folder, tensors, trust_remote_code)
        places = becomes(model, tensors)
    turned, notes = {}, []
    try:
        decoder = Decoder(model, blocks=blocks, routers=routers)
        decoder.unheard = dict.fromkeys(skipped, "")
        turned, rearranged = _matrices(decoder, tensors, places)
    except ValueError as error:
        notes.append(f"no matrices: {error}")
    else:
        if rearranged:
            notes.append(f"not checked, as loading rearranges them: {some(rearranged)}")
    start = time.perf_counter()
    matrices, odd, size = _read(tensors, turned, list(patterns))
    seconds = time.perf_counter() - start
    return Measured(type(model).__name__, matrices, [*faults(wrong), *odd], notes, size, seconds)


def _matrices(decoder: Decoder, tensors: Mapping[str, Stored], places: Places) -> tuple[dict[str, bool], list[str]]:
    """The stored matrices that can be pruned, in the model's order, and whether each lies as [.., i, o]; and the names
    of those whose axes are not the model's.
    """
    prunable = {matrix.parameter: matrix.turned for matrix in decoder.matrices().values()}
    order = {key: number for number, key in enumerate(decoder.model.state_dict())}
    names = [name for name, (key, _) in places.items() if key in prunable and len(tensors[name].shape) > 1]
    names.sort(key=lambda name: (order[places[name][0]], name))
    rearranged = [name for name in names if not _keeps_rows(decoder.model, tensors[name], *places[name])]
    return {name: prunable[places[name][0]] for name in names if name not in rearranged}, rearranged


def _keeps_rows(model: Any, tensor: Stored, key: str, rule: Any) -> bool:
    """Whether the axes of the stored tensor are those of the model's."""
    known = rule is None or {type(step).__name__ for step in rule.operations} <= STACKING
    return known and tensor.shape[-1] == model.get_parameter(key).shape[-1]


def _read(
    tensors: Mapping[str, Stored], turned: Mapping[str, bool], patterns: list[str]
) -> tuple[list[Matrix], list[str], int]:
    """What was counted in the matrices, the faults of all other tensors, and the bytes that were read."""
    matrices: dict[str, Matrix] = {}
    odd, size = [], 0
    whole = sum(file.stat().st_size for file in {tensor.file for tensor in tensors.values()})
    with tqdm(total=whole, unit="B", unit_scale=True, desc="verify", leave=False, disable=None) as bar:
        for tensor, values in stored.read(tensors.values()):
            if tensor.name in turned:
                rows = values.mT if turned[tensor.name] else values
                matrices[tensor.name] = contract.count(tensor.name, rows, patterns)
            elif number := contract.nonfinite(values):
                odd.append(f"{tensor.name}: {number} NaN or infinite values")
            size += values.nbytes
            bar.update(values.nbytes)
    return [matrices[name] for name in turned], odd, size


def certify(folder: Path, manifest: dict[str, Any], results: dict[str, Any]) -> None:
    """Put into the folder what was done to the model: the run's manifest, its metrics, sparsity and mask by matrix.

    Sparsities and masks are read from the saved weights, once: a later command must not certify what was changed since.
    """
    place = folder / CERTIFICATE
    earlier, skipped = read_json(place, {}), sorted(results.get("skipped", {}))
    if "mask_sha256" in earlier:
        masks = {name: earlier[name] for name in ("sparsity_by_matrix", "mask_sha256_by_matrix", "mask_sha256")}
    else:
        model = manifest["config"]["model"]
        options = (model["blocks"], model["trust_remote_code"], model.get("routers", False), skipped)
        masks = contract.certificate(measure(folder, (), *options).matrices)
    files = earlier.get("sha256_by_file") or hashes(folder)
    outcome = {"status": "done", "metrics": results["metrics"], "skipped": skipped, "sha256_by_file": files}
    write_json(place, manifest | masks | outcome)
