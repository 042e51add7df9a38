"""Hessian traces of real and toy losses, against Hessians that are formed and plain double backwards."""

import zlib

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from prune.prune import at_once
from prune.reverse import backward
from prune.statistics.trace import Curvature, HessianTrace, pull, push, push_back, signs
from tests.tiny import FAMILIES, network, random, tokens


def loss(subject, row):
    """A sequence's loss as a function of the network's matrices by full name, through Hugging Face's own forward."""
    model, lying = subject.model, {}
    for name, place in subject.matrices().items():
        lying.setdefault(place.parameter, []).append((name, place))

    def of(matrices):
        whole = {}
        for parameter, places in lying.items():
            parts = [matrices[name].mT if place.turned else matrices[name] for name, place in places]
            whole[parameter] = parts[0] if places[0][1].expert is None else torch.stack(parts)
        with sdpa_kernel(SDPBackend.MATH):
            output = functional_call(model, whole, kwargs={"input_ids": row[None], "use_cache": False})
        return torch.nn.functional.cross_entropy(output.logits[0, :-1], row[1:])

    return of


def leaves(subject):
    return {name: matrix.clone().requires_grad_() for name, matrix in subject.weights().items()}


def products(subject, data, seed=0):
    """z and Hz by full name, for each sequence."""
    curvature, found = Curvature(seed), [({}, {}) for _ in data]
    for block, sequences in backward(subject, data, curvature):
        for k, product in enumerate(sequences):
            for name, probe in curvature.probes(block, k).items():
                found[k][0][block.full_name(name)], found[k][1][block.full_name(name)] = probe, product[name]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_product_block_by_block_is_a_plain_double_backward_of_the_model(family):
    subject, data = network(family), tokens(2)
    for row, (probes, found) in zip(data, products(subject, data), strict=True):
        at = leaves(subject)
        first = torch.autograd.grad(loss(subject, row)(at), at.values(), create_graph=True, materialize_grads=True)
        along = sum((slope * probes[name]).sum() for name, slope in zip(at, first, strict=True))
        second = dict(zip(at, torch.autograd.grad(along, at.values(), materialize_grads=True), strict=True))
        largest = max(expected.norm() for expected in second.values())
        for name, expected in second.items():
            assert (found[name] - expected).norm() <= 1e-4 * expected.norm() + 1e-6 * largest
        assert sum(expected.norm() > 1e-3 for expected in second.values()) > len(second) / 2


@pytest.fixture(scope="module")
def exact():
    """A tiny model, a window for it, and the traces of the Hessian's diagonal blocks formed entry by entry."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    subject, data = network(num_hidden_layers=1, vocab_size=24, **sizes), tokens(1, 8) % 24
    with torch.no_grad():
        for matrix in subject.weights().values():
            matrix.mul_(8)  # a loss that is curved enough to be seen behind the noise
        subject.model.lm_head.weight.mul_(4)
    at, of = leaves(subject), loss(subject, data[0])
    first = dict(zip(at, torch.autograd.grad(of(at), at.values(), create_graph=True), strict=True))
    traces = {}
    for name, slope in first.items():
        rows = [torch.autograd.grad(s, at[name], retain_graph=True)[0].flatten() for s in slope.flatten()]
        traces[name] = torch.stack(rows).trace().item()
    return subject, data, traces


def test_the_estimate_is_the_exact_trace_within_its_standard_error(exact):
    subject, data, traces = exact
    draws = at_once(HessianTrace(), lambda: HessianTrace(probes=64).of(subject, data))
    errors = {name: value.std().item() / 8 for name, value in draws.items()}
    far = [(value.mean().item() - traces[name]) / errors[name] for name, value in draws.items()]
    assert max(map(abs, far)) < 3 and 0.3 < (sum(f * f for f in far) / len(far)) ** 0.5 < 1.7
    assert sum(abs(traces[name]) > 3 * errors[name] for name in traces) >= 3, "small enough to say something"


def test_one_probe_is_exact_where_the_hessian_is_diagonal():
    curvature = random(6, 5, seed=1)
    at = torch.zeros(6, 5, requires_grad=True)
    for key in ("a", "b"):
        z = signs(key, at)
        slope, product = pull(lambda w: (curvature * w * w).sum() / 2, [at], [z], torch.ones(()), torch.zeros(()))
        torch.testing.assert_close((z * product[0]).sum(), curvature.sum())
        assert not slope.any()


def test_a_layer_norm_is_differentiated_through_its_mean_and_scale():
    x, along, slope, change = (random(3, 8, seed=k).double() for k in range(4))
    x.requires_grad_()

    def norm(x):
        return torch.nn.functional.layer_norm(x, (8,))

    moved = norm(x + 1e-6 * along) - norm(x - 1e-6 * along)
    torch.testing.assert_close(push(norm, [x], [along])[1], moved / 2e-6, rtol=1e-6, atol=1e-6)

    def slopes(e):
        there = (x.detach() + e * along).requires_grad_()
        return torch.autograd.grad(norm(there), there, slope + e * change)[0]

    found = pull(norm, [x], [along], slope, change)[1][0]
    torch.testing.assert_close(found, (slopes(1e-6) - slopes(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-6)


class Cubed(torch.autograd.Function):
    """x^3 as a model's own operation: with a backward pass and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


@pytest.mark.parametrize("cube", [lambda x: x**3, Cubed.apply])
def test_the_tangent_is_that_of_the_formula_whether_an_operation_has_forward_mode_or_not(cube):
    at = [random(4, 5, seed=1).requires_grad_(), random(5, 3, seed=2).requires_grad_()]
    along = [random(4, 5, seed=3), random(5, 3, seed=4)]
    (x, w), (dx, dw) = [part.detach() for part in at], along
    for way in (push, push_back):
        y, tangent = way(lambda x, w: cube(x) @ w, at, along)
        torch.testing.assert_close(y, x**3 @ w)
        torch.testing.assert_close(tangent, (3 * x**2 * dx) @ w + x**3 @ dw)
        assert not y.requires_grad and not tangent.requires_grad


def test_signs_are_the_bits_of_words_drawn_for_their_key():
    drawn = torch.Generator().manual_seed(zlib.crc32(b"0 1 layer"))
    words = torch.randint(2**32, (3, 1), generator=drawn)
    plain = (words >> torch.arange(32) & 1).flatten()[:70] * 2.0 - 1
    assert torch.equal(signs("0 1 layer", torch.empty(7, 10)), plain.reshape(7, 10))


def test_signs_are_even_independent_and_the_same_for_the_same_key():
    like = torch.empty(100, 333, dtype=torch.float16)
    one, other = signs("0 1 layer", like), signs("0 2 layer", like)
    assert one.dtype == torch.float32 and set(one.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(one, signs("0 1 layer", like))
    products = [one, other, one * other, one[1:] * one[:-1], one[:, 1:] * one[:, :-1], one[:, 32:] * one[:, :-32]]
    assert all(abs(p.mean().item()) < 4 / p.numel() ** 0.5 for p in products)


def test_draws_are_those_of_their_seed_and_sequence_however_many_are_asked_for():
    def draws(data, **fields):
        return torch.stack(list(at_once(HessianTrace(), lambda: HessianTrace(**fields).of(network(), data)).values()))

    few, many = draws(tokens(6), sequences=2), draws(tokens(6), sequences=4)
    assert few.shape == (21, 1, 2) and torch.equal(few, many[:, :, :2])
    assert torch.equal(few, draws(tokens(6), sequences=2)) and not torch.equal(
        few, draws(tokens(6), sequences=2, seed=1)
    )
    twice = draws(tokens(2), probes=2)
    assert twice.shape == (21, 2, 2) and torch.equal(twice[:, 0], few[:, 0]) and not torch.equal(twice[:, 1], few[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_traces_of_a_half_precision_model_are_near_those_of_its_weights_in_float32(dtype):
    found = []
    for subject in (network(), network()):
        subject.model.to(dtype)
        if found:
            subject.model.float()
        found.append(
            torch.stack(list(at_once(HessianTrace(), lambda s=subject: HessianTrace().of(s, tokens())).values()))
        )
    assert found[0].dtype == torch.float32
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()


def test_a_trace_says_that_it_is_negative_and_refuses_what_is_no_number():
    assert HessianTrace().notes(torch.tensor([[-3.0, 1.0]])) == {"negative_traces": 1}
    assert HessianTrace().notes(torch.tensor([[3.0, -1.0]])) == {}
    for fields in ({"probes": 0}, {"sequences": 0}):
        with pytest.raises(ValueError, match="expected probes >= 1 and sequences >= 1"):
            HessianTrace(**fields)
    broken = network()
    broken.weights()["model.layers.1.mlp.up_proj"].fill_(1e30)
    with pytest.raises(ValueError, match=r"^model\.layers\..*: NaN or infinite"):
        list(HessianTrace().of(broken, tokens()))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "bloom"])
def test_draws_on_a_gpu_are_those_of_the_cpu(family):
    found = []
    for device in ("cpu", "cuda"):
        subject = network(family)
        subject.device = torch.device(device)
        found.append(at_once(HessianTrace(), lambda s=subject: HessianTrace().of(s, tokens(2))))
    scale = max(value.abs().max() for value in found[0].values())
    for name, value in found[1].items():
        assert value.device.type == "cpu" and (value - found[0][name]).abs().max() < 1e-2 * scale
