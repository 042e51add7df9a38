"""Layers solved for the dense model's output: the cross Gram of both streams, the corrected weight, what it brings."""

import pytest
import torch

from experiments.comparing.differences import settings
from experiments.composing import command
from experiments.runs.record import read
from experiments.summary.naming import distinguished
from prune.allocators.besa import BESA
from prune.allocators.uniform import Uniform
from prune.correction import Correction
from prune.method import Linear, Method
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Drift, Gram
from prune.updates.reconstruct import Reconstruct
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.faults import ask
from tests.runs import metrics, put
from tests.test_plan import work
from tests.tiny import network, random, tokens

ROW = Unstructured("row")


def entering(model, data, path):
    """What enters a linear in the model's own forward, [tokens, i]."""
    heard = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, args: heard.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        model(input_ids=data, use_cache=False)
    hook.remove()
    return heard[0]


def test_the_drift_is_that_of_two_whole_models():
    subject, data, found = network(), tokens(6), {}
    for number, block in enumerate(subject.walk(data, reference="dense")):  # the streams part behind the first block
        found |= {f"{block.path}.{n}": g for n, g in block.collect([Gram(), Drift()], block.weights).items()}
        for name, weight in list(block.weights.items()):
            block.write(name, weight * (torch.arange(weight.shape[1]) % 2 if number == 0 else 1))
    pruned, dense = subject.model, network().model
    for name in ("model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.2.self_attn.k_proj"):
        x = entering(halfway(pruned, dense, name), data, name)
        xd = entering(dense, data, name)
        torch.testing.assert_close(found[name].values[Drift()], (xd - x).T @ x / 6, rtol=1e-4, atol=1e-4)
    assert not found["model.layers.0.self_attn.q_proj"].values[Drift()].any(), "the streams are one there"


def halfway(pruned, dense, name):
    """The pruned model, from the block of this linear on dense: as the walk sees it."""
    first = int(name.split(".")[2])
    mixed = network().model
    for number, block in enumerate(mixed.model.layers):
        source = pruned if number < first else dense
        block.load_state_dict(source.model.layers[number].state_dict())
    return mixed


def corrected(alpha, x, xd, weight, damping=0.0):
    """By the part itself, in float64."""
    values = {Gram(): x.T @ x, Drift(): Drift().of_pair(x, xd)}
    stats = Stats("one", lambda: Gathered(values, len(x)))
    return Correction(alpha, damping)(Linear("one", weight, stats, OBS(), ROW)).weight


def test_the_whole_correction_is_the_least_squares_on_the_dense_output():
    weight, xd = random(5, 8, seed=1).double(), random(64, 8, seed=2).double()
    x = xd @ (torch.eye(8) + 0.3 * random(8, 8, seed=3)).double() + 0.1 * random(64, 8, seed=4).double()
    best = torch.linalg.lstsq(x, xd @ weight.T).solution.T
    torch.testing.assert_close(corrected(1.0, x, xd, weight), best)
    torch.testing.assert_close(corrected(0.25, x, xd, weight), weight + 0.25 * (best - weight))
    assert torch.equal(corrected(1.0, x, x, weight), weight), "one stream has nothing to correct"


def left(correction):
    """How far the last block's output is from the dense model's, relative, for a pruned tiny model."""
    subject, data = network(), tokens(24)
    for _ in prune(subject, data, Method(ROW, Wanda(), Uniform(0.5), SparseGPT(), correction=correction)):
        pass
    states = []
    for model in (subject, network()):
        for block in model.walk(data):
            last = block.calls.states
        states.append(torch.cat(list(last)))
    return float((states[0] - states[1]).square().sum() / states[1].square().sum())


def test_layers_that_are_solved_for_the_dense_output_leave_the_model_closer_to_it():
    assert left(Correction(0.5)) < left(None)
    assert left(Correction(0.0)) == left(None)


def test_a_correction_goes_with_a_chain_and_counts_its_passes():
    chained = work("experiment=sparsegpt", "update=[sparsegpt,reconstruct]", "correction=0.5")
    plain = work("experiment=sparsegpt", "update=[sparsegpt,reconstruct]")
    assert chained.passes == (plain.passes[0] + 1, plain.passes[1])


def test_a_run_is_another_one_with_it_and_the_same_without():
    lines = ("", "correction=0.0", "correction=0.5", "correction=0.25")
    jobs = [command.jobs(["experiment=sparsegpt", *line.split()])[0] for line in lines]
    names = [job.run.manifest["identity"] for job in jobs]
    assert names[0] == names[1] and len(set(names)) == 3


def test_runs_that_differ_in_it_alone_are_told_apart_in_reports_and_comparisons(tmp_path):
    plain = {"model": {"path": "demo"}, "seed": 0}  # as earlier versions left it
    for k, more in enumerate(({}, {"correction": 0.0, "then": {}}, {"correction": 0.5, "then": {}})):
        put(tmp_path, "admm", metrics=metrics(20.0 - k), identity=f"{k:010}", config=plain | more)
    old, without, corrected = sorted(read([tmp_path]), key=lambda record: record.folder.name)
    assert [*distinguished([old, without, corrected]).values()] == [[], [], ["correction=0.5"]]
    assert settings(old, without) == {} and list(settings(without, corrected)) == ["correction"]


def test_what_cannot_be_corrected_is_refused():
    with pytest.raises(ValueError, match="update Zero keeps the dense weights"):
        Method(ROW, Wanda(), Uniform(0.5), Zero(), correction=Correction(0.5)).check()
    with pytest.raises(ValueError, match="want other targets"):
        Method(ROW, Wanda(), BESA(0.5), SparseGPT(), correction=Correction(0.5)).check()
    with pytest.raises(ValueError, match="want other targets"):
        Method(ROW, OBS(), Uniform(0.5), Reconstruct(reference="pruned"), correction=Correction(0.5)).check()
    for words, line in (
        ("correction=1.5", "a share from 0 to 1"),
        ("correction=0.5 granularity=submodule", "whole blocks"),
    ):
        found = ask("experiment=sparsegpt", *words.split())
        assert found.code == 2 and line in found.err
