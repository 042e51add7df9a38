"""Sensitivity-aware mixed sparsity: scores in closed form, and shares by the rank of Hessian traces."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune.allocators.sensitivity import Sensitivity
from prune.method import Linear, Method, Unit
from prune.metrics.isc import ISC
from prune.metrics.obs import OBS
from prune.network import Network
from prune.patterns.unstructured import Unstructured
from prune.prune import at_once, prune
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Gram
from prune.statistics.trace import HessianTrace
from prune.survey import Survey
from prune.updates.sparsegpt import SparseGPT
from tests.tiny import magnitude, network, random, tokens

NAMES = [f"model.layers.{b}.{m}" for b in range(11) for m in ("q", "up")]  # 11, for 10 comes before 2 among letters
SIZES = {name: 64 if name.endswith("q") else 192 for name in NAMES}


def allotted(subject: Sensitivity, traces) -> dict:
    """The whole model's shares, asked for block by block; a trace is two draws that differ."""
    values = {name: torch.tensor([[trace - 1.0, trace + 1.0]]) for name, trace in zip(NAMES, traces, strict=True)}
    survey, found = Survey(SIZES, {subject.trace: values}), {}
    for block in range(11):
        names = {short: f"model.layers.{block}.{short}" for short in ("q", "up")}
        linears = {
            s: Linear(full, torch.zeros(1, 1), Stats(full, lambda: Gathered({}, 0)), ISC(), Unstructured())
            for s, full in names.items()
        }
        found |= {names[short]: share for short, share in subject(Unit(linears), survey).items()}
    return found


def shares(found):
    return [share.sparsity.item() for share in found.values()], [share.wanted for share in found.values()]


TRACES = random(22, seed=3).exp().mul(100).tolist()


@pytest.mark.parametrize("sparsity", [0.05, 0.5, 0.77, 0.95])
def test_the_more_curved_the_denser_in_equal_steps_and_exactly_on_budget(sparsity):
    found, wanted = shares(allotted(Sensitivity(sparsity), TRACES))
    ranks = sorted(range(22), key=lambda k: TRACES[k])
    steps = [min(max(sparsity + 0.1 - 0.2 * k / 21, 0.0), 1.0) for k in range(22)]  # algorithm 1
    assert [wanted[k] for k in ranks] == pytest.approx(steps)
    removed = [share * size for share, size in zip(found, SIZES.values(), strict=True)]
    assert sum(removed) == round(sparsity * sum(SIZES.values()))
    assert all(count == pytest.approx(round(count), abs=1e-6) for count in removed)
    ordered = [found[k] for k in ranks]
    assert all(after <= before + 1 / 64 for before, after in pairwise(ordered))
    shifts = [share - want for share, want in zip(found, wanted, strict=True) if 0 < share < 1]
    assert max(shifts) - min(shifts) < 2 / 64, "all move by one number, up to whole weights"


def test_layers_share_one_rank_and_are_ranked_by_the_sum_over_their_matrices():
    wanted = shares(allotted(Sensitivity(0.5, level="layer"), TRACES))[1]
    assert wanted[::2] == wanted[1::2]
    sums = [TRACES[2 * b] + TRACES[2 * b + 1] for b in range(11)]
    ordered = [wanted[2 * b] for b in sorted(range(11), key=lambda b: sums[b])]
    assert ordered == pytest.approx([0.6 - 0.02 * k for k in range(11)])


def test_without_a_bound_or_on_one_layer_all_get_the_same():
    assert set(shares(allotted(Sensitivity(0.5, bound=0.0), TRACES))[0]) == {0.5}
    alone = Sensitivity(0.5, level="layer").wanted({"model.layers.0.q": 1.0, "model.layers.0.up": 2.0}, "model.layers")
    assert [share.tolist() for share in alone.values()] == [[0.5], [0.5]]


@pytest.mark.parametrize("level", ["weight", "layer"])
def test_a_constant_factor_on_the_loss_changes_nothing(level):
    subject = Sensitivity(0.5, level=level)
    assert shares(allotted(subject, TRACES)) == shares(allotted(subject, [8 * trace for trace in TRACES]))


def test_equal_traces_keep_the_models_order_and_negative_ones_count_by_their_size():
    wanted = shares(allotted(Sensitivity(0.5), [1.0] * 22))[1]
    assert wanted == sorted(wanted, reverse=True)
    assert shares(allotted(Sensitivity(0.5), [-100.0, *range(1, 22)]))[1][0] == pytest.approx(0.4)


@pytest.mark.parametrize("granularity", ["block", "sequential"])
def test_negative_traces_are_in_the_notes_of_the_run(granularity):
    subject, data = network(), tokens(1)
    found = at_once(HessianTrace(), lambda: HessianTrace().of(subject, data))
    negative = {name for name, value in found.items() if value.mean() < 0}
    method = replace(magnitude(), allocator=Sensitivity(0.5))
    walk = prune(subject, data, method, granularity, remember=lambda *_: found)
    noted = {name for solved in walk for name, p in solved.linears.items() if "negative_traces" in p.notes}
    assert noted == negative != set()


def stats(*inputs) -> Stats:
    gram = sum(Gram().of(x) for x in inputs) / len(inputs)
    return Stats("layer", lambda: Gathered({Gram(): gram}, 1))


def test_scores_are_the_formulas_of_the_released_code_and_of_the_paper():
    weight, inputs = random(5, 12), [random(40, 12, seed=k) @ random(12, 12, seed=9) for k in (1, 2)]
    hessian = sum(2 / 2 * x.T @ x for x in inputs).double()  # released: 2 / N times the sum over N sequences
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12)
    inverse = torch.linalg.inv(hessian)
    upper = torch.linalg.cholesky(inverse, upper=True)
    second = {"factor": upper.diagonal(), "inverse": inverse.diagonal(), "sequential": upper.diagonal() ** 2}
    for name, below in second.items():
        expected = weight.double() ** 2 * (hessian.diagonal() + 1 / below)
        torch.testing.assert_close(ISC(name)(weight, stats(*inputs)), expected.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("second_term", ["inverse", "sequential"])
def test_on_independent_inputs_both_terms_are_the_damage_of_optimal_brain_damage(second_term):
    weight, x = random(6, 16), torch.eye(16) * torch.arange(1, 17)
    squares = x.square().sum(0)
    damage = weight.square() * 2 * (squares + 0.01 * squares.mean())
    found = ISC(second_term)(weight, stats(x))
    torch.testing.assert_close(found, 2 * damage)
    assert torch.equal(found.flatten().argsort(), OBS()(weight, stats(x)).flatten().argsort())


def test_dead_features_score_zero_and_wrong_values_are_refused():
    x = random(50, 8)
    x[:, 3] = 0
    assert (ISC()(random(4, 8), stats(x)) == 0).sum(0).tolist() == [0, 0, 0, 4, 0, 0, 0, 0]
    for make in (lambda: ISC("U"), lambda: ISC(damping=-1.0)):
        with pytest.raises(ValueError, match="expected"):
            make()
    for fields in ({"level": "row"}, {"bound": -0.1}):
        with pytest.raises(ValueError, match="expected"):
            Sensitivity(0.5, **fields)


@pytest.mark.slow
def test_on_a_real_model_mixed_sparsity_is_clearly_better_than_released_sparsegpt(shared):
    files = {
        part: load_file(shared / "parity" / f"stories-260k-{part}.safetensors")["tokens"] for part in ("calib", "eval")
    }
    rows = json.loads((shared / "parity" / "reference.json").read_text())["stories-260k"]["rows"]
    theirs = next(r for r in rows if (r["method"], r["target"], r["nm"]) == ("sparsegpt", 0.75, ""))
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / "stories-260k", dtype=torch.float32)
    subject = Network(net, batch=16)
    for _ in prune(subject, files["calib"], Method(Unstructured("matrix"), ISC(), Sensitivity(0.75), SparseGPT())):
        pass
    assert math.exp(subject.losses(files["eval"]).double().mean()) < 0.8 * theirs["ppl"]
