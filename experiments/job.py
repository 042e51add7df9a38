"""One run, from configuration to results: check, load, prune, evaluate, record. Only here is anything instantiated."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor
from tqdm import tqdm

from experiments import checkpoint, identity, models, plot, provenance
from experiments.data.windows import sha256_of
from experiments.hints import one_line
from experiments.record import Names, Run, once, read_json, write_json
from experiments.results import assemble, block_step, dense_step, tabulate_block
from experiments.store import BlockStore
from experiments.surveys import Surveys
from prune.block import Granularity, Propagate, Reference
from prune.decoder import Decoder
from prune.method import Method
from prune.prune import Solved, prune

Tell = Callable[..., None]
ALLOWED = {"granularity": get_args(Granularity), "propagate": get_args(Propagate), "reference": get_args(Reference)}
log = logging.getLogger("experiments")


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
    given: BlockStore | None = None  # the solved blocks of the run that this one builds on
    keep: bool = False  # whether another run builds on this one: its blocks stay on disk


def build(config: dict[str, Any]) -> Parts:
    """The components, after every check that is cheap; ValueError or OSError in one line for what cannot work."""
    try:
        method = Method(*(make(config[part]) for part in ("pattern", "metric", "allocator", "update")))
        for name, allowed in ALLOWED.items():
            if config[name] not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {config[name]}")
        method.pattern.check(config["allocator"]["sparsity"], {})
        method.check(config["given"] and config["given"]["names"]["method"])
        models.check(config["model"]["path"])
        if config["scratch"] and not Path(config["scratch"]).is_dir():
            raise ValueError(f"scratch={config['scratch']}: no such folder; make it, or leave scratch out")
        if config["given"]:
            build(config["given"]["config"])
        data = make(config["data"])
        evaluators = {name: make(part) for name, part in (config.get("eval") or {}).items()}
        trackers = [make(part) for part in (config.get("tracker") or {}).values()]
        for part in ([data] if method.calibrated else []) + [*evaluators.values(), *trackers]:
            part.check()
    except TypeError as error:
        raise ValueError(f"a setting is of the wrong kind: {error}; --cfg job shows them all") from error
    return Parts(data, method, evaluators, trackers)


def run(config: dict[str, Any], names: Names, keep: bool = False) -> Run:
    """Do what of this run is not done yet; raises what went wrong, after recording it in the manifest.

    With `keep` the solved blocks stay on disk with their weights, for runs that build on them.
    """
    record = Run.open(config, names)
    steps = {name: record.step(name, identity.by_content(part)) for name, part in (config.get("eval") or {}).items()}
    store = BlockStore(record.folder)
    kept = (not config["save_model"] or (record.folder / "model").is_dir()) and (not keep or store.whole)
    keep = keep or (record.done and store.whole)
    if record.done and kept and all(path.exists() for path in [*steps.values(), record.folder / "results.json"]):
        note_other_code(record)
        return record
    gc.collect()  # what an earlier job of a multirun left in cycles
    with record.recorded() as listeners:
        parts = replace(build(config), given=masks_given(config), keep=keep)
        provenance.forget_peaks(config["device"])
        listeners.start(parts.trackers)
        execute(config, parts, record, steps, listeners.log)
        if not keep:
            store.drop_weights()
    return record


def masks_given(config: dict[str, Any]) -> BlockStore | None:
    """The solved blocks of the run that this one builds on, after doing what of it is not done yet; None if none is."""
    if not config["given"]:
        return None
    inner, names = config["given"]["config"], Names(**config["given"]["names"])
    log.info("given=%s: its masks first", names.method)
    try:
        return BlockStore(run(inner, names, keep=True).folder)
    except Exception as error:
        raise ValueError(f"given={names.method}: {one_line(error)}") from error


def note_other_code(record: Run) -> None:
    """Say that nothing is computed, and what has changed since: neither code nor versions are in the identity."""
    log.info("done on %s; nothing to compute, and nothing is logged again", record.told().get("finished"))
    then, now = record.told().get("pruned"), {"commit": provenance.code()["commit"], **provenance.versions()}
    if then:
        before = {"commit": then["commit"], **then["versions"]}
        changed = [f"{name} {before[name]}, now {now[name]}" for name in now if before.get(name) != now[name]]
        if changed:
            said = "computed with %s; remove %s to compute it again"
            log.warning(said, "; ".join(changed), record.folder)


def execute(config: dict[str, Any], parts: Parts, record: Run, steps: dict[str, Path], tell: Tell) -> None:
    """Dense evaluations, pruning, the model if it is kept, evaluations, results: each only if it is not there yet."""
    evaluate_dense(config, parts, record)
    decoder = load_pruned(config, parts, record, tell)
    for name, evaluator in parts.evaluators.items():
        compute = partial(evaluate, evaluator, decoder, record, name)
        if record.manifest["sparsity"] == 0 and getattr(evaluator, "dense", True):
            compute = partial(read_json, dense_step(config, name))  # nothing was removed: the numbers are there already
        tell(once(steps[name], compute)["metrics"])
    results = assemble(config, record, steps, decoder)
    write_json(record.folder / "results.json", results)
    plot.layers(results, record.folder / "layers.png")
    if config["save_model"]:
        checkpoint.certify(record.folder / "model", record.manifest, results)


def evaluate_dense(config: dict[str, Any], parts: Parts, record: Run) -> None:
    """Evaluate the dense model where no run of these outputs has done it yet."""
    wanted = {name: e for name, e in parts.evaluators.items() if getattr(e, "dense", True)}
    missing = {name: e for name, e in wanted.items() if not dense_step(config, name).exists()}
    if missing:
        decoder = load(config, record)
        for name, evaluator in missing.items():
            once(dense_step(config, name), partial(evaluate, evaluator, decoder, record, f"dense {name}"))


def load(config: dict[str, Any], record: Run, **changes: Any) -> Decoder:
    """The model, dense or (with another path) pruned."""
    with record.stage("load"):
        decoder = make(config["model"], **changes)
    if not changes:
        record.manifest["model_commit"] = getattr(decoder.model.config, "_commit_hash", None)  # what a hub's main was
    return decoder


def evaluate(evaluator: Any, decoder: Decoder, record: Run, stage: str) -> Any:
    """The evaluator's answer; the whole model is on the device only for those that say they need it."""
    with record.stage(stage), decoder.resident() if getattr(evaluator, "whole", False) else nullcontext():
        try:
            return evaluator(decoder)
        except ValueError as error:
            raise ValueError(f"eval={stage.rsplit(maxsplit=1)[-1]}: {error}") from error


def load_pruned(config: dict[str, Any], parts: Parts, record: Run, tell: Tell) -> Decoder:
    """The pruned model: the one an earlier command kept, or pruned now, and kept if that is asked for."""
    folder = record.folder / "model"
    if folder.is_dir() and not parts.keep:
        return load(config, record, path=str(folder), revision=None)
    decoder = load(config, record)
    decoder.scratch = config["scratch"]
    shapes = {name: tuple(weight.shape) for name, weight in decoder.weights().items()}
    parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
    tokens = calibration(parts, record, decoder) if parts.method.calibrated else None
    store = BlockStore(record.folder)
    with record.stage("prune"):
        forget(store, record)
        walk = walked(config, parts, decoder, tokens, record)
        for step, solved in enumerate(
            tqdm(walk, "prune", len(decoder.blocks), unit="block", leave=False, disable=None)
        ):
            entry = once(block_step(record, solved.block), partial(tabulate_block, solved))
            error = {} if entry["error"] is None else {"block/error": entry["error"]}
            tell(error | {"block/seconds": entry["seconds"]}, step)
    record.manifest["pruned"] = {fact: record.manifest[fact] for fact in ("commit", "dirty", "command", "versions")}
    if config["save_model"] and not folder.is_dir():
        with record.stage("save"):
            checkpoint.save(decoder, folder)
    return decoder


def walked(
    config: dict[str, Any], parts: Parts, decoder: Decoder, tokens: Tensor | None, record: Run
) -> Iterator[Solved]:
    """The walk over the blocks with everything that is known on disk: solved blocks, given ones, model statistics."""
    return prune(
        decoder,
        tokens,
        parts.method,
        config["granularity"],
        config["propagate"],
        done=BlockStore(record.folder),
        given=parts.given,
        reference=config["reference"],
        remember=Surveys(config, record.manifest["data"]),
    )


def forget(store: BlockStore, record: Run) -> None:
    """Drop what earlier commands noted of blocks that are going to be solved again."""
    for note in (record.folder / "steps" / "blocks").glob("*.json"):
        if note.stem not in store:
            note.unlink()


def calibration(parts: Parts, record: Run, decoder: Decoder) -> Tensor:
    """The calibration windows, [n, t]; the manifest says which they were."""
    with record.stage("data"):
        try:
            tokens = decoder.readable(parts.data.calibration(decoder.tokenizer, decoder.limit))
        except ValueError as error:
            raise ValueError(f"data={parts.data.name}: {error}") from error
    shape = {"sequences": tokens.shape[0], "length": tokens.shape[1], "sha256": sha256_of(tokens)}
    record.manifest["data"] = {"name": parts.data.name, **shape}
    record.write()
    return tokens


def device(asked: str) -> str:
    """The device to use; ValueError for a GPU that is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device={asked}: no GPU that torch {torch.__version__} can use; set device=auto or device=cpu"
        )
    if asked.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1 and the like, found {asked}")
    return asked
