"""OWL against loops over its definition: outlier shares of the dense model, and the sparsities they lead to."""

import pytest
import torch
from torch import nn

from prune.allocators.owl import OWL, Outliers, outlier_share
from prune.method import Linear, Method, Unit
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Stats
from prune.survey import Survey
from prune.updates.zero import Zero
from tests.tiny import network, random, tokens


def wanted_by(method, outliers, sizes):
    """What OWL gives to blocks of one matrix each with these outlier shares and weights."""
    names = [f"blocks.{k}.layer" for k in range(len(outliers))]
    values = {n: torch.tensor([share], dtype=torch.float64) for n, share in zip(names, outliers, strict=True)}
    look = Survey(dict(zip(names, sizes, strict=True)), {Outliers(method.threshold): values})
    linears = [Linear(name, random(1, 1), Stats(name, dict), Wanda(), Unstructured()) for name in names]
    return [method(Unit({"layer": linear}), look)["layer"] for linear in linears]


@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])
@pytest.mark.parametrize("threshold", [2.0, 5.0])
def test_outlier_shares_are_those_of_all_scores_of_a_block_in_the_dense_model(family, threshold):
    subject, data, heard = network(family), tokens(), {}
    for name, module in subject.blocks.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: heard.update({name: args[0]}))
    with torch.no_grad():
        subject.model(data, use_cache=False)
    inputs = dict(heard)  # the walk runs the same hooks
    found = {name: value for _, part in Outliers(threshold).of(subject, data) for name, value in part.items()}
    assert list(found) == list(subject.weights())
    for k in range(len(subject.blocks)):
        names = [name for name in inputs if name.startswith(f"{k}.")]
        norms = [inputs[name].reshape(-1, inputs[name].shape[-1]).square().sum(0) / len(data) for name in names]
        weights = [subject.weights()[f"{subject.path}.{name}"] for name in names]
        scores = torch.cat([(w.abs() * m.sqrt()).flatten() for w, m in zip(weights, norms, strict=True)])
        share = (scores > threshold * scores.mean()).double().mean().item()
        assert share > 0
        for name in names:  # within two weights, whose scores are the bar up to rounding
            assert found[f"{subject.path}.{name}"].item() == pytest.approx(share, abs=2 / len(scores))


def test_a_linear_that_saw_no_token_has_scores_of_zero():
    weights = {"seen": random(4, 8), "unseen": 100 * random(16, 8, seed=1)}
    squares = random(8, seed=2).square()
    scores = torch.cat([(weights["seen"].abs() * squares.sqrt()).flatten(), torch.zeros(16 * 8)])
    expected = (scores > 3 * scores.mean()).double().mean().item()
    assert outlier_share(weights, {"seen": squares}, 3.0) == pytest.approx(expected) and expected > 0
    assert outlier_share(weights, {}, 3.0) == 0


def test_experts_without_tokens_do_not_stop_a_run():
    subject, data = network("mixtral", num_experts_per_tok=1), tokens(1, 4)
    method = Method(Unstructured("row"), Wanda(), OWL(0.6), Zero())
    solved = {name: p for done in prune(subject, data, method) for name, p in done.linears.items()}
    assert any(p.notes.get("unseen") for p in solved.values())
    removed = sum(int((~p.mask).sum()) for p in solved.values())
    assert removed == round(0.6 * sum(p.mask.numel() for p in solved.values()))


def test_sparsities_follow_the_formula_of_the_paper():
    outliers, spread, sparsity = [0.02, 0.05, 0.01, 0.03], 0.08, 0.7
    found = wanted_by(OWL(sparsity, spread), outliers, [10_000] * 4)
    keep = [2 * spread * (d - 0.01) / (0.05 - 0.01) for d in outliers]
    keep = [k + (1 - sparsity) - sum(keep) / 4 for k in keep]
    for one, k in zip(found, keep, strict=True):
        assert one.wanted == pytest.approx(1 - k)
        assert one.sparsity.item() == pytest.approx(1 - k, abs=1e-4), "up to a weight of 10,000"


def test_blocks_of_unequal_size_meet_the_budget_together_and_keep_their_distances():
    sizes = [100_000, 300_000, 50_000]
    found = [one.sparsity.item() for one in wanted_by(OWL(0.7), [0.01, 0.03, 0.02], sizes)]
    assert sum(round(s * n) for s, n in zip(found, sizes, strict=True)) == round(0.7 * sum(sizes))
    assert found[0] - found[1] == pytest.approx(0.16, abs=1e-4)
    assert found[2] == pytest.approx((found[0] + found[1]) / 2, abs=1e-4)


@pytest.mark.parametrize("outliers", [[0.03] * 5, [0.0] * 5])
def test_equal_outlier_shares_give_equal_sparsities(outliers):
    assert [one.sparsity.item() for one in wanted_by(OWL(0.7), outliers, [1000] * 5)] == [0.7] * 5


def test_extreme_settings_stay_between_nothing_and_everything_and_meet_the_budget():
    for sparsity in (0.02, 0.97):
        found = [one.sparsity.item() for one in wanted_by(OWL(sparsity, 0.5), [0.0, 0.01, 0.05], [10_000] * 3)]
        assert min(found) >= 0 and max(found) <= 1 and len(set(found)) > 1
        assert sum(found) / 3 == pytest.approx(sparsity, abs=1e-12)


def test_a_damaged_matrix_is_named():
    subject = network()
    subject.weights()["model.layers.1.mlp.up_proj"][3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj: NaN or infinite values in its weights"):
        list(Outliers(5.0).of(subject, tokens()))


@pytest.mark.parametrize("fields", [{"spread": -0.1}, {"threshold": 0.0}, {"threshold": float("nan")}])
def test_settings_without_a_meaning_are_refused(fields):
    with pytest.raises(ValueError, match="owl: expected spread >= 0 and threshold > 0, found"):
        OWL(0.5, **fields)
