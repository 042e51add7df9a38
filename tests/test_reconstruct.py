"""Block reconstruction: masks stay, zeros are exact, held-out sequences choose, and the losses are those it tells."""

import pytest
import torch
from torch import Tensor

from prune.allocators.uniform import Uniform
from prune.method import Linear, Method, Unit
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Squares
from prune.updates.reconstruct import Reconstruct
from tests.tiny import Memory, network, random, sparsegpt, tokens, wanda

QUICK = Reconstruct(epochs=3, batch=2, holdout=0.25)


def solve(update=QUICK, pattern=None, given=None, family="llama", granularity="block", data=None):
    """The pruned model and its answers by full name."""
    subject, data = network(family), tokens(8) if data is None else data
    method = Method(pattern or Unstructured("row"), Wanda(), Uniform(0.5), update)
    solved = {}
    for block in prune(subject, data, method, granularity, given=given):
        solved |= block.linears
    return subject, solved


@pytest.mark.parametrize("pattern", [Unstructured("row"), Unstructured("matrix"), NM(2, 4)])
def test_masks_stay_and_what_they_remove_is_exactly_zero(pattern):
    """Of the first block, whose input no earlier weight has changed."""
    subject, solved = solve(pattern=pattern)
    plain = {}
    for block in prune(network(), tokens(8), Method(pattern, Wanda(), Uniform(0.5), wanda().update)):
        plain |= block.linears
    for name, p in solved.items():
        if ".layers.0." in name:
            assert torch.equal(p.mask, plain[name].mask)
            assert not torch.equal(p.weight, plain[name].weight)
        zeros = subject.weights()[name][~p.mask]
        assert not zeros.any() and not torch.signbit(zeros).any() and p.weight.isfinite().all()


def test_it_starts_from_the_weights_and_masks_of_another_run():
    given = Memory()
    for _ in prune(network(), tokens(8), sparsegpt(), done=given):
        pass
    _, solved = solve(Reconstruct(epochs=1, rate=1e-12, holdout=0), given=given)
    for path in given:
        for name, p in given[path].linears.items():
            assert torch.equal(solved[name].mask, p.mask)
            torch.testing.assert_close(solved[name].weight, p.weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reference", ["pruned", "dense"])
def test_the_losses_are_those_of_the_model_that_is_left(reference):
    """Its blocks run anew on the pruned stream, and the dense model's, each on its own or on that stream."""
    data = tokens(8)
    subject, solved = solve(Reconstruct(epochs=2, batch=2, holdout=0.25, reference=reference), data=data)
    dense = network()
    pairs = zip(subject.walk(data, batch=1), dense.walk(data, batch=1), strict=True)
    for mine, other in pairs:
        entering = [call.hidden.clone() for call in mine.calls]
        calls = [call.at(hidden) for call, hidden in zip(other.calls, entering, strict=True)]
        with torch.no_grad():
            local = [call.through(other.module).hidden for call in calls]
        mine.advance(), other.advance()
        left = [call.hidden for call in mine.calls]
        targets = local if reference == "pruned" else [call.hidden for call in other.calls]
        errors = [float((y - t).square().sum() / t.square().sum()) for y, t in zip(left, targets, strict=True)]
        told = next(p for name, p in solved.items() if name.startswith(f"{mine.path}.")).measures
        assert told["loss"] == pytest.approx(sum(errors[:6]) / 6, rel=1e-4)
        assert told["held_out"] == pytest.approx(sum(errors[6:]) / 2, rel=1e-4)
        assert told["held_out"] <= told["held_out_before"]
        assert told["loss"] < told["loss_before"]


def test_an_epoch_that_makes_held_out_sequences_worse_is_not_kept():
    given = Memory()
    for _ in prune(network(), tokens(8), sparsegpt(), done=given):
        pass
    _, solved = solve(Reconstruct(epochs=2, rate=50.0, clip=None), given=given)
    first = given["model.layers.0"].linears
    for name, p in first.items():
        assert solved[name].measures["epoch"] == 0 and torch.equal(solved[name].weight, p.weight)


def test_the_same_run_has_the_same_bits():
    one, two = (solve()[1] for _ in range(2))
    assert all(torch.equal(p.weight, two[name].weight) for name, p in one.items())


class Plain:
    """One matrix on its own: y = x W', whose best weights on a mask are known."""

    def __init__(self, sequences: int = 6) -> None:
        mixing = torch.eye(8) + 0.6  # of features that say much alike
        self.inputs = [random(1, 24, 8, seed=k) @ mixing for k in range(sequences)]
        self.weight = random(5, 8, seed=99)
        squares = {Squares(): sum(x.square().sum((0, 1)) for x in self.inputs) / sequences}
        stats = Stats("one", lambda: Gathered(squares, 24 * sequences))
        share = torch.tensor([0.5], dtype=torch.float64)
        linear = Linear("one", self.weight, stats, Wanda(), Unstructured("row"), share)
        forward = lambda x, weights: x @ weights["one"].T
        self.unit = Unit({"one": linear}, lambda: iter(self.inputs), forward, lambda x: x @ self.weight.T)

    def best(self, mask: Tensor) -> float:
        """The least sum of relative errors, by normal equations row by row."""
        scales = [float((x @ self.weight.T).square().sum()) for x in self.inputs]
        h = sum(x[0].T.double() @ x[0].double() / s for x, s in zip(self.inputs, scales, strict=True))
        total = 0.0
        for row, kept in zip(self.weight.double(), mask, strict=True):
            solved = torch.linalg.solve(h[kept][:, kept], h[kept] @ row)
            lost = row.clone()
            lost[kept] -= solved
            total += float(lost @ h @ lost)
        return total / len(self.inputs)


def test_a_matrix_alone_comes_to_the_least_squares_of_its_mask():
    case = Plain()
    found = Reconstruct(epochs=400, batch=6, rate=0.05, holdout=0)(case.unit)["one"]
    least = case.best(found.mask)
    assert found.measures["loss_before"] > 1.2 * least
    assert found.measures["loss"] == pytest.approx(least, rel=2e-3)


def test_an_attention_or_an_mlp_can_be_its_own_window():
    _, solved = solve(Reconstruct(epochs=2, holdout=0.25, reference="pruned"), granularity="submodule")
    told = [p.measures for p in solved.values()]
    assert all(m["held_out"] <= m["held_out_before"] for m in told) and len({m["loss"] for m in told}) > 3
    with pytest.raises(ValueError, match="kept of whole blocks; set granularity=block"):
        solve(granularity="submodule")


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch": 0}, {"rate": 0.0}, {"warmup": 2.0}, {"holdout": 1.0}, {"clip": 0.0}],
)
def test_fields_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="reconstruct: expected"):
        Reconstruct(**wrong)
