"""The emulated device does as CUDA does, where it says so; what is wrong on a GPU is wrong on it."""

import gc

import pytest
import torch
from torch import nn

from prune import lowest
from tests import emulated
from tests.tiny import random

SEVEN = torch.tensor(7.0)
WRONG = {  # what CUDA refuses, of x [4, 3] there and y [4, 3] on the host
    "a sum": lambda x, y: x + y,
    "a product": lambda x, y: x @ y.T,
    "a linear": nn.functional.linear,
    "a host tensor that is added to": lambda x, y: y.add_(x),
    "a number of the host that is added to": lambda x, y: SEVEN.clone().add_(x[0, 0]),
    "a sum in place": lambda x, y: x.add_(y),
    "an answer on the host": lambda x, y: torch.mul(x, 2, out=y),
    "a condition": lambda x, y: torch.where(y > 0, x, 0.0),
    "a mask": lambda x, y: x.masked_fill(y > 0, 0.0),
    "a comparison": torch.equal,
    "a concatenation": lambda x, y: torch.cat([x, y]),
    "a stack with a number of the host": lambda x, y: torch.stack([x[0, 0], SEVEN]),
    "indices there of a host tensor": lambda x, y: y[(x > 0).nonzero()[:, 0]],
    "places of the host": lambda x, y: x.gather(0, (y > 0).long()),
    "values of the host that are put": lambda x, y: x.index_put_((torch.arange(4),), y),
    "numpy": lambda x, y: x.numpy(),
    "a host generator": lambda x, y: x.normal_(generator=torch.Generator()),
    "a gradient": lambda x, y: torch.autograd.grad(x.requires_grad_() * 2, x, y),
}


@pytest.fixture
def there():
    with emulated.device() as device:
        yield device


@pytest.mark.parametrize("what", WRONG)
def test_what_cuda_refuses_is_refused(what, there):
    with pytest.raises((RuntimeError, TypeError), match=r"device|indices|generator"):
        WRONG[what](random(4, 3).to(there), random(4, 3))


def test_what_cuda_lets_meet_meets(there):
    x, y = random(4, 3), random(4, 3)
    far = x.to(there)
    assert torch.equal((far * SEVEN).cpu(), x * SEVEN)
    assert torch.equal(far.masked_fill(far > 0, SEVEN).cpu(), x.masked_fill(x > 0, SEVEN))
    assert torch.equal(far[torch.tensor([2, 0])].cpu(), x[[2, 0]])
    assert torch.equal(far[y[:, 0] > 0].cpu(), x[y[:, 0] > 0])
    far[torch.tensor([1])] = SEVEN
    assert far[1].tolist() == [7.0] * 3 and (far[1, 1].item(), int(far.numel())) == (7.0, 12)
    assert torch.equal(far.copy_(y).cpu(), y) and torch.equal(y.copy_(far * 2), far.cpu() * 2)


def test_views_share_memory_and_modules_keep_their_parameters(there):
    far = random(4, 3).to(there)
    far.T[1:].mul_(2)
    far.view(torch.int32)[0] = 0
    expected = random(4, 3)
    expected[:, 1:] *= 2
    expected[0] = 0
    assert torch.equal(far.cpu(), expected)
    layer = nn.Linear(3, 2)
    weight = layer.weight
    weight.data = weight.data.to(there)
    assert layer.weight is weight and weight.device == far.device
    weight.data = weight.data.cpu()
    assert weight.device.type == "cpu"


def test_gradients_and_tangents_are_those_of_the_cpu(there):
    def slopes(device):
        x, w = random(2, 5, 8).to(device), random(8, 8, seed=1).to(device).requires_grad_()
        f = lambda v: nn.functional.layer_norm(nn.functional.silu(x @ v).softmax(-1), (8,)).square().sum()
        tangent = torch.func.jvp(f, (w.detach(),), (torch.ones_like(w),))[1]
        (first,) = torch.autograd.grad(f(w), w, create_graph=True)
        return [part.detach().cpu() for part in (tangent, first, *torch.autograd.grad(first.square().sum(), w))]

    for one, other in zip(slopes(there), slopes("cpu"), strict=True):
        assert torch.equal(one, other)


def test_bytes_are_counted_once_for_all_views_and_until_the_last_is_gone(there):
    gc.collect()
    before = emulated.memory.held
    with emulated.memory.measured():
        far = torch.zeros(100, device=there)
        part = far[50:].view(5, 10).T
        assert emulated.memory.held - before == 400
        double = far + far
        del far, double
        assert (emulated.memory.held - before, emulated.memory.peak - before) == (400, 800)
    del part
    assert emulated.memory.held == before


def test_what_is_copied_to_pinned_memory_is_there_after_something_waited(there):
    pinned = torch.empty(3, pin_memory=True).copy_(torch.arange(3.0, device=there), non_blocking=True)
    assert pinned.isnan().all(), "whoever reads it now reads anything"
    assert pinned.to(there).tolist() == [0, 1, 2] and pinned.tolist() == [0, 1, 2]
    assert torch.empty(3).copy_(torch.arange(3.0, device=there), non_blocking=True).tolist() == [0, 1, 2]


@pytest.mark.parametrize("groups", [1, 7])
def test_thresholds_that_stand_for_those_of_a_gpu_are_its_own(groups):
    keys = lowest._ordered(random(groups, 90).round(decimals=1))
    due = torch.arange(groups)[:, None] * 15
    expected = lowest._searched(keys, due)
    with emulated.device() as device:
        assert torch.equal(lowest._searched(keys.to(device), due.to(device)).cpu(), expected)


def test_without_it_nothing_is_there():
    assert not torch.accelerator.is_available()
    assert torch.far.device_count() == 0
