"""A classifier's images take every path that tokens take: files, stores, states elsewhere, batches, traces."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian
from transformers import AutoModelForImageClassification

from experiments.models import saving
from experiments.models.checkpoint import Shards
from experiments.models.load import load as load_model
from prune.metrics.gblm import GBLM
from prune.metrics.gradient import Gradient
from prune.prune import at_once, prune
from prune.statistics.trace import HessianTrace
from tests.tiny import Memory, sparsegpt, wanda
from tests.vision import FAMILIES, classifier, images

STORED = [family for family in FAMILIES if family != "dinov3"]  # those that transformers has with a head
METHODS = {
    "wanda": wanda(),
    "sparsegpt": sparsegpt(),
    "gblm": replace(wanda(), metric=GBLM(target="sampled")),
    "gradient": replace(wanda(), metric=Gradient(target="sampled")),
}


def load(folder):
    return load_model(str(folder), None, "auto", False, None, 4, "cpu")


def solved(subject, data, method, **settings):
    """The weights and masks of every matrix, by name."""
    answers = {}
    for block in prune(subject, data, method, **settings):
        answers |= {name: (one.weight, one.mask) for name, one in block.linears.items()}
    return answers


def differing(one, other):
    """The share of the mask on which two answers differ."""
    pairs = [(mask != other[name][1]).flatten() for name, (_, mask) in one.items()]
    return torch.cat(pairs).double().mean()


@pytest.fixture(scope="module", params=STORED)
def stored(request, tmp_path_factory):
    """A family's checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    classifier(request.param).model.save_pretrained(folder)
    return request.param, folder


def test_a_classifier_read_from_files_is_pruned_to_the_same_bits_saved_and_loads_again(stored, tmp_path):
    family, folder = stored
    streamed, whole, data = load(folder), classifier(family), images()
    assert isinstance(streamed.home, Shards)
    assert torch.equal(streamed.losses(data), whole.losses(data))
    ours, theirs = (solved(each, data, sparsegpt(), done=Memory()) for each in (streamed, whole))
    assert all(torch.equal(weight, theirs[name][0]) for name, (weight, _) in ours.items())
    assert all(parameter.is_meta for parameter in streamed.model.parameters())
    saving.save(streamed, tmp_path / "model")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again(data.pixels).logits, whole.model(data.pixels).logits)


@pytest.mark.parametrize("family", ["vit", "deit_teacher", "siglip"])
def test_a_run_that_was_stopped_in_the_middle_ends_with_the_same_bits(family):
    store, data = Memory(), images()
    whole = solved(classifier(family), data, sparsegpt(), done=store)
    for missing in ([2], [1, 2]):
        partial = Memory({name: block for k, (name, block) in enumerate(store.items()) if k not in missing})
        resumed = classifier(family)
        solved(resumed, data, sparsegpt(), done=partial)
        assert all(torch.equal(weight, whole[name][0]) for name, weight in resumed.weights().items())
        assert set(partial) == set(store)


@pytest.mark.parametrize("activations", ["host", "disk"])
@pytest.mark.parametrize("method", ["sparsegpt", "gblm"])
def test_states_of_images_that_wait_elsewhere_change_no_bit(tmp_path, activations, method):
    found, data = [], images(7)
    for place in ("device", activations):
        subject = classifier("dinov2")
        subject.activations, subject.scratch = place, str(tmp_path)
        found.append((solved(subject, data, METHODS[method]), subject.losses(data)))
    (one, losses), (other, there) = found
    assert torch.equal(losses, there)
    assert all(torch.equal(weight, other[name][0]) for name, (weight, _) in one.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_changes_no_mask(method):
    data = images(7)
    whole = solved(classifier(batch=7), data, METHODS[method])
    for batch in (1, 3):
        assert differing(solved(classifier(batch=batch), data, METHODS[method]), whole) < 1e-3


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_the_order_of_images_changes_nothing_but_the_last_bits(method):
    data, turned = images(7), torch.tensor([4, 2, 6, 0, 5, 1, 3])
    one, other = (solved(classifier("clip"), each, METHODS[method]) for each in (data, data[turned]))
    assert differing(one, other) < 1e-3
    for name, (weight, mask) in one.items():
        same = mask == other[name][1]
        torch.testing.assert_close(weight[same], other[name][0][same], rtol=1e-3, atol=1e-4)


def test_a_trace_of_images_is_the_exact_one_within_its_standard_error():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    subject, data = classifier(image_size=4, patch_size=2, **sizes), images(1, size=4)
    exact = {}
    for name, weight in subject.weights().items():

        def loss(matrix, name=name):
            logits = functional_call(subject.model, {f"{name}.weight": matrix}, (data.pixels,)).logits
            return nn.functional.cross_entropy(logits, data.labels)

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            formed = hessian(loss)(weight.clone())
        exact[name] = formed.reshape(weight.numel(), -1).trace().item()
    draws = at_once(HessianTrace(), lambda: HessianTrace(probes=64).of(subject, data))
    errors = {name: value.std().item() / 8 for name, value in draws.items()}
    far = [(value.mean().item() - exact[name]) / errors[name] for name, value in draws.items()]
    assert max(map(abs, far)) < 3
    assert sum(abs(exact[name]) > 3 * errors[name] for name in exact) >= 3, "small enough to say something"
