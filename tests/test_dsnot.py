"""DSnoT's swaps against a loop over rows, and what they are for: the expected output of a row."""

from dataclasses import replace

import pytest
import torch

from prune.method import Linear
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Squares
from prune.statistics.moments import Moments, variance
from prune.updates.dsnot import DSnoT
from tests import tiny


def inputs(features: int = 24, seed: int = 1) -> torch.Tensor:
    """Tokens whose features have means of their own: what DSnoT repairs."""
    return tiny.random(50, features, seed=seed) * tiny.random(1, features, seed=8) + tiny.random(1, features, seed=9)


def linear(weight, x, pattern=None, sparsity=0.5) -> Linear:
    """A linear on these inputs [tokens, i], which count as one sequence."""
    values = {Moments(): Moments().of(x), Squares(): Squares().of(x)}
    share = torch.tensor([sparsity], dtype=torch.float64)
    return Linear("layer", weight, Stats("layer", lambda: Gathered(values, len(x))), Wanda(), pattern or ROW, share)


ROW = Unstructured("row")


def one_by_one(weight, x, mask, update: DSnoT, width: int) -> torch.Tensor:
    """The text of the method for one row at a time, a weight at a time, in Python floats."""
    total, norm = x.double().sum(0).tolist(), x.double().square().sum(0).sqrt().tolist()
    spread = x.double().var(0, correction=0).tolist()
    refined = mask.clone()
    for row, kept, new in zip(weight.double().tolist(), mask.tolist(), refined, strict=True):
        c = [w * s for w, s in zip(row, total, strict=True)]
        key = [value / var for value, var in zip(c, spread, strict=True)]
        cost = [abs(w) * size for w, size in zip(row, norm, strict=True)]
        touched, error = set(), sum(value for value, k in zip(c, kept, strict=True) if not k)
        for _ in range(update.cycles):
            sign = 1 if error > 0 else -1
            free = [j for j in range(len(c)) if j not in touched]
            loose = update.accept == "released" and width < len(c)  # n:m takes any partner, but never overshoots
            drops = [j for j in free if kept[j] and (loose or c[j] * sign < 0)]
            grows = [j for j in free if not kept[j] and c[j] * sign > 0]
            grows = [j for j in grows if any(j // width == d // width for d in drops)]
            if abs(error) <= update.threshold or not grows:
                break
            grow = max(grows, key=lambda j: key[j] * sign)
            drop = min((d for d in drops if d // width == grow // width), key=lambda j: cost[j])
            after = error + c[drop] - c[grow]
            if update.accept == "improving" and abs(after) >= abs(error):
                break
            if loose and after * error <= 0:
                break
            new[grow], new[drop], error = True, False, after
            touched |= {grow, drop}
    return refined


def errors(weight, x, mask) -> torch.Tensor:
    """|e| by row."""
    return (weight * x.sum(0)).masked_fill(mask, 0.0).sum(1).abs()


@pytest.mark.parametrize("pattern", [ROW, NM(2, 4), NM(4, 8)])
@pytest.mark.parametrize("accept", ["released", "improving"])
@pytest.mark.parametrize("fields", [{}, {"cycles": 3}, {"threshold": 5.0}])
def test_refined_masks_are_those_of_a_loop_and_conserve_counts(pattern, accept, fields):
    weight, x = tiny.random(40, 24), inputs()
    update = DSnoT(accept=accept, **fields)
    subject = linear(weight, x, pattern)
    mask, answer = subject.select(), update.linear(subject)
    assert torch.equal(answer.mask, one_by_one(weight, x, mask, update, pattern.width if pattern.width > 1 else 24))
    assert 0 < answer.notes["swapped"] == int((answer.mask & ~mask).sum())
    assert torch.equal(answer.mask.sum(1), mask.sum(1))
    assert pattern.violations(answer.mask) == 0
    assert torch.equal(answer.weight, weight * answer.mask)


def test_a_swap_that_must_improve_lowers_the_error_of_every_row_it_changes():
    weight, x = tiny.random(40, 24), inputs()
    subject = linear(weight, x)
    mask, refined = subject.select(), DSnoT(accept="improving").linear(subject).mask
    before, after = (errors(weight, x, part) for part in (mask, refined))
    changed = (mask != refined).any(1)
    assert changed.any() and (after[changed] < before[changed]).all()
    assert after.sum() < 0.3 * before.sum()


def test_rows_below_the_threshold_and_runs_without_cycles_stay_as_they_are():
    subject = linear(tiny.random(10, 24), inputs())
    for update in (DSnoT(threshold=1e6), DSnoT(cycles=0)):
        answer = update.linear(subject)
        assert torch.equal(answer.mask, subject.select()) and answer.notes == {"swapped": 0}


def test_the_variance_is_that_of_all_tokens_and_constant_or_dead_features_do_no_harm():
    x = inputs()
    torch.testing.assert_close(variance(Moments().of(x)), x.var(0, correction=0), rtol=1e-4, atol=1e-6)
    x[:, 3], x[:, 5] = 0.0, 2.0
    assert (variance(Moments().of(x))[[3, 5]] < 1e-6).all()
    weight = tiny.random(10, 24)
    answer = DSnoT().linear(linear(weight, x))
    assert answer.weight.isfinite().all() and (answer.mask.sum(1) == 12).all()


def test_the_matrices_to_skip_keep_the_start_mask_and_say_so():
    method = replace(tiny.wanda(), update=DSnoT(skip="mlp", threshold=0.0))
    start = next(prune(tiny.network(), tiny.tokens(), tiny.wanda())).linears
    refined = next(prune(tiny.network(), tiny.tokens(), method)).linears
    for name, p in refined.items():
        assert torch.equal(p.mask, start[name].mask) == ("mlp" in name)
        assert p.notes.get("skipped", 0) == ("mlp" in name)
    everywhere = replace(method, update=DSnoT(skip=None, threshold=0.0))
    refined = next(prune(tiny.network(), tiny.tokens(), everywhere)).linears
    assert all(p.notes["swapped"] > 0 for p in refined.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"cycles": -1}, "cycles >= 0"), ({"threshold": -0.1}, "threshold >= 0"), ({"accept": "all"}, "accept released")],
)
def test_what_cannot_be_done_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DSnoT(**fields)
