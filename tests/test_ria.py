"""RIA against its formula, and where the formula divides by zero."""

import pytest
import torch

from prune.metrics.ria import RIA
from prune.patterns.unstructured import Unstructured
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Squares
from tests.tiny import random


def stats(x) -> Stats:
    values = {Squares(): Squares().of(x)}
    return Stats("layer", lambda: Gathered(values, len(x)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_scores_agree_with_a_loop_over_the_formula(power):
    weight, x = random(5, 7), random(30, 7, seed=1)
    scores = RIA(power)(weight, stats(x))
    for i in range(5):
        for j in range(7):
            size = abs(weight[i, j].item())
            column = sum(abs(w.item()) for w in weight[:, j])
            row = sum(abs(w.item()) for w in weight[i])
            norm = x[:, j].square().sum().sqrt().item()
            assert scores[i, j].item() == pytest.approx((size / column + size / row) * norm**power, rel=1e-5)


def test_rows_and_columns_of_zeros_score_zero_and_leave_the_others_as_they_are():
    weight, x = random(5, 7), random(30, 7, seed=1)
    weight[2], weight[:, 4] = 0, 0
    scores = RIA()(weight, stats(x))
    assert scores.isfinite().all()
    assert not scores[2].any()
    assert not scores[:, 4].any()
    alive, live = [0, 1, 3, 4], [0, 1, 2, 3, 5, 6]
    torch.testing.assert_close(scores[alive][:, live], RIA()(weight[alive][:, live], stats(x[:, live])))


def test_dead_features_score_zero():
    x = random(30, 7)
    x[:, 3] = 0
    scores = RIA()(random(5, 7), stats(x))
    assert not scores[:, 3].any()
    assert scores[:, :3].all()


def test_a_short_row_of_small_weights_is_not_emptied_as_size_alone_would_do():
    weight, x, half = random(32, 8), random(50, 8, seed=1), torch.tensor([0.5], dtype=torch.float64)
    weight[0] *= 1e-3
    by_size = Unstructured("matrix").select(weight.abs(), half)
    by_importance = Unstructured("matrix").select(RIA()(weight, stats(x)), half)
    assert not by_size[0].any()
    assert by_importance[0].sum() >= 2


def test_a_negative_power_is_refused():
    with pytest.raises(ValueError, match=r"ria: expected power >= 0, found -0\.5"):
        RIA(-0.5)
