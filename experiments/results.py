"""What a run found, put together from its stored steps."""

from collections import Counter
from pathlib import Path
from statistics import stdev
from typing import Any

from experiments import identity, protocol, provenance
from experiments.record import Run, read_json
from prune.decoder import Decoder
from prune.prune import Solved

PARTS = ("metrics", "dense", "difference_stderr", "protocol", "step", "seconds")  # what later commands add to


def dense_step(config: dict[str, Any], name: str) -> Path:
    """Where the dense model's result of this evaluation is kept, for all runs of these outputs."""
    return Path(config["outputs"]) / "cache" / "dense" / f"{name}-{identity.dense(config, name)}.json"


def block_step(record: Run, block: str) -> Path:
    """Where the rows of a block are kept."""
    return record.folder / "steps" / "blocks" / f"{block}.json"


def tabulate_block(solved: Solved) -> dict[str, Any]:
    """What the results say of a block and of each of its linears."""
    layers = [
        {
            "name": name,
            "block": solved.block,
            "shape": list(p.mask.shape),
            "sparsity": 1 - p.mask.double().mean().item(),
            "target": p.target,
            "wanted": p.wanted,
            "notes": p.notes,
        }
        for name, p in solved.linears.items()
    ]
    return {"block": solved.block, "error": solved.error, "seconds": solved.seconds, "layers": layers}


def assemble(config: dict[str, Any], record: Run, steps: dict[str, Path], decoder: Decoder) -> dict[str, Any]:
    """results.json from the stored steps, those of earlier commands included."""
    earlier = read_json(record.folder / "results.json", {})
    results = {part: earlier.get(part, {}) for part in PARTS}
    for name, path in steps.items():
        outcome, dense = read_json(path), read_json(dense_step(config, name))
        results["metrics"] |= outcome["metrics"]
        results["protocol"][path.stem] = outcome["protocol"]
        results["step"] |= dict.fromkeys(outcome["metrics"], path.stem)
        if dense is not None:
            refuse_other_protocol(name, dense_step(config, name), dense["protocol"], outcome["protocol"])
            results["dense"] |= dense["metrics"]
            results["difference_stderr"] |= paired_errors(dense, outcome)
    results["seconds"] |= record.seconds
    blocks = [read_json(block_step(record, f"{decoder.path}.{k}")) for k in range(len(decoder.blocks))]
    results["layers"] = [layer for block in blocks for layer in block.pop("layers")]
    notes: Counter[str] = Counter()
    for layer in results["layers"]:
        notes.update(layer["notes"])
    results |= {"blocks": blocks, "skipped": decoder.skipped(), "notes": dict(notes)}
    return results | {"memory": provenance.peaks(config["device"])}


def paired_errors(dense: dict[str, Any], pruned: dict[str, Any]) -> dict[str, float]:
    """Standard error of a perplexity's difference to the dense model's, over the same windows (delta method).

    With mean losses m and m0 the difference is e^m - e^m0; a window with losses l and l0 moves it by e^m l - e^m0 l0.
    """
    pairs = [part.get("details", {}).get("losses", []) for part in (pruned, dense)]
    key = next((name for name in pruned["metrics"] if name.startswith("ppl/")), None)
    if key is None or min(map(len, pairs)) < 2:
        return {}
    slopes = pruned["metrics"][key], dense["metrics"][key]
    moves = [slopes[0] * loss - slopes[1] * loss0 for loss, loss0 in zip(*pairs, strict=True)]
    return {key: stdev(moves) / len(moves) ** 0.5}


def refuse_other_protocol(name: str, path: Path, dense: dict[str, Any], pruned: dict[str, Any]) -> None:
    """ValueError if a cached dense number does not measure what the pruned one does: another text, say."""
    if protocol.flat(dense) != protocol.flat(pruned):
        raise ValueError(f"eval={name}: the dense model was evaluated on other data; delete {path} and run again")
