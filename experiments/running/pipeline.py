"""One run, from configuration to results: check, load, prune, evaluate, record."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Any

from torch import Tensor
from tqdm import tqdm

from experiments.console.errors import one_line
from experiments.console.text import size
from experiments.data.token_cache import cached_windows
from experiments.data.windows import sha256_of
from experiments.evals.evaluator import Evaluator
from experiments.figures import depth
from experiments.files.disk import once, seal, sealed, shared
from experiments.models import certificate, checkpoint
from experiments.models.location import intact
from experiments.running.components import Parts, build, make
from experiments.running.out_of_memory import Tier, with_less
from experiments.running.process import large_pages
from experiments.runs import identity, sources
from experiments.runs.folder import Names, Run
from experiments.runs.identity import dense, evaluation, kept_in
from experiments.runs.results import (
    assemble,
    block_step,
    complete,
    dense_step,
    ended,
    has_blocks,
    measured,
    sound,
    tabulate_block,
)
from experiments.runs.stores import BlockStore, Surveys
from prune import ranks
from prune.decoder import Decoder
from prune.prune import Solved, prune

Tell = Callable[..., None]
log = logging.getLogger("experiments")


def run(config: dict[str, Any], names: Names, keep: bool = False) -> Run:
    """Do what of this run is not done yet; raises what went wrong, after recording it in the manifest.

    With `keep` the solved blocks stay on disk with their weights, for runs that build on them.
    """
    record = Run.open(config, names)
    ranks.told(record.say_others)
    if ranks.told(lambda: record.done and complete(record, keep)):
        record.say_done()
        return record
    gc.collect()  # what an earlier job of a multirun left in cycles
    large_pages()
    with record.alone(wait=keep):
        record.catch_up()
        store = BlockStore(record.folder)
        keep = keep or ranks.told(lambda: record.done and has_blocks(record.folder))
        done, whole = ranks.told(lambda: ended(record, keep))
        if done and whole:
            return record
        with record.recorded() as listeners:
            if not whole:  # but for the last word, where it was killed at the very end
                parts = replace(build(config), given=masks_given(config), keep=keep)
                refuse_edited(config)
                listeners.start(parts.trackers)
                work = lambda tier: execute(config, replace(parts, tier=tier), record, listeners.log)
                with_less(Tier(config["activations"], config["model"]["batch"]), record, work)
            if not keep:
                ranks.told(store.drop_weights)
    return record


def refuse_edited(config: dict[str, Any]) -> None:
    """ValueError where a part's source is no longer the one that named this run: what was imported may be either."""
    if edited := sources.edited(*identity.targets(config), *identity.LIBRARY):
        raise ValueError(f"{', '.join(edited)}: edited while this command ran; run it again, for the code of now")


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


def execute(config: dict[str, Any], parts: Parts, record: Run, tell: Tell) -> None:
    """Dense evaluations, pruning, the model if it is kept, evaluations, results: each only if it is not there yet."""
    evaluate_dense(config, parts, record)
    decoder = load_pruned(config, parts, record, tell)
    for name, evaluator in parts.evaluators.items():
        compute = partial(evaluate, evaluator, decoder, record, name)
        if record.manifest["sparsity"] == 0 and evaluator.dense:
            compute = partial(sealed, dense_step(config, name))  # nothing was removed: the numbers are there already
        step = record.steps[name]
        now = partial(evaluation, name, config["eval"][name])
        once(step, partial(settled, record, step.stem, now, compute))
        results = ranks.told(lambda: measured(record))
        tell({key: results["metrics"][key] for key, stem in results["step"].items() if stem == step.stem})
    ranks.told(lambda: conclude(record, decoder))


def conclude(record: Run, decoder: Decoder) -> None:
    """The results, put together from what was stored, their plot, and the certificate of a model that is kept."""
    results = assemble(record, decoder)
    depth.layers(results, record.folder / "layers.png")
    if record.config["save_model"]:
        certificate.certify(record.folder / "model", record.manifest, results)
    seal(record.folder / "results.json", results)  # the last: whoever finds it finds all


def evaluate_dense(config: dict[str, Any], parts: Parts, record: Run) -> None:
    """Evaluate the dense model where no run of these outputs has done it yet."""
    wanted = {name: e for name, e in parts.evaluators.items() if e.dense}
    decoder = cache(partial(load, config, parts, record))
    for name, evaluator in wanted.items():
        compute = lambda name=name, evaluator=evaluator: evaluate(evaluator, decoder(), record, f"dense {name}")
        step = dense_step(config, name)
        compute = partial(settled, record, step.stem, partial(dense, config, name), compute)
        shared(step, partial(sealed, step), partial(once, step, compute))


def settled(record: Run, name: str, now: Callable[[], str], compute: Callable[[], Any]) -> Any:
    """What an evaluation finds, if its files and those of the run are then still what its `name` says."""
    outcome = compute()
    ranks.told(record.refuse_changed)
    if ranks.told(now) != name:
        raise ValueError(f"eval={name.rpartition('-')[0]}: its files changed while they were read; run it again")
    return outcome


def load(config: dict[str, Any], parts: Parts, record: Run, **changes: Any) -> Decoder:
    """The model, dense or (with another path) pruned."""
    with record.stage("load"):
        decoder = make(config["model"], **changes)
    if parts.tier:
        parts.tier.apply(decoder, config["scratch"], record.folder)
    if not changes:
        record.settle("model_commit", getattr(decoder.model.config, "_commit_hash", None))  # what a hub's main was
    return decoder


def evaluate(evaluator: Evaluator, decoder: Decoder, record: Run, stage: str) -> Any:
    """The evaluator's answer; the whole model is on the device only for those that say they need it.

    Ranks that cannot share its work wait for the first one to do it.
    """
    if not evaluator.together:
        return ranks.told(lambda: measure(evaluator, decoder, record, stage))
    return measure(evaluator, decoder, record, stage)


def measure(evaluator: Evaluator, decoder: Decoder, record: Run, stage: str) -> Any:
    """The same, by this rank."""
    with record.stage(stage), decoder.resident() if evaluator.whole else nullcontext():
        try:
            return evaluator(decoder) | {"model": record.manifest["model"]}
        except ValueError as error:
            raise ValueError(f"eval={stage.rsplit(maxsplit=1)[-1]}: {error}") from error


def load_pruned(config: dict[str, Any], parts: Parts, record: Run, tell: Tell) -> Decoder:
    """The pruned model: the one an earlier command kept, or pruned now, and kept if that is asked for."""
    folder = record.folder / "model"
    if ranks.told(lambda: not parts.keep and sound(record) and intact(folder, kept_in(config))):
        return load(config, parts, record, path=str(folder), revision=None)
    decoder = load(config, parts, record)
    record.manifest["blocks"] = len(decoder.blocks)  # experiments.status counts them
    record.write()
    shapes = {name: tuple(weight.shape) for name, weight in decoder.weights().items()}
    parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
    tokens = calibration(parts, record, decoder) if parts.method.calibrated else None
    store = BlockStore(record.folder)
    with record.stage("prune"):
        ranks.told(lambda: forget(store, record))
        record.note_code(begun=(record.folder / "blocks").exists())
        walk = walked(config, parts, decoder, tokens, record)
        watched = tqdm(noted(record, walk), "prune", len(decoder.blocks), unit="block", leave=False, disable=None)
        for step, entry in enumerate(watched):
            error = {} if entry["error"] is None else {"block/error": entry["error"]}
            tell(error | {"block/seconds": entry["seconds"]}, step)
    if config["save_model"]:
        with record.stage("save"):
            ranks.told(lambda: None if intact(folder) else checkpoint.save(decoder, folder))
    return decoder


def noted(record: Run, walk: Iterator[Solved]) -> Iterator[dict[str, Any]]:
    """What the results say of each block, stored as soon as it is solved."""
    for solved in walk:
        ranks.told(record.refuse_changed)
        entry = once(block_step(record, solved.block), partial(tabulate_block, solved))
        del solved  # its weights: the next block is solved before the loop comes back here
        yield entry


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
            outputs = record.manifest["config"]["outputs"]
            tokens = decoder.readable(
                cached_windows(parts.data, "calibration", decoder.tokenizer, decoder.limit, outputs)
            )
        except ValueError as error:
            raise ValueError(f"data={parts.data.name}: {error}") from error
    shape = {"sequences": tokens.shape[0], "length": tokens.shape[1], "sha256": sha256_of(tokens)}
    record.settle("data", {"name": parts.data.name, **shape})
    if decoder.activations == "disk":
        layer = tokens.numel() * decoder.model.config.get_text_config().hidden_size * decoder.model.dtype.itemsize
        log.info("activations=disk: a layer of hidden states, %s, waits in %s", size(layer), decoder.scratch)
    return tokens
