"""One run, from configuration to results: check, load, prune, evaluate, record. Only here is anything instantiated."""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from experiments import checkpoint, identity, models, plot, provenance
from experiments.data.windows import sha256_of
from experiments.record import Names, Run, once, stored, write_json
from experiments.store import BlockStore
from prune.decoder import Decoder
from prune.method import Method
from prune.prune import Solved, prune

Log = Callable[..., None]


def make(part: dict[str, Any], **changes: Any) -> Any:
    """The object that a configuration describes; what its constructor raises comes out as it is."""
    try:
        return instantiate(part, _convert_="all", **changes)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


@dataclass(frozen=True)
class Parts:
    """The components a configuration names; building them reads no model and no data."""

    data: Any
    method: Method
    evaluators: dict[str, Any]
    trackers: list[Any]


def built(config: dict[str, Any]) -> Parts:
    """The components, after every check that is cheap; ValueError or OSError in one line for what cannot work."""
    method = Method(*(make(config[part]) for part in ("pattern", "metric", "allocator", "update")))
    for name, allowed in (("granularity", ("block", "submodule", "sequential")), ("propagate", ("pruned", "dense"))):
        if config[name] not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {config[name]}")
    method.pattern.check(config["allocator"]["sparsity"], {})
    models.check(config["model"]["path"])
    data, evaluators = make(config["data"]), {name: make(part) for name, part in (config["eval"] or {}).items()}
    trackers = [make(part) for part in (config["tracker"] or {}).values()]
    for part in ([data] if method.inputs else []) + [*evaluators.values(), *trackers]:
        part.check()
    return Parts(data, method, evaluators, trackers)


def run(config: dict[str, Any], names: Names) -> Run:
    """Do what of this run is not done yet; raises what went wrong, after recording it in the manifest."""
    record = Run.open(config, names)
    steps = {name: record.step(name, identity.by_content(part)) for name, part in (config["eval"] or {}).items()}
    kept = not config["save_model"] or (record.folder / "model").is_dir()
    if record.done and kept and all(path.exists() for path in steps.values()):
        return record
    provenance.forget_peaks(config["device"])
    try:
        with record.recorded() as listeners:
            parts = built(config)
            listeners.start(parts.trackers)
            execute(config, parts, record, steps, listeners.log)
    finally:
        gc.collect()  # the next job of a multirun starts with an empty device
        if config["device"].startswith("cuda"):
            torch.cuda.empty_cache()
    return record


def execute(config: dict[str, Any], parts: Parts, record: Run, steps: dict[str, Path], log: Log) -> None:
    """Dense evaluations, pruning, the model if it is kept, evaluations, results: each only if it is not there yet."""
    with record.stage("load"):
        decoder: Decoder = make(config["model"])
    record.manifest["model_commit"] = getattr(decoder.model.config, "_commit_hash", None)  # what a hub's `main` was
    parts.method.pattern.check(config["allocator"]["sparsity"], {n: w.shape for n, w in decoder.weights().items()})
    for name, evaluator in parts.evaluators.items():
        if getattr(evaluator, "dense", True):
            once(dense_step(config, name), lambda e=evaluator, n=name: evaluated(e, decoder, record, f"dense {n}"))
    decoder = pruned(config, parts, record, decoder, log)
    for name, evaluator in parts.evaluators.items():
        compute = lambda e=evaluator, n=name: evaluated(e, decoder, record, n)
        if config["allocator"]["sparsity"] == 0 and getattr(evaluator, "dense", True):
            compute = lambda n=name: stored(dense_step(config, n))  # nothing was removed: the numbers are there already
        log(once(steps[name], compute)["metrics"])
    results = assembled(config, record, steps, decoder)
    write_json(record.folder / "results.json", results)
    plot.layers(results, record.folder / "layers.png")
    BlockStore(record.folder, torch.float32).drop_weights()


def dense_step(config: dict[str, Any], name: str) -> Path:
    """Where the dense model's result of this evaluation is kept, for all runs of these outputs."""
    return Path(config["outputs"]) / "cache" / "dense" / f"{name}-{identity.dense(config, name)}.json"


def evaluated(evaluator: Any, decoder: Decoder, record: Run, stage: str) -> Any:
    """The evaluator's answer; the whole model is on the device only for those that say they need it."""
    with record.stage(stage), decoder.resident() if getattr(evaluator, "whole", False) else nullcontext():
        return evaluator(decoder)


def pruned(config: dict[str, Any], parts: Parts, record: Run, decoder: Decoder, log: Log) -> Decoder:
    """The pruned model: the one an earlier command kept, or this decoder, pruned in place and kept if asked for."""
    model = record.folder / "model"
    if model.is_dir():
        return make(config["model"], path=str(model), revision=None)
    tokens = calibration(parts, record, decoder) if parts.method.inputs else None
    store = BlockStore(record.folder, next(iter(decoder.weights().values())).dtype)
    with record.stage("prune"):
        walk = prune(decoder, tokens, parts.method, config["granularity"], config["propagate"], store)
        for step, solved in enumerate(
            tqdm(walk, "prune", len(decoder.blocks), unit="block", leave=False, disable=None)
        ):
            entry = once(block_step(record, solved.block), lambda s=solved: rows(s))
            error = {} if entry["error"] is None else {"block/error": entry["error"]}
            log(error | {"block/seconds": entry["seconds"]}, step)
    if config["save_model"]:
        with record.stage("save"):
            checkpoint.save(decoder, model, record.manifest)
    return decoder


def calibration(parts: Parts, record: Run, decoder: Decoder) -> Tensor:
    """The calibration windows, [n, t]; the manifest says which they were."""
    with record.stage("data"):
        tokens = decoder.readable(parts.data.calibration(decoder.tokenizer, decoder.limit))
    shape = {"sequences": tokens.shape[0], "length": tokens.shape[1], "sha256": sha256_of(tokens)}
    record.manifest["data"] = {"name": parts.data.name, **shape}
    record.write()
    return tokens


def block_step(record: Run, block: str) -> Path:
    """Where the rows of a block are kept."""
    return record.folder / "steps" / "blocks" / f"{block}.json"


def rows(solved: Solved) -> dict[str, Any]:
    """What the results say of a block and of each of its linears."""
    layers = [
        {
            "name": name,
            "block": solved.block,
            "shape": list(p.mask.shape),
            "sparsity": 1 - p.mask.double().mean().item(),
            "target": p.target,
            "notes": p.notes,
        }
        for name, p in solved.linears.items()
    ]
    return {"block": solved.block, "error": solved.error, "seconds": solved.seconds, "layers": layers}


def assembled(config: dict[str, Any], record: Run, steps: dict[str, Path], decoder: Decoder) -> dict[str, Any]:
    """results.json from the stored steps, those of earlier commands included."""
    earlier = stored(record.folder / "results.json", {})
    results = {part: earlier.get(part, {}) for part in ("metrics", "dense", "protocol", "step", "seconds")}
    for name, path in steps.items():
        outcome = stored(path, {})
        results["metrics"] |= outcome["metrics"]
        results["dense"] |= stored(dense_step(config, name), {}).get("metrics", {})
        results["protocol"][path.stem] = outcome["protocol"]
        results["step"] |= dict.fromkeys(outcome["metrics"], path.stem)
    results["seconds"] |= record.seconds
    blocks = [stored(block_step(record, f"{decoder.path}.{k}"), {}) for k in range(len(decoder.blocks))]
    results["layers"] = [layer for block in blocks for layer in block.pop("layers")]
    notes: dict[str, int] = {}
    for layer in results["layers"]:
        notes |= {key: notes.get(key, 0) + value for key, value in layer["notes"].items()}
    results |= {"blocks": blocks, "skipped": decoder.skipped(), "notes": notes}
    return results | {"memory": provenance.peaks(config["device"])}


def device(asked: str) -> str:
    """The device to use; ValueError for a GPU that is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device={asked}: no GPU that torch {torch.__version__} can use; set device=auto or device=cpu"
        )
    if asked.partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1 and the like, found {asked}")
    return asked
