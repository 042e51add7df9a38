"""What a run found, put together from its stored steps."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.files.disk import seal, sealed
from experiments.files.tensors import intact
from experiments.models import location
from experiments.runs import identity, memory, protocol, sources
from experiments.runs.difference import paired_error
from experiments.runs.folder import Run

if TYPE_CHECKING:  # whether a run is done can be told without torch
    from prune.decoder import Decoder
    from prune.prune import Solved

# What later commands add to.
NUMBERS = ("metrics", "dense", "difference_stderr")
PARTS = (*NUMBERS, "protocol", "settings", "step", "seconds", "stage_memory")


def steps_of(config: dict[str, Any], record: Run) -> dict[str, Path]:
    """Where what each evaluation of the run finds is kept, by name."""
    return {name: evaluation_step(config, record, name) for name in config.get("eval") or {}}


def evaluation_step(config: dict[str, Any], record: Run, name: str) -> Path:
    """Where what this evaluation finds in the pruned model is kept: by its settings, its files and its code."""
    return record.step(name, identity.evaluation(config["eval"][name]))


def whole(config: dict[str, Any], record: Run, steps: dict[str, Path], keep: bool) -> bool:
    """Whether all that is asked for is there, as it was written; with `keep` the solved blocks too."""
    model = not config["save_model"] or location.intact(record.folder / "model", identity.kept_in(config))
    there = all(sealed(file) is not None for file in [*steps.values(), record.folder / "results.json"])
    done = model and there and sound(record) and not stale(config, record, steps)
    if not (done and keep):
        return done
    from experiments.runs.stores import BlockStore  # noqa: PLC0415

    return BlockStore(record.folder).whole


def stale(config: dict[str, Any], record: Run, steps: dict[str, Path]) -> dict[str, Any]:
    """results.json as these steps make it, where it has other numbers, of code that was edited in between; else {}."""
    there = sealed(record.folder / "results.json")
    if there is None:
        return {}
    now = there | measured(config, record, steps)
    numbers = [identity.fingerprint([results.get(part, {}) for part in NUMBERS]) for results in (there, now)]
    return now if numbers[0] != numbers[1] else {}


def ended(config: dict[str, Any], record: Run, steps: dict[str, Path], keep: bool) -> tuple[bool, bool]:
    """Whether the run is done, and whether it is `whole`; results.json then has the numbers of these steps."""
    if now := stale(config, record, steps):
        seal(record.folder / "results.json", now)
    return record.done, whole(config, record, steps, keep)


def sound(record: Run) -> bool:
    """Whether what pruning leaves for good, masks and a row of the table for each block, is as it was written."""
    rows = sorted((record.folder / "steps" / "blocks").glob("*.json"))
    masks = sorted((record.folder / "masks").glob("*.safetensors"))
    same = [file.stem for file in rows] == [file.stem for file in masks]
    return same and all([*(sealed(file) is not None for file in rows), *map(intact, masks)])


def dense_step(config: dict[str, Any], name: str) -> Path:
    """Where the dense model's result of this evaluation is kept, for all runs of these outputs."""
    return Path(config["outputs"]) / "cache" / "dense" / f"{name}-{identity.dense(config, name)}.json"


def block_step(record: Run, block: str) -> Path:
    """Where the rows of a block are kept."""
    return record.folder / "steps" / "blocks" / f"{block}.json"


def rows_of(record: Run, block: str) -> dict[str, Any]:
    """What `tabulate_block` said of a block; ValueError where it is gone, though the pruned model was kept."""
    if (rows := sealed(block_step(record, block))) is None:
        raise ValueError(f"{block_step(record, block)} is gone; remove {record.folder} to prune again")
    return rows


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
        }
        for name, p in solved.linears.items()
    ]
    return {"block": solved.block, "error": solved.error, "seconds": solved.seconds, "layers": layers}


def assemble(config: dict[str, Any], record: Run, steps: dict[str, Path], decoder: "Decoder") -> dict[str, Any]:
    """results.json from the stored steps, those of earlier commands included."""
    results = measured(config, record, steps)
    results["seconds"] |= record.seconds
    results["stage_memory"] |= record.memory
    blocks = [rows_of(record, f"{decoder.path}.{k}") for k in range(len(decoder.blocks))]
    results["layers"] = [layer for block in blocks for layer in block.pop("layers")]
    for layer in results["layers"]:
        layer.pop("histograms", None)  # four fifths of all bytes: they stay in the rows of the blocks
    notes: Counter[str] = Counter()
    for layer in results["layers"]:
        notes.update(layer["notes"])
    results |= {"blocks": blocks, "skipped": decoder.skipped(), "notes": dict(notes)}
    return results | {"memory": memory.highest([*record.memory.values(), memory.peaks(config["device"])])}


def measured(config: dict[str, Any], record: Run, steps: dict[str, Path]) -> dict[str, Any]:
    """What the evaluations say that are there of these steps, beside what results.json has of earlier commands."""
    earlier = sealed(record.folder / "results.json") or {}
    results = {part: earlier.get(part, {}) for part in PARTS}
    for name, path in steps.items():
        outcome, dense = sealed(path), sealed(dense_step(config, name))
        if outcome is None:
            continue
        keys = protocol.printed(results, path.stem, outcome)
        renamed = lambda values, keys=keys: {keys.get(key, key): value for key, value in values.items()}
        results["metrics"] |= renamed(outcome["metrics"])
        code = sources.code(*identity.targets(config["eval"][name]))
        results["protocol"][path.stem] = outcome["protocol"] | {"code": code}
        results["settings"][path.stem] = {"name": name, **config["eval"][name]}
        results["step"] |= dict.fromkeys(keys.values(), path.stem)
        if dense is not None:
            refuse_other_protocol(name, dense_step(config, name), dense["protocol"], outcome["protocol"])
            results["dense"] |= renamed(dense["metrics"])
            results["difference_stderr"] |= renamed(paired_errors(dense, outcome))
    return results


def paired_errors(dense: dict[str, Any], pruned: dict[str, Any]) -> dict[str, float]:
    """Standard error of each metric's difference to the dense model's, over the same windows or examples."""
    found = {key: paired_error(dense, pruned, key) for key in protocol.compared(pruned) if key in dense["metrics"]}
    return {key: error for key, error in found.items() if error is not None}


def refuse_other_protocol(name: str, path: Path, dense: dict[str, Any], pruned: dict[str, Any]) -> None:
    """ValueError if a cached dense number does not measure what the pruned one does: another text, say."""
    if protocol.flat(dense) != protocol.flat(pruned):
        raise ValueError(f"eval={name}: the dense model was evaluated on other data; delete {path} and run again")
