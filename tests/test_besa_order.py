"""The order in which BESA lets weights go: what each candidate adds, and the gradient by one running sum over it."""

import pytest
import torch

from prune.allocators.besa import Masked, edges, rank
from tests.test_besa import STEPS, candidates, linear
from tests.tiny import random


def test_candidates_remove_whole_numbers_of_weights_without_rounding():
    assert edges(5120, STEPS).tolist() == [5120 * k // STEPS for k in range(STEPS + 1)]
    assert edges(5120, STEPS)[95] == 4864, "a float32 product 5120 x 0.95 falls to 4863"


@pytest.mark.parametrize(("scope", "width"), [("row", 30), ("row", 128), ("row", 100), ("matrix", 41)])
def test_each_weight_is_added_by_one_candidate_after_those_that_go_before_it(scope, width):
    ranked = rank(linear(random(5, width), scope), STEPS)
    g, n = ranked.place.shape
    expected = ranked.place.argsort(1) + n * torch.arange(g)[:, None]
    for group, places in zip(ranked.order, expected, strict=True):
        assert torch.equal(group[group < 5 * width], places)
        assert (group < 5 * width).sum(1).tolist() == edges(n, STEPS).diff().tolist()


def plain(ranked, weight, upstream, rates):
    """The same gradient from a running sum over all weights of a group, in float64, read at the candidates' edges."""
    g, n = ranked.place.shape
    order = (ranked.place.argsort(1) + n * torch.arange(g)[:, None]).flatten()
    sums = (weight * upstream).flatten()[order].view(rates, -1, n).sum(1).double().cumsum(1)
    last = edges(n, STEPS).flip(0)
    return -torch.where(last > 0, sums[:, (last - 1).clamp(min=0)], 0.0)


@pytest.mark.parametrize(("scope", "rates"), [("row", 64), ("row", 1), ("matrix", 1)])
@pytest.mark.parametrize("width", [30, 100, 344])
def test_mask_and_gradient_are_the_plain_ones_however_often_their_memory_is_used(scope, rates, width):
    weight = random(64, width)
    ranked = rank(linear(weight, scope), STEPS)
    room = torch.full((ranked.order.numel() + 5,), torch.nan)  # larger matrices use it, too
    for seed in range(3):
        upstream = random(64, width, seed=seed + 10)
        belief = random(rates, STEPS + 1, seed=seed).double().softmax(1).requires_grad_()
        removed = (belief @ candidates()).detach()
        masked = Masked.apply(belief, removed, ranked, room, ranked.weight)
        kept = (ranked.place >= (removed * ranked.place.shape[1]).floor()[:, None]).view(64, width)
        assert torch.equal(masked, weight * kept)
        (found,) = torch.autograd.grad(masked, belief, upstream)
        torch.testing.assert_close(found, plain(ranked, weight, upstream, rates), rtol=1e-5, atol=1e-5)
