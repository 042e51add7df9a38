"""What a run measured, put together from its stored steps."""

from collections import Counter
from collections.abc import Container
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.console import families
from experiments.files.disk import intact, seal, sealed
from experiments.models import location
from experiments.runs import identity, machine, protocol, record, sources
from experiments.runs.difference import paired_error
from experiments.runs.folder import Run
from experiments.runs.tasks import joined, singly

if TYPE_CHECKING:  # whether a run is done can be told without torch
    from torch import Tensor

    from prune.grid import Grid
    from prune.network import Network
    from prune.prune import Solved

NUMBERS = ("metrics", "dense", "difference_stderr")
ADDED = (
    *NUMBERS,
    "families",
    "protocol",
    "settings",
    "step",
    "seconds",
    "saved",
    "given",
    "stage_memory",
)  # parts to which later commands add


def finished(run: Run) -> bool:
    """Whether the run is done, and all that this command asks of it is there."""
    return run.done and complete(run, keep=False)


def complete(run: Run, keep: bool) -> bool:
    """Whether all that is asked for is there, as it was written; with `keep` the solved blocks too."""
    form = run.config["save_model"]
    if form and not location.saved(run.folder / "model", form, identity.kept_in(run.config)):
        return False
    there = all(sealed(file) is not None for file in [*run.steps.values(), run.folder / "results.json"])
    return there and sound(run) and not stale(run) and (not keep or has_blocks(run.folder))


def sound(run: Run) -> bool:
    """Whether what pruning leaves for good, masks and a row of the table for each block, is as it was written."""
    rows = sorted((run.folder / "steps" / "blocks").glob("*.json"))
    masks = sorted((run.folder / "masks").glob("*.safetensors"))
    same = [file.stem for file in rows] == [file.stem for file in masks]
    return same and all(sealed(file) is not None for file in rows) and all(map(intact, masks))


def has_blocks(folder: Path) -> bool:
    """Whether every block of a run that has masks has its weights too, all as they were written."""
    masks = list((folder / "masks").glob("*.safetensors"))
    return bool(masks) and all(intact(file) and intact(folder / "blocks" / file.name) for file in masks)


def stale(run: Run) -> dict[str, Any]:
    """results.json as its steps make it, where it has other numbers, of code that was edited in between; else {}."""
    stored = sealed(run.folder / "results.json")
    if stored is None:
        return {}
    now = stored | measured(run)
    numbers = [identity.fingerprint([results.get(part, {}) for part in NUMBERS]) for results in (stored, now)]
    return now if numbers[0] != numbers[1] else {}


def ended(run: Run, keep: bool) -> tuple[bool, bool]:
    """Whether the run is done, and whether it is `complete`; results.json then has the numbers of its steps."""
    put_together(run)
    if now := stale(run):
        seal(run.folder / "results.json", now)
    return run.done, complete(run, keep)


def put_together(run: Run) -> None:
    """Stores the answers to lists of tasks of which each task's own is there: no model is needed for that."""
    for name, settings in (run.config.get("eval") or {}).items():
        for place in (run.step, partial(dense_step, run.config)):
            if (each := singly(settings)) and sealed(whole := place(name, settings)) is None:
                answers = [sealed(place(name, one)) for one in each]
                if None not in answers:
                    seal(whole, joined(answers))


def dense_step(config: dict[str, Any], name: str, settings: dict[str, Any] | None = None) -> Path:
    """Where the dense model's result of this evaluation, or of one of its tasks, is kept for all runs."""
    return Path(config["outputs"]) / "cache" / "dense" / f"{identity.dense(config, name, settings)}.json"


def reference_file(config: dict[str, Any], name: str) -> Path:
    """Where what this evaluation holds models against is kept of the dense one, for all runs of these outputs."""
    return Path(config["outputs"]) / "cache" / "predictions" / f"{identity.dense(config, name)}.safetensors"


def block_step(run: Run, block: str) -> Path:
    """Where the rows of a block are kept."""
    return run.folder / "steps" / "blocks" / f"{block}.json"


def tabulate_block(solved: "Solved") -> dict[str, Any]:
    """What the results say of a block and of each of its linears."""
    layers = [
        {
            "name": name,
            "block": solved.block,
            "shape": list(p.mask.shape),
            "dtype": str(p.weight.dtype).removeprefix("torch."),
            "sparsity": 1 - p.mask.double().mean().item(),
            **p.facts,
            **({} if p.grid is None else tabulate_grid(p.grid, p.weight)),
        }
        for name, p in solved.linears.items()
    ]
    return {"block": solved.block, "error": solved.error, "seconds": solved.seconds, "layers": layers}


def tabulate_grid(grid: "Grid", weight: "Tensor") -> dict[str, Any]:
    """What they say of a quantised linear: bits of a code, grids of a row, and the share of all weights that are 0."""
    return {"bits": grid.bits, "grids": grid.scale.shape[1], "zeros": (weight == 0).double().mean().item()}


def assemble(run: Run, network: "Network") -> dict[str, Any]:
    """results.json from the stored steps, those of earlier commands included."""
    results = measured(run)
    costs = {"seconds": run.seconds, "saved": run.saved, "given": run.given, "stage_memory": run.memory}
    for part, told in costs.items():
        stages = results[part] | told
        known = {f"{stage}{record.AT_LEAST}" for stage in stages}
        results[part] = {stage: value for stage, value in stages.items() if stage not in known}
    blocks = [_rows(run, f"{network.path}.{k}") for k in range(len(network.blocks))]
    results["layers"] = [layer for block in blocks for layer in block.pop("layers")]
    notes: Counter[str] = Counter()
    for layer in results["layers"]:
        layer.pop("histograms", None)  # four fifths of all bytes: they stay in the rows of the blocks
        notes.update(layer["notes"])
    results |= {"blocks": blocks, "skipped": network.skipped(), "notes": dict(notes)}
    results["stored"] = stored(network, {layer["name"] for layer in results["layers"]})
    highest = machine.highest([*run.memory.values(), machine.peaks(run.config["device"])])
    del highest["host_added"]  # of each stage, and not of all where one of them was found in the cache
    return results | {"memory": highest | {"host_before": run.resident or None}}


def stored(network: "Network", names: Container[str]) -> dict[str, int]:
    """Weights and bytes of the whole model as it is saved dense, and the bytes of these matrices of it."""
    size = lambda weight: weight.numel() * (network.narrow or weight.dtype).itemsize
    whole = list(network.model.parameters())  # what is tied is there once
    linears = [weight for name, weight in network.weights().items() if name in names]
    counts = {"weights": sum(weight.numel() for weight in whole), "bytes": sum(map(size, whole))}
    return counts | {"linears": sum(map(size, linears))}


def pruning_cost(folder: Path) -> tuple[float | None, dict[str, Any]]:
    """Seconds in which a finished run prunes from nothing, None where that is not known, and its peaks meanwhile."""
    results = record.load(folder).results
    return results.get("seconds", {}).get("prune"), results.get("stage_memory", {}).get("prune", {})


def _rows(run: Run, block: str) -> dict[str, Any]:
    """What `tabulate_block` said of a block; ValueError where it is gone, though the pruned model was kept."""
    if (rows := sealed(block_step(run, block))) is None:
        raise ValueError(f"{block_step(run, block)} is gone; remove {run.folder} to prune again")
    return rows


def measured(run: Run) -> dict[str, Any]:
    """What the evaluations of this command say that are there, beside what results.json has of earlier ones."""
    earlier = sealed(run.folder / "results.json") or {}
    results = {part: earlier.get(part, {}) for part in ADDED}
    for name, path in run.steps.items():
        settings = run.config["eval"][name]
        outcome, dense = sealed(path), sealed(dense_step(run.config, name))
        if outcome is None:
            continue
        results["families"] |= outcome.get("families", {})
        families.learn(results["families"])
        keys = protocol.printed(results, path.stem, outcome)
        renamed = lambda values, keys=keys: {keys.get(key, key): value for key, value in values.items()}
        results["metrics"] |= renamed(outcome["metrics"])
        code = sources.code(*identity.targets(identity.read_by(settings)))
        results["protocol"][path.stem] = outcome["protocol"] | {"code": code}
        results["settings"][path.stem] = {"name": name, **settings}
        results["step"] |= dict.fromkeys(keys.values(), path.stem)
        if dense is not None:
            refuse_other_protocol(name, dense_step(run.config, name), dense["protocol"], outcome["protocol"])
            results["dense"] |= renamed(dense["metrics"])
            results["difference_stderr"] |= renamed(paired_errors(dense, outcome))
    return results


def paired_errors(dense: dict[str, Any], pruned: dict[str, Any]) -> dict[str, float]:
    """Standard error of each metric's difference to the dense model's, over the same windows or examples."""
    shared = [key for key in protocol.compared(pruned) if key in dense["metrics"]]
    errors = {key: paired_error(dense, pruned, key) for key in shared}
    return {key: error for key, error in errors.items() if error is not None}


def refuse_other_protocol(name: str, path: Path, dense: dict[str, Any], pruned: dict[str, Any]) -> None:
    """ValueError if a cached dense number does not measure what the pruned one does: another text, say."""
    if protocol.flat(dense) != protocol.flat(pruned):
        raise ValueError(f"eval={name}: the dense model was evaluated on other data; delete {path} and run again")
