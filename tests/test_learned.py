"""Learned clipping: its gradients are those of the formula, it starts at min-max and loses less."""

import pytest
import torch

from prune.grid import Grid
from prune.method import Unit
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from prune.quantizers.learned import Learned
from prune.quantizers.minmax import MinMax
from prune.updates.zero import Zero
from tests.toys import error, toy, toy_b


def test_rounding_has_the_gradients_of_the_formula():
    weight = torch.tensor([[-1.0, -0.3, 0.0, 0.4, 2.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[0.25]], dtype=torch.float64, requires_grad=True)
    grid = Grid(scale, torch.tensor([[2.0]], dtype=torch.float64), 3)  # values -0.5 to 1.25
    values = grid.straight(weight)
    assert torch.equal(values, grid.nearest(weight))
    values.sum().backward()
    assert weight.grad.tolist() == [[0, 1, 1, 1, 0]]
    inside = sum(round(w / 0.25) - w / 0.25 for w in (-0.3, 0.0, 0.4))
    assert scale.grad.item() == pytest.approx(-2 + inside + 5)


def test_clipping_that_leaves_all_is_min_max():
    weight, x = toy_b(0)
    linear = toy(weight, x, quantizer=Learned(group=32, start=40.0))  # sigmoid(40) is 1
    assert torch.equal(
        linear.quantizer.clipping(linear).grid().scale, MinMax(group=32).fit(weight, torch.float64).scale
    )


def test_learned_clipping_loses_less_than_min_max_of_the_output_and_less_with_more_passes():
    weight, x = toy_b(0)
    lost = []
    for epochs in (0, 5, 40):
        linear = toy(weight, x, Wanda(), Unstructured("row"), quantizer=Learned(bits=3, epochs=epochs, rate=0.1))
        unit = Unit({"toy": linear}, lambda: iter(x.split(512)), lambda call, weights: (call @ weights["toy"].T)[None])
        found = linear.quantizer(unit, {"toy": Zero().linear(linear)})["toy"]
        lost.append(error(x, weight, found.weight))
        assert (found.weight[~found.mask] == 0).all()
    assert lost[0] > 1.05 * lost[1] > 1.05 * lost[2]
