"""Wanda's variant: the same share of its total score goes from every row, and the budget is met to the weight."""

import numpy
import pytest
import torch

from prune.allocators.cumulative import Cumulative
from prune.method import Linear, Method, Unit
from prune.metrics.magnitude import Magnitude
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.survey import Survey
from prune.updates.admm import ADMM
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.tiny import network, random, tokens


def toy(rows=64, width=512, spread=1.0):
    """Weights whose rows differ in how few of them dominate."""
    heavy = torch.linspace(0.1, spread, rows)[:, None]
    return random(rows, width) * (heavy * random(rows, width, seed=1)).exp()


def allot(sparsity, *weights, seen=1):
    """Row sparsities of these matrices, which are the whole model, by magnitude."""
    linears = {
        f"m{k}": Linear(f"m{k}", w, Stats(f"m{k}", lambda: Gathered({}, seen)), Magnitude(), Unstructured("row"))
        for k, w in enumerate(weights)
    }
    survey = Survey({name: linear.weight.numel() for name, linear in linears.items()})
    return [found.sparsity for found in Cumulative(sparsity)(Unit(linears), survey).values()]


def bisected(scores, sparsity):
    """The released search: how many of each row have a running sum of at most alpha, and what they are of the whole."""
    ordered = numpy.sort(scores, 1)
    total, running = ordered.sum(1, keepdims=True), ordered.cumsum(1)
    alpha, low, high = 0.4, 0.0, 0.8
    while True:
        counts = (running <= alpha * total).sum(1)
        found = counts.sum() / scores.size
        if abs(found - sparsity) <= 0.001 or high - low < 0.001:
            return counts, found
        low, high = (low, alpha) if found > sparsity else (alpha, high)
        alpha = (low + high) / 2


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_rows_lose_what_the_released_search_takes_from_them_and_the_sum_is_exact(sparsity):
    weight = toy()
    (shares,) = allot(sparsity, weight)
    counts, found = bisected(weight.abs().double().numpy(), sparsity)
    assert abs(found - sparsity) <= 0.001, "the released search reaches this target"
    assert (shares * 512 - torch.tensor(counts)).abs().max() <= 4
    assert (shares * 512).sum().item() == pytest.approx(round(sparsity * weight.numel()), abs=1e-6)
    assert shares.max() - shares.min() > 0.1


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8, 0.97])
def test_one_share_of_the_total_score_separates_what_goes_from_what_stays_in_every_row(sparsity):
    weight = toy()
    (shares,) = allot(sparsity, weight)
    lost = weight.abs().sort(1).values.double().cumsum(1)
    lost = torch.cat([torch.zeros(64, 1), lost / lost[:, -1:]], 1)
    counts = (shares * 512).round().long()[:, None]
    gone, next_one = lost.gather(1, counts), lost.gather(1, counts + 1)
    assert gone.max() <= next_one.min() + 1e-6


def test_targets_that_the_released_interval_cannot_reach_are_met():
    weight = random(64, 2048)
    assert bisected(weight.abs().double().numpy(), 0.97)[1] < 0.965
    assert allot(0.97, weight)[0].mean().item() == pytest.approx(0.97, abs=1e-5)


def test_every_matrix_keeps_the_target_and_the_model_has_it_to_the_weight():
    weights = [toy(7, 33), 10 * toy(5, 33), toy(9, 11)]
    shares = allot(0.37, *weights)
    counts = [(share * weight.shape[1]).sum().item() for share, weight in zip(shares, weights, strict=True)]
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - 0.37 * weight.numel()) <= 1
    assert sum(counts) == pytest.approx(round(0.37 * sum(weight.numel() for weight in weights)))


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_nothing_and_everything_are_shares_too(sparsity):
    assert (allot(sparsity, toy())[0] == sparsity).all()


def test_a_row_of_zeros_goes_first():
    weight = toy(8, 32)
    weight[3] = 0
    (shares,) = allot(0.25, weight)
    assert shares[3] == 1
    assert shares.mean() == pytest.approx(0.25)


def test_an_expert_that_no_token_reached_gets_the_target_in_every_row():
    (shares,) = allot(0.5, toy(8, 32), seen=0)
    assert (shares == 0.5).all()


@pytest.mark.parametrize("update", [Zero(), SparseGPT(), ADMM()])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_every_update_obeys_the_rows(update, family):
    method = Method(Unstructured("row"), Wanda(), Cumulative(0.6), update)
    method.check()
    solved = [p for s in prune(network(family), tokens(), method) for p in s.linears.values()]
    assert sum(int((~p.mask).sum()) for p in solved) == round(0.6 * sum(p.mask.numel() for p in solved))
    assert any((~p.mask).sum(1).unique().numel() > 2 for p in solved)
    assert all((p.weight[~p.mask] == 0).all() for p in solved)


def test_it_is_refused_where_rows_compete_or_the_pattern_fixes_the_sparsity():
    with pytest.raises(
        ValueError, match="Cumulative gives each row its sparsity, but rows compete here; set scope=row"
    ):
        Method(Unstructured("matrix"), Wanda(), Cumulative(0.5), Zero()).check()
    with pytest.raises(ValueError, match="Cumulative varies the sparsity"):
        Method(NM(2, 4), Wanda(), Cumulative(0.5), Zero()).check()
