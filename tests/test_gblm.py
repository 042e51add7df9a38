"""Loss gradients and the metrics that read them, against plain autograd, closed forms and the released code."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune.allocators.uniform import Uniform
from prune.method import Method
from prune.metrics.gblm import GBLM
from prune.metrics.gradient import Gradient
from prune.metrics.random import Random
from prune.metrics.wanda import Wanda
from prune.network import Network
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.statistics import gradient as module
from prune.statistics.gradient import LossGradient
from prune.statistics.inputs import Squares
from prune.updates.zero import Zero
from tests.test_reverse import apart, plain
from tests.tiny import network, random, tokens


def method(metric, sparsity=0.5) -> Method:
    return Method(Unstructured("row"), metric, Uniform(sparsity), Zero())


def masks(subject, data, metric):
    return {name: p.mask for s in prune(subject, data, method(metric)) for name, p in s.linears.items()}


def known(order, squares, mean, name="layer") -> Stats:
    """What a metric sees of a linear with these mean squares [i] and mean gradients [o, i]."""
    return Stats(name, lambda: Gathered({Squares(): squares}, 1), {LossGradient(order): {name: mean}})


def values(order, subject, data):
    return {name: value for _, part in LossGradient(order).of(subject, data) for name, value in part.items()}


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_value_is_the_mean_over_sequences_of_plain_gradients(order):
    subject, data = network(), tokens(4)
    each, found = plain(subject, data), values(order, subject, data)
    for name, value in found.items():
        stack = torch.stack([gradients[name] for gradients in each])
        assert apart(value, {0: stack, 1: stack.abs(), 2: stack.square()}[order].mean(0)) < 1e-5


@pytest.mark.parametrize("sequences", [16, 64, 128])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_released_scale_of_100_is_so_much_of_our_alpha(monkeypatch, order, sequences):
    """There 100 goes into every gradient before the sum over sequences; its inputs are a mean over them, as ours."""
    weight, squares, each = random(4, 6), random(6, seed=1).square(), 0.01 * random(sequences, 4, 6, seed=2)
    block = SimpleNamespace(path="block", weights={"up": weight}, full_name=lambda name: f"block.{name}")
    monkeypatch.setattr(module, "backward", lambda *_: [(block, ({"up": g.clone()} for g in each))])
    seen = known(order, squares, values(order, None, tokens(sequences))["block.up"])
    scaled, share = 100 * each, sequences / 128
    released = {0: scaled.sum(0).abs(), 1: scaled.abs().sum(0), 2: scaled.square().sum(0).sqrt()}[order]
    alpha = 100 * (math.sqrt(share) if order == 2 else share)
    expected = weight.abs() * squares.sqrt() + weight.abs() * released
    torch.testing.assert_close(GBLM(alpha, order)(weight, seen), expected)
    torch.testing.assert_close(alpha * Gradient(order)(weight, seen), weight.abs() * released)


def test_without_alpha_the_masks_are_wandas_bit_for_bit():
    data = tokens()
    expected, found = masks(network(), data, Wanda()), masks(network(), data, GBLM(alpha=0.0))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_activations_the_score_is_the_gradient_term():
    weight, mean = random(4, 6), random(4, 6, seed=2).abs()
    found, alone = (m(weight, known(1, torch.zeros(6), mean)) for m in (GBLM(alpha=1.0), Gradient()))
    assert torch.equal(found, alone)


@pytest.mark.parametrize("order", [1, 2])
def test_alpha_means_the_same_whatever_the_number_of_sequences(order):
    data = tokens(4)
    once, twice = (masks(network(), d, GBLM(order=order)) for d in (data, torch.cat([data, data])))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_opposite_gradients_cancel_with_their_signs_only(monkeypatch):
    g = random(4, 6)
    block = SimpleNamespace(path="block", weights={"up": torch.zeros(4, 6)}, full_name=lambda name: f"block.{name}")
    monkeypatch.setattr(module, "backward", lambda *_: [(block, iter([{"up": g}, {"up": -g}]))])
    found = [values(order, None, tokens(2))["block.up"] for order in (0, 1, 2)]
    assert not found[0].any()
    torch.testing.assert_close(found[1:], [g.abs(), g.square()])


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_a_half_precision_model_gives_gradients_near_those_of_its_weights_in_float32(dtype, near):
    data, half, wide = tokens(3), network(), network()
    half.model.to(dtype)
    wide.model.to(dtype).float()
    expected = values(1, wide, data)
    for name, value in values(1, half, data).items():
        assert value.dtype == torch.float32 and apart(value, expected[name]) < near


def test_gradients_that_float16_cannot_hold_survive_without_a_loss_scale():
    subject, data = network(), tokens(2)
    with torch.no_grad():
        subject.model.model.norm.weight.mul_(1e-5)
    subject.model.to(torch.float16)
    lost = [(g == 0).float().mean() for gradients in plain(subject, data) for g in gradients.values()]
    found = values(1, subject, data)
    assert max(lost) > 0.5
    assert not any(LossGradient().notes(value) for value in found.values())


def test_weights_without_a_gradient_are_counted():
    subject = network()
    with torch.no_grad():
        subject.blocks[0].input_layernorm.weight[3] = 0.0  # what enters q, k and v there is always zero
    solved = next(prune(subject, tokens(), method(Gradient()))).linears
    assert solved["model.layers.0.self_attn.q_proj"].notes == {"zero_gradients": 32}
    assert "zero_gradients" not in solved["model.layers.0.mlp.up_proj"].notes


@pytest.mark.parametrize("metric", [GBLM(), Gradient()])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_is_refused_by_the_name_of_its_matrix(metric, bad):
    with pytest.raises(ValueError, match=r"^q_proj: NaN or infinite loss gradients; [^\n]+$"):
        metric(random(2, 3), known(1, torch.ones(3), torch.full((2, 3), bad), "q_proj"))


@pytest.mark.parametrize("make", [lambda: GBLM(order=3), lambda: Gradient(order=-1), lambda: GBLM(alpha=-1.0)])
def test_parameters_without_a_meaning_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_random_scores_depend_on_seed_and_name_alone():
    weight, stats = random(4, 6), [known(1, torch.ones(6), torch.ones(4, 6), name) for name in ("q_proj", "k_proj")]
    first = Random(seed=1)(weight, stats[0])
    assert torch.equal(first, Random(seed=1)(random(4, 6, seed=5), stats[0]))
    assert torch.equal(first[:, 2:5], Random(seed=1)(weight, stats[0], slice(2, 5)))
    assert not torch.equal(first, Random(seed=2)(weight, stats[0]))
    assert not torch.equal(first, Random(seed=1)(weight, stats[1]))


@dataclass(frozen=True)
class Released(GBLM):
    """The released file of gradients: alpha is in it, and it is float16."""

    def __call__(self, weight, stats, columns=slice(None)):
        gradient = LossGradient(self.order)
        file = (self.alpha * gradient.norm(stats[gradient][:, columns], stats.name)).half()
        return weight[:, columns].abs() * stats[Squares()][columns].sqrt() + weight[:, columns].abs() * file.float()


@pytest.mark.parametrize("model", ["stories-260k", pytest.param("babyllama-1m", marks=pytest.mark.slow)])
def test_perplexity_is_that_of_the_released_code(shared, model):
    """Within 1 % in float32; exactly with the released rounding of its gradient file."""
    rows = json.loads((shared / "parity" / "reference.json").read_text())[model]["rows"]
    theirs = next(r["ppl"] for r in rows if (r["method"], r["target"], r["nm"]) == ("gblm", 0.5, ""))
    calibration, text = (
        load_file(shared / "parity" / f"{model}-{part}.safetensors")["tokens"] for part in ("calib", "eval")
    )
    kept = {}

    def perplexity(metric):
        net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
        subject = Network(net, batch=16)
        remember = lambda key, find: kept or kept.update(p for _, part in find() for p in part.items()) or kept
        assert list(prune(subject, calibration, method(metric), remember=remember))
        return math.exp(subject.losses(text).double().mean())

    assert perplexity(GBLM(order=2)) == pytest.approx(theirs, rel=0.01)
    assert perplexity(Released(order=2)) == pytest.approx(theirs, rel=1e-4)
