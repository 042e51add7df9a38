"""Updates in sequence: each goes on from the one before, one that would undo another is refused, runs are named so."""

import json
import re
import shlex

import pytest
import torch

from experiments.composing import command
from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.composing.method import effect, method
from prune.allocators.uniform import Uniform
from prune.chain import Chain
from prune.correction import Correction
from prune.method import Method
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.quantizers.minmax import MinMax
from prune.statistics.inputs import Gram
from prune.updates.admm import ADMM
from prune.updates.barber import Barber
from prune.updates.dsnot import DSnoT
from prune.updates.reconstruct import Reconstruct
from prune.updates.refit import Refit
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.answers import answer, place, run
from tests.faults import ask
from tests.test_plan import work
from tests.tiny import Memory, network, tokens

SCORES, ANY, FEW = OBS(), Unstructured("matrix"), ADMM(iterations=5, selections=3)
LOCAL = Reconstruct(epochs=2, batch=2, reference="pruned")


def solve(update, metric=SCORES, pattern=ANY, given=None, done=None, **more):
    """The answers of a whole model by full name."""
    solved = {}
    method = Method(pattern, metric, Uniform(0.5), update, **more)
    for block in prune(network(batch=1), tokens(8), method, done=done, given=given):
        solved |= block.linears
    return solved


def test_the_first_block_is_that_of_two_runs_one_on_the_masks_and_weights_of_the_other():
    """Later blocks are not: the second run of two calibrates on its own stream, the first did on its own, too."""
    first, given = solve(Chain((SparseGPT(), LOCAL))), Memory()
    solve(SparseGPT(), done=given)
    second = solve(LOCAL, given=given)
    for name in given["model.layers.0"].linears:
        assert torch.equal(first[name].mask, second[name].mask)
        assert torch.equal(first[name].weight, second[name].weight)
        assert first[name].measures["loss"] < first[name].measures["loss_before"]


@pytest.mark.parametrize("pattern", [Unstructured("row"), NM(2, 4)])
def test_a_later_update_keeps_the_masks_of_the_first(pattern):
    chained = solve(Chain((FEW, LOCAL)), Wanda(), pattern)
    alone = solve(FEW, Wanda(), pattern)
    for name, p in chained.items():
        assert ".layers.0." not in name or torch.equal(p.mask, alone[name].mask)
        assert not p.weight[~p.mask].any()


def test_a_solver_behind_a_mask_chooser_holds_its_mask():
    chained, swapped = solve(Chain((DSnoT(), FEW)), Wanda()), solve(DSnoT(), Wanda())
    for name, p in chained.items():
        if ".layers.0." in name:
            assert torch.equal(p.mask, swapped[name].mask) and p.notes.items() >= swapped[name].notes.items()


def test_the_best_chain_goes_on_behind_a_solved_block_with_the_same_bits():
    """The dense model's stream is carried past a block that is read back, and past those that another run solved."""
    chain, whole, half = Chain((FEW, Reconstruct(epochs=2, batch=2))), Memory(), Memory()
    found = [solve(chain, Wanda(), done=whole, correction=Correction(0.5))]
    half.save(whole.load("model.layers.0"))
    found.append(solve(chain, Wanda(), done=half, correction=Correction(0.5)))
    found.append(solve(chain, Wanda(), correction=Correction(0.5)))
    for name, p in found[0].items():
        for other in found[1:]:
            assert torch.equal(p.weight, other[name].weight) and torch.equal(p.mask, other[name].mask), name


def test_only_the_last_update_rounds_so_that_a_chain_ends_on_the_grid():
    for name, p in solve(Chain((SparseGPT(), LOCAL)), quantizer=MinMax(bits=4)).items():
        assert torch.equal(p.grid.nearest(p.weight), p.weight), name


@pytest.mark.parametrize(
    ("updates", "line"),
    [
        ((LOCAL, SparseGPT()), "SparseGPT starts from the dense weights and would undo Reconstruct"),
        ((ADMM(), DSnoT()), "DSnoT starts from the dense weights and would undo ADMM"),
        ((ADMM(), Zero()), "Zero starts from the dense weights and would undo ADMM"),
        ((SparseGPT(), Barber()), "Barber starts from the dense weights and would undo SparseGPT"),
        ((Reconstruct(), LOCAL), "the updates of a chain want other targets"),
    ],
)
def test_a_chain_that_undoes_itself_is_refused(updates, line):
    with pytest.raises(ValueError, match=line):
        Chain(updates)
    assert Chain((SparseGPT(), Barber(retain_reconstruction=True))).runs_block


def test_the_exact_least_squares_behind_a_solver_lose_no_more_than_the_solver():
    """Of each matrix of the first block, on the input that both were solved for, damped alike."""
    first = {name: solve(update, Wanda()) for name, update in {"one": FEW, "two": Chain((FEW, Refit()))}.items()}
    subject, data = network(batch=1), tokens(8)
    block = next(iter(subject.walk(data)))
    found = block.collect([Gram()], block.weights)
    for name, weight in block.weights.items():
        gram = found[name].values[Gram()]
        gram = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
        lost = {key: (answers[block.full_name(name)].weight - weight) for key, answers in first.items()}
        errors = {key: float(((d @ gram) * d).sum()) for key, d in lost.items()}
        assert errors["two"] <= errors["one"] * (1 + 1e-5)


def test_a_run_with_a_chain_is_named_by_it_stopped_and_told_like_any_other(tmp_path):
    here = place(tmp_path)
    base = "experiment=admm update=[admm,reconstruct] then.reconstruct.epochs=1 data=tokens data.path={tokens}"
    words = f"{base} model={{model}} eval=[audit]"
    results, said = answer(words, here)
    folder = run(said)
    assert folder.name.startswith("admm+then-reconstruct-") and "then=reconstruct  epochs=1" in said
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["content"]["then"]["reconstruct"]["epochs"] == 1
    assert {"loss", "held_out", "epoch"} <= set(results["layers"][0]["measures"])
    _, said = answer("experiment=admm data=tokens data.path={tokens} model={model} eval=[audit]", here)
    assert "then" not in json.loads((run(said) / "manifest.json").read_text())["content"]
    assert "nothing to compute" in answer(words, here)[1]


def test_a_plan_counts_the_passes_of_a_chain():
    alone, chained = work("experiment=admm"), work("experiment=admm", "update=[admm,reconstruct]")
    # the dense stream; losses before and after; eight epochs over seven eighths, and the held-out eighth behind each
    assert chained.passes == (alone.passes[0] + 1 + 2 + 8, 7)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("update=[]", "expected updates that follow one another, each once"),
        ("update=[admm,admm]", "expected updates that follow one another, each once"),
        ("update=[admm,nothing]", "update=nothing: no such option"),
        ("update=[reconstruct,admm]", "update ADMM starts from the dense weights and would undo Reconstruct"),
        ("then=reconstruct", r"chosen with it, as update=\[admm,reconstruct\]"),
        ("update=[admm,reconstruct] granularity=submodule", "set granularity=block"),
        ("update=admm then.reconstruct.epochs=2", r"follows no update here; add it, as update=\[admm,reconstruct\]"),
        ("update=[admm,reconstruct] then.reconstruct.epoch=2", "did you mean then.reconstruct.epochs"),
    ],
)
def test_what_is_no_chain_is_one_line(words, line):
    found = ask("experiment=wanda", *words.split())
    assert found.code == 2 and len(found.err.splitlines()) == 1
    assert re.search(line, found.err), found.err


@pytest.mark.parametrize(
    ("words", "name", "updates", "epochs"),
    [
        ("", "best", ["ADMM", "reconstruct"], 4),
        ("update=admm", "admm", ["ADMM"], None),
        ("update=[sparsegpt]", "best+sparsegpt", ["SparseGPT"], None),
        ("update=[admm,reconstruct]", "best", ["ADMM", "reconstruct"], 4),
        ("update=[sparsegpt,reconstruct]", "best+sparsegpt+then-reconstruct", ["SparseGPT", "reconstruct"], 4),
        ("update=[admm,refit,reconstruct] pattern=2of4", None, ["ADMM", "refit", "reconstruct"], 4),
        ("update=[admm,reconstruct,refit]", None, ["ADMM", "reconstruct", "refit"], 4),
        ("then.reconstruct.epochs=2 pattern=2of4", "best", ["ADMM", "reconstruct"], 2),
        ("metric=ria update=admm", "best+ria+admm", ["ADMM"], None),
    ],
)
def test_a_typed_update_takes_the_place_of_an_experiments_whole_chain(words, name, updates, epochs):
    (job,) = command.jobs(["experiment=best", *words.split()])
    assert [job.config["update"]["_target_"].rpartition(".")[2], *job.config["then"]] == updates
    assert epochs is None or job.config["then"]["reconstruct"]["epochs"] == epochs
    assert job.names.method == (name or "+".join(["best", "admm", *(f"then-{n}" for n in updates[1:])]))
    assert method(job.config).correction.alpha == 0.5
    for again in (job.words, shlex.split(job.names.command)[3:]):  # what is recorded can be typed
        assert command.jobs(again)[0].run.folder == job.run.folder
    with composing(job.handed_over):  # as a launcher's process does
        assert compose_job(job.handed_over).run.folder == job.run.folder


def test_the_same_updates_in_another_order_are_another_run():
    lines = ["update=[admm,refit,reconstruct]", "update=[admm,reconstruct,refit]"]
    jobs = command.jobs(["-m", "experiment=admm", f"{lines[0]},{lines[1].removeprefix('update=')}"])
    assert len({job.run.manifest["identity"] for job in jobs}) == len({effect(job.config) for job in jobs}) == 2


def test_a_given_run_is_as_its_experiment_has_it_chain_and_correction_included():
    given = lambda *words: command.jobs([*words])[0].config["given"]["config"]
    assert not given("experiment=admm", "given=wanda", "correction=0.5")["correction"]
    best = given("experiment=barber", "given=best")
    assert best["correction"] == 0.5 and list(best["then"]) == ["reconstruct"]


def test_several_chains_are_a_multirun():
    jobs = command.jobs(["-m", "experiment=wanda", "update=[sparsegpt,reconstruct],[admm,reconstruct],admm"])
    names = [job.names.method for job in jobs]
    assert names == ["wanda+sparsegpt+then-reconstruct", "wanda+admm+then-reconstruct", "wanda+admm"]
    jobs = command.jobs(["-m", "experiment=best,admm", "update=[admm,reconstruct],[sparsegpt,reconstruct],admm"])
    chained = [[list(job.config["then"]), job.config["correction"]] for job in jobs]
    assert chained == [[["reconstruct"], c] if k < 2 else [[], c] for c in (0.5, 0.0) for k in range(3)]
