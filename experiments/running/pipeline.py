"""One run, from configuration to results: check, load, prune, evaluate, record."""

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.composing.method import make
from experiments.console.bars import labelled
from experiments.console.errors import one_line
from experiments.console.text import size
from experiments.data.generated import generated_windows
from experiments.data.token_cache import cached_windows
from experiments.data.windows import facts_of
from experiments.evals.evaluator import Evaluator
from experiments.files.disk import intact as intact_file
from experiments.files.disk import once, seal, sealed, shared
from experiments.files.tensors import read_tensors, write_tensors
from experiments.models import certificate, location, packing, saving
from experiments.models.load import sample_shape
from experiments.running.components import Parts, build
from experiments.running.out_of_memory import Tier, with_less
from experiments.running.process import give_back, large_pages
from experiments.runs import bits, identity, machine, sources
from experiments.runs.answers import write_answers
from experiments.runs.folder import GENERATION, Names, Run
from experiments.runs.identity import dense, evaluation, kept_in
from experiments.runs.record import curves
from experiments.runs.results import (
    assemble,
    block_step,
    complete,
    dense_step,
    ended,
    has_blocks,
    measured,
    pruning_cost,
    reference_file,
    sound,
    tabulate_block,
)
from experiments.runs.stores import BlockStore, Surveys
from experiments.runs.tasks import joined, singly
from prune import ranks
from prune.clock import Clock, clocked
from prune.feeder import Samples
from prune.network import Network
from prune.prune import Solved, prune

log = logging.getLogger("experiments")


def run(record: Run, keep: bool = False) -> Run:
    """Do what of this run is not done yet; raises what went wrong, after recording it in the manifest.

    With `keep` the solved blocks stay on disk with their weights, for runs that build on them.
    """
    ranks.told(record.say_others)
    if ranks.told(lambda: record.done and complete(record, keep)):
        record.say_done()
        return record
    large_pages()
    with record.alone(wait=keep):
        record.catch_up()
        store = BlockStore(record.folder)
        keep = keep or ranks.told(lambda: record.done and has_blocks(record.folder))
        done, whole = ranks.told(lambda: ended(record, keep))
        if done and whole:
            return record
        with record.recorded():
            if not whole:  # but for the last word, where it was killed at the very end
                config = record.config
                parts, given = build(config), masks_given(config)
                refuse_edited(config)
                record.track(parts.trackers)
                give_back()  # what earlier jobs of a multirun left, in cycles too
                record.resident = machine.begin_run()
                pipeline = Pipeline(config, parts, record, given, keep)
                with_less(Tier(config["activations"], config["model"]["batch"]), record, pipeline.execute)
            if not keep and "unsaved" not in record.manifest:
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
    names = Names(**config["given"]["names"])
    log.info("given=%s: its masks first", names.method)
    try:
        return BlockStore(run(Run.open(config["given"]["config"], names), keep=True).folder)
    except Exception as error:
        raise ValueError(f"given={names.method}: {one_line(error)}") from error


@dataclass(frozen=True)
class Pipeline:
    """What a run does, in order.

    given: the solved blocks of the run that this one builds on. keep: whether another run builds on this one.
    """

    config: dict[str, Any]
    parts: Parts
    record: Run
    given: BlockStore | None
    keep: bool

    def execute(self, tier: Tier) -> None:
        """Dense evaluations, pruning, the model if it is kept, evaluations, results: each only if it is not there."""
        self.evaluate_dense(tier)
        network = self.load_pruned(tier)
        for name, evaluator in self.parts.evaluators.items():
            step = self.record.steps[name]
            if self.record.manifest["method"] == "dense" and evaluator.dense:
                copy = partial(sealed, dense_step(self.config, name))  # the numbers are there
                stem_now = partial(evaluation, name, self.config["eval"][name])
                once(step, partial(self.settled, step.stem, stem_now, copy))
            else:
                self.refer(name, evaluator, step, partial(self.load, tier))
                self.answer(name, self.config["eval"][name], evaluator, lambda: network, of_dense=False)
            results = ranks.told(lambda: measured(self.record))
            self.record.log(
                {key: results["metrics"][key] for key, stem in results["step"].items() if stem == step.stem}
            )
        ranks.told(lambda: self.conclude(network))

    def conclude(self, network: Network) -> None:
        """The results, put together from what was stored, and the certificate of a model that is kept."""
        results = assemble(self.record, network)
        write_answers(self.record)
        self.record.log(bits.flat(results, self.config))
        if self.config["save_model"] and "unsaved" not in self.record.manifest:
            certificate.certify(self.record.folder / "model", self.record.manifest, results)
        seal(self.record.folder / "results.json", results)  # the last: whoever finds it finds all

    def evaluate_dense(self, tier: Tier) -> None:
        """Evaluate the dense model where no run of these outputs has done it yet."""
        network = cache(partial(self.load, tier))
        for name, evaluator in self.parts.evaluators.items():
            self.refer(name, evaluator, self.record.steps[name], network)
            if evaluator.dense:
                self.refer(name, evaluator, dense_step(self.config, name), network)
                self.answer(name, self.config["eval"][name], evaluator, network, of_dense=True)

    def answer(
        self, name: str, settings: dict[str, Any], evaluator: Evaluator, network: Callable[[], Network], of_dense: bool
    ) -> Any:
        """What an evaluation finds in a model, stored; of several tasks each one's by itself, then all together."""
        if of_dense:
            step, stem_now = dense_step(self.config, name, settings), partial(dense, self.config, name, settings)
        else:
            step, stem_now = self.record.step(name, settings), partial(evaluation, name, settings)
        stage = f"dense {name}" if of_dense else name

        def compute() -> Any:
            if not (each := singly(settings)):
                return self.evaluate(evaluator, network(), stage)
            ask = lambda one: self.answer(name, one, replace(evaluator, tasks=one["tasks"]), network, of_dense)
            return joined([ask(one) if of_dense else self.charged(name, one, ask) for one in each])

        compute_once = partial(once, step, partial(self.settled, step.stem, stem_now, compute))
        return shared(step, partial(sealed, step), compute_once) if of_dense else compute_once()

    def charged(self, name: str, one: dict[str, Any], ask: Callable[[dict[str, Any]], Any]) -> Any:
        """The answer to one of several tasks; what it took counts, where an earlier command had it from this run."""
        stem, before = self.record.step(name, one).stem, self.record.seconds.get(name)
        outcome = ask(one)
        if self.record.seconds.get(name) == before and stem not in self.record.counted:
            self.record.charge(name, outcome["cost"]["seconds"], outcome["cost"]["peaks"])
        self.record.counted.add(stem)
        return outcome

    def refer(self, name: str, evaluator: Evaluator, step: Path, network: Callable[[], Network]) -> None:
        """Where a model is still to be held against the dense one, in this step, have what that needs in the cache."""
        if not evaluator.referred or ranks.told(lambda: sealed(step)) is not None:
            return
        file, stem_now = reference_file(self.config, name), partial(dense, self.config, name)
        what = f"{self.record.manifest['model']}, eval={name}"

        def make() -> None:
            model = network()
            compute = lambda: self.staged(evaluator, model, f"dense {name}", lambda: evaluator.reference(model))
            tensors = self.settled(file.stem, stem_now, compute)
            ranks.told(lambda: write_tensors(tensors, file, what=what))

        shared(file, lambda: intact_file(file), make)

    def settled(self, stem: str, stem_now: Callable[[], str], compute: Callable[[], Any]) -> Any:
        """What an evaluation finds, if its files and those of the run are then still what the name of its step says."""
        outcome = compute()
        ranks.told(self.record.refuse_changed)
        if ranks.told(stem_now) != stem:
            raise ValueError(f"eval={stem.rpartition('-')[0]}: its files changed while they were read; run it again")
        return outcome

    def load(self, tier: Tier, **changes: Any) -> Network:
        """The model, dense or (with another path) pruned."""
        with self.record.stage("load"):
            network = make(self.config["model"], **changes)
        tier.apply(network, self.config["scratch"], self.record.folder)
        if not changes:  # what a hub's main was
            self.record.settle("model_commit", getattr(network.model.config, "_commit_hash", None))
        return network

    def evaluate(self, evaluator: Evaluator, network: Network, stage: str) -> Any:
        """The evaluator's answer; ranks that cannot share its work wait for the first one to do it."""
        if evaluator.together:
            return self.measure(evaluator, network, stage)
        return ranks.told(lambda: self.measure(evaluator, network, stage))

    def measure(self, evaluator: Evaluator, network: Network, stage: str) -> Any:
        """The same, by this rank, with what its numbers are, and what it cost."""
        file = partial(reference_file, self.config, stage.removeprefix("dense "))
        beside = [read_tensors(file())[0]] if evaluator.referred else []
        before = self.record.seconds.get(stage, 0.0)
        outcome = self.staged(evaluator, network, stage, lambda: evaluator(network, *beside))
        declared = {name: asdict(family) for name, family in evaluator.families.items()}
        cost = {"seconds": self.record.seconds[stage] - before, "peaks": machine.peaks(self.config["device"])}
        return outcome | {"model": self.record.manifest["model"], "families": declared, "cost": cost}

    def staged(self, evaluator: Evaluator, network: Network, stage: str, ask: Callable[[], Any]) -> Any:
        """What is asked of a model, as a stage; all of it is on the device only for those that say they need it."""
        label = stage if stage.startswith("dense ") else f"pruned {stage}"
        place = network.resident() if evaluator.whole else nullcontext()
        with self.record.stage(stage), labelled(label), place:
            try:
                return ask()
            except ValueError as error:
                raise ValueError(f"eval={stage.rsplit(maxsplit=1)[-1]}: {error}") from error

    def load_pruned(self, tier: Tier) -> Network:
        """The pruned model: the one an earlier command kept, or pruned now, and kept if that is wanted."""
        folder, form = self.record.folder / "model", self.config["save_model"]
        if ranks.told(lambda: not self.keep and sound(self.record) and self.loadable(folder)):
            return self.load(tier, path=str(folder), revision=None)
        network = self.load(tier)
        if form == "packed":  # of a model from the hub its files tell it only now
            packing.suits(network, network.home.folder)
        self.record.manifest["blocks"] = len(network.blocks)  # experiments.status counts them
        self.record.write()
        shapes = {name: tuple(weight.shape) for name, weight in network.weights().items()}
        self.parts.method.fits(self.config["allocator"]["sparsity"], shapes)
        self.prune(network, self.calibration(network) if self.parts.method.calibrated else None)
        if form:
            self.save(network, folder, form)
        return network

    def save(self, network: Network, folder: Path, form: bool | str) -> None:
        """Keep the pruned model; where its codes cannot be packed its blocks stay instead, and the run goes on."""
        store = BlockStore(self.record.folder) if form == "packed" else None
        try:
            with self.record.stage("save"), labelled("save"):
                ranks.told(lambda: None if location.saved(folder, form) else saving.save(network, folder, store))
        except ValueError as error:
            if store is None:
                raise
            kept = self.record.folder / "blocks"
            self.record.manifest["unsaved"] = f"{one_line(error)}, which finds the solved blocks in {kept}"

    def loadable(self, folder: Path) -> bool:
        """Whether the pruned model lies there, in plain weights, and these are what is asked for."""
        there = location.intact(folder, kept_in(self.config))
        return there and not location.packed(folder) and self.config["save_model"] != "packed"

    def calibration(self, network: Network) -> Samples:
        """The calibration samples; the manifest says which they were."""
        source, outputs = self.parts.data, self.config["outputs"]
        try:
            if source.generated:
                samples = network.readable(self.generated(network))
            else:
                with self.record.stage("data"):
                    read = cached_windows(source, "calibration", network.processor, network.limit, outputs)
                    samples = network.readable(read)
        except ValueError as error:
            raise ValueError(f"data={source.name}: {error}") from error
        self.record.settle("data", {"name": source.name, **facts_of(samples)})
        if network.activations == "disk":
            count, hidden = sample_shape(network.model, network.path, samples)
            layer = len(samples) * count * hidden * network.model.dtype.itemsize
            log.info("activations=disk: a layer of hidden states, %s, waits in %s", size(layer), network.scratch)
        return samples

    def generated(self, network: Network) -> Tensor:
        """Calibration windows that the dense model writes; what that takes is told of every run that has them."""
        model = lambda: [identity.model(self.config), self.config["batch"], identity.circumstances()]
        with self.record.stage(GENERATION), labelled(GENERATION):
            tokens, before = generated_windows(self.parts.data, network, model, self.config["outputs"])
        if before:
            spent = self.record.seconds[GENERATION]
            self.record.charge(GENERATION, before["seconds"] - spent, before["peaks"])
        return tokens

    def prune(self, network: Network, samples: Samples | None) -> None:
        """The walk over the blocks with all that is known on disk: solved blocks, given ones, model statistics."""
        store = BlockStore(self.record.folder)
        surveys = Surveys(self.config, self.record.manifest["data"], self.record.counted)
        with self.record.stage("prune"), labelled("prune"):
            ranks.told(lambda: forget(store, self.record))
            self.record.note_code(begun=(self.record.folder / "blocks").exists())
            walk = prune(
                network,
                samples,
                self.parts.method,
                self.config["granularity"],
                self.config["propagate"],
                done=store,
                given=self.given,
                remember=surveys,
            )
            for step, entry in enumerate(noted(self.record, walk, store)):
                self.record.log(curves(entry), step)
        method = self.parts.method if self.given is None else self.parts.method.masked
        for statistic in method.surveyed:
            self.record.charge("prune", *ranks.told(partial(surveys.unspent, statistic)))
        if self.given is not None:
            self.record.charge("prune", *ranks.told(partial(pruning_cost, self.given.folder)), given=True)


def noted(record: Run, walk: Iterator[Solved], store: BlockStore) -> Iterator[dict[str, Any]]:
    """What the results say of each block, stored as soon as it is solved; one of an earlier command is charged for."""
    passed = 0.0  # seconds in which blocks were run, which one that is read back is as well
    with clocked(Clock()) as clock:
        for solved in walk:
            ranks.told(record.refuse_changed)
            entry = once(block_step(record, solved.block), partial(tabulate_block, solved))
            before, passed = passed, clock.seconds.get("propagate", 0.0)
            if solved.block in store.loaded - record.counted:
                record.charge("prune", max(0.0, solved.seconds - (passed - before)))
            record.counted.add(solved.block)
            del solved  # its weights: the next block is solved before the loop comes back here
            yield entry


def forget(store: BlockStore, record: Run) -> None:
    """Drop what earlier commands noted of blocks that are going to be solved again."""
    for note in (record.folder / "steps" / "blocks").glob("*.json"):
        if note.stem not in store:
            note.unlink()
