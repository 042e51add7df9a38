"""The walk over image classifiers: their own logits, their own statistics, and gradients image by image."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from prune.feeder import Images
from prune.metrics.gblm import GBLM
from prune.prune import prune
from prune.statistic import Stats
from prune.statistics.gradient import Aimed, LossGradient, Target
from prune.statistics.inputs import Squares
from tests.test_contracts import composed, solve
from tests.test_families import EXPERIMENTS, check
from tests.tiny import tokens, wanda
from tests.vision import FAMILIES, classifier, images


@torch.no_grad()
def own_logits(subject, data):
    return subject.model(pixel_values=data.pixels).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_walked_with_nothing_pruned_a_classifier_gives_its_own_logits(family):
    subject, data = classifier(family, batch=8), images()
    for block in subject.walk(data):
        states = block.calls.states
    with torch.no_grad():
        assert torch.equal(subject.head(data, states[0]), own_logits(subject, data))
    expected = nn.functional.cross_entropy(own_logits(subject, data), data.labels, reduction="none")
    torch.testing.assert_close(subject.losses(data), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_are_the_linears_of_the_blocks_and_nothing_else(family):
    subject = classifier(family)
    linears = {f"{subject.path}.{n}" for n, m in subject.blocks.named_modules() if isinstance(m, nn.Linear)}
    assert set(subject.matrices()) == linears
    assert len(linears) == 3 * 6
    before = {name: p.clone() for name, p in subject.model.named_parameters()}
    for _ in prune(subject, images(), wanda()):
        pass
    for name, parameter in subject.model.named_parameters():
        if name.removesuffix(".weight") in linears:
            assert ((parameter == 0).sum(1) == parameter.shape[1] // 2).all(), "half of each row"
        else:
            assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("family", ["vit", "deit_teacher", "clip"])
def test_statistics_count_every_token_of_every_image(family):
    subject, data = classifier(family), images()
    name, extra = {"vit": ("mlp.fc1", 1), "deit_teacher": ("mlp.fc1", 2), "clip": ("mlp.fc1", 1)}[family]
    heard = []
    linear = subject.blocks[0].get_submodule(name)
    hook = linear.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    own_logits(subject, data)
    hook.remove()
    block = next(iter(subject.walk(data)))
    found = block.collect([Squares()], [name])[name]
    assert found.tokens == len(data) * (16 + extra)
    torch.testing.assert_close(found.values[Squares()], heard[0].square().sum((0, 1)) / len(data))


def gradients(subject, data, labels):
    """[n, ...] of every matrix: autograd through the whole model, image by image."""
    linears = {n: m.weight for n, m in subject.model.named_modules() if n in subject.matrices()}
    found = {name: [] for name in linears}
    for pixels, label in zip(data.pixels, labels, strict=True):
        for weight in linears.values():
            weight.requires_grad_(True)
        loss = nn.functional.cross_entropy(subject.model(pixel_values=pixels[None]).logits, label[None])
        for name, gradient in zip(linears, torch.autograd.grad(loss, list(linears.values())), strict=True):
            found[name].append(gradient)
    subject.model.requires_grad_(False)
    return {name: torch.stack(each) for name, each in found.items()}


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip"])
@pytest.mark.parametrize("order", [1, 2])
def test_gblm_scores_images_as_a_loop_of_autograd_over_them_does(family, order):
    subject, data = classifier(family), images(4)
    own = gradients(subject, data, data.labels)
    statistic = LossGradient(order)
    found = {n: value for _, block in statistic.of(subject, data) for n, value in block.items()}
    assert set(found) == set(own)
    for name, each in own.items():
        expected = (each.abs() if order == 1 else each.square()).mean(0)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    block = next(iter(subject.walk(data)))
    inside, weight = next(iter(block.weights.items()))
    name, gathered = block.full_name(inside), block.collect([Squares()], [inside])[inside]
    norm = 128 * found[name] if order == 1 else (128 * found[name]).sqrt()
    scores = GBLM(alpha=3.0, order=order)(weight, Stats(name, lambda: gathered, {statistic: found}))
    torch.testing.assert_close(scores, weight.abs() * (gathered.values[Squares()].sqrt() + 3.0 * norm))


@pytest.mark.parametrize("target", ["argmax", "sampled"])
def test_the_gradient_of_a_target_that_the_model_names_is_that_of_these_labels(target: Target):
    subject, data = classifier(), images(4)
    logits = own_logits(subject, data)
    labels = logits.argmax(1)
    if target == "sampled":
        draws = [torch.Generator().manual_seed(k) for k in range(4)]
        rows = zip(logits.softmax(1), draws, strict=True)
        labels = torch.cat([torch.multinomial(row, 1, generator=draw) for row, draw in rows])
    own = gradients(subject, data, labels)
    for _, block in LossGradient(2, target).of(subject, data):
        for name, value in block.items():
            expected = own[name].square().mean(0)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))


def test_a_drawn_target_tends_to_the_fisher_information_of_the_logits():
    """The mean of g g' over draws from softmax(z) is diag(p) - p p', g the gradient of the loss by z."""
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(1)[0]
    aim = Aimed("sampled", torch.arange(4000))
    drawn = torch.cat([aim.target(k, logits, torch.zeros(1, dtype=torch.long)) for k in range(4000)])
    g = p - nn.functional.one_hot(drawn, 5)
    torch.testing.assert_close(g.T @ g / 4000, torch.diag(p) - torch.outer(p, p), atol=0.02, rtol=0)


def test_images_that_a_model_cannot_read_are_refused_in_one_line():
    subject, data = classifier(), images()
    with pytest.raises(ValueError, match="classifies images, found a text"):
        subject.readable(tokens())
    with pytest.raises(ValueError, match=r"expected images \[n, 3, height, width\], found \[6, 1, 16, 16\]"):
        subject.readable(Images(data.pixels[:, :1], data.labels))
    with pytest.raises(ValueError, match="classes 0 to 10, but the model knows 0 to 9"):
        subject.readable(Images(data.pixels, torch.tensor([0, 1, 2, 3, 4, 10])))


def test_attention_whose_projections_are_no_linears_is_refused_by_name():
    subject = classifier()
    subject.model.vit.layers[1].attention = nn.MultiheadAttention(32, 4)
    with pytest.raises(ValueError, match="MultiheadAttention"):
        type(subject)(subject.model)


@pytest.mark.parametrize("pattern", ["unstructured", pytest.param("2of4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_prunes_a_classifier_to_the_weight(experiment, pattern):
    family = list(FAMILIES)[EXPERIMENTS.index(experiment) % len(FAMILIES)]
    uneven = not composed(experiment).allocator._target_.endswith("Uniform")
    lines = [experiment, f"pattern={pattern}", "sparsity=0.5"]
    with pytest.raises(ValueError, match="varies") if uneven and pattern == "2of4" else nullcontext():
        config, subject, solved = solve(*lines, family=family, make=classifier, data=images(8))
        check(subject, solved, config.allocator.sparsity)
