"""Swaps, the re-fit and ALPS against closed forms, brute force and the tables of ../shared/papers/newer.md."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from prune.method import Pruned
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.updates.alps import ALPS
from prune.updates.refit import Refit
from prune.updates.swaps import Swaps
from prune.updates.zero import Zero
from tests.test_admm import error, exact, linear, problem
from tests.tiny import random

MATRIX, ROW, HALF = Unstructured("matrix"), Unstructured("row"), NM(2, 4)
PATTERNS = [(ROW, 0.6), (MATRIX, 0.6), (HALF, 0.5), (NM(4, 8), 0.5), (NM(1, 4), 0.75)]
TABLE = {  # newer.md, means of seeds 0 to 2: Wanda | + re-fit | + swaps | swaps + re-fit | swaps per row | ALPS
    0.5: (0.01358, 0.00745, 0.01035, 0.00577, 4.9, 0.00411),
    0.6: (0.02638, 0.01669, 0.02009, 0.01282, 5.1, 0.01018),
    0.7: (0.05296, 0.03862, 0.04096, 0.02979, 5.0, 0.02517),
    0.8: (0.10644, 0.08706, 0.08591, 0.06989, 4.2, 0.06287),
    "2:4": (0.03784, 0.01921, 0.03132, 0.01666, 8.2, 0.01321),
}


def subject(key, seed, pattern=ROW):
    """The table's layer, its inputs and the linear; the oracle rounds counts down."""
    dense, x = problem(seed)
    size = 128 if pattern is ROW else dense.numel()
    asked = (HALF, 0.5) if key == "2:4" else (pattern, int(size * key) / size)
    return dense, x, linear(dense, x, *asked)


def cell(key, seed):
    dense, x, layer = subject(key, seed)
    swapped, exactly = Swaps().linear(layer), Refit(damping=0.0)
    both = exactly.linear(replace(layer, given=swapped))
    found = [error(p.weight, dense, x) for p in (Zero().linear(layer), exactly.linear(layer), swapped, both)]
    return torch.stack([*found, torch.tensor(swapped.notes["swapped"] / 96)])


@pytest.mark.parametrize("key", TABLE)
def test_swaps_and_the_refit_have_the_errors_of_the_oracle_table(key):
    mean = torch.stack([cell(key, seed) for seed in range(3)]).mean(0).tolist()
    assert mean[:4] == pytest.approx(TABLE[key][:4], abs=0.6e-5)
    assert mean[4] == pytest.approx(TABLE[key][4], abs=0.06)


@pytest.mark.parametrize("key", TABLE)
def test_alps_is_near_the_oracle_table_and_reaches_it_where_the_penalty_grows_slowly(key):
    def mean(update):
        layers = [subject(key, seed, MATRIX) for seed in range(3)]
        return sum(error(update.linear(layer).weight, dense, x).item() for dense, x, layer in layers) / 3

    released, slow = mean(ALPS()), mean(ALPS(check_every=20))
    assert slow < 1.005 * TABLE[key][5] and slow < released < TABLE[key][3]
    assert released == pytest.approx(TABLE[key][5], rel=0.03)


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS)
def test_the_refit_is_the_closed_form_of_each_row_wherever_it_starts(pattern, sparsity, damping):
    dense, x = problem()
    layer = linear(dense, x, pattern, sparsity)
    gram = x.T @ x
    gram += damping * gram.diagonal().mean() * torch.eye(len(gram))
    mask, update = layer.select(), Refit(damping, tolerance=1e-9)
    for given in (None, Pruned(random(96, 128).double() * mask, mask)):
        found = update.linear(replace(layer, given=given))
        for row, kept in enumerate(mask):
            best = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ dense[row])
            torch.testing.assert_close(found.weight[row, kept], best, rtol=1e-6, atol=1e-8)
        assert torch.equal(found.mask, mask) and not found.weight[~mask].any() and not found.notes


def test_the_refit_is_at_its_optimum_in_single_precision_and_tells_of_rows_that_are_not():
    dense, x = problem(dtype=torch.float32)
    layer = linear(dense, x, ROW, 0.6)
    found = Refit(damping=0.0).linear(layer)
    best, _ = exact(dense, x, found.mask, damping=0.0)
    assert error(found.weight, dense, x) <= error(best, dense, x) * (1 + 1e-4)
    assert Refit(iterations=2).linear(layer).notes == {"unfinished_rows": 96}


@pytest.mark.parametrize("update", [Refit(), Refit(damping=0.0), ALPS(), Swaps()])
@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_what_keeps_all_or_nothing_is_the_dense_weight_or_zero(update, sparsity):
    dense, x = problem(dtype=torch.float32)
    found = update.linear(linear(dense, x, MATRIX, sparsity))
    torch.testing.assert_close(found.weight, dense * (1 - sparsity), rtol=1e-4, atol=1e-6)


def pairs(mask, width):
    """Every kept and pruned column of a row that share a group."""
    columns = range(len(mask))
    return [(u, p) for u in columns for p in columns if mask[u] and not mask[p] and u // width == p // width]


def one_by_one(dense, gram, mask, width):
    """Best swaps of each row, every error made anew; and the error after each swap."""
    mask, course = mask.clone(), []
    for row, kept in zip(dense, mask, strict=True):
        cost = lambda keeps, row=row: ((row * ~keeps) @ gram @ (row * ~keeps)).item()
        while True:
            course.append(cost(kept))
            tried = [
                (cost(kept ^ torch.zeros_like(kept).index_fill(0, torch.tensor([u, p]), True)), u, p)
                for u, p in pairs(kept.tolist(), width)
            ]
            after, u, p = min(tried)
            if after >= course[-1]:
                break
            kept[u], kept[p] = False, True
    return mask, course


@pytest.mark.parametrize(("pattern", "width"), [(ROW, 12), (HALF, 4), (MATRIX, 12)])
def test_swaps_are_those_of_a_search_over_all_pairs_of_each_row(pattern, width):
    x = random(60, 12, seed=1).double() @ random(12, 12, seed=2).double()
    dense = random(5, 12).double()
    layer = linear(dense, x, pattern)
    mask, course = one_by_one(dense, x.T @ x, layer.select(), width)
    found = Swaps().linear(layer)
    assert torch.equal(found.mask, mask)
    assert found.notes == {"swapped": len(course) - 5} and len(course) > 9
    assert torch.equal(found.weight, dense * mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS)
def test_every_swap_lowers_the_error_of_its_row_and_moves_no_weight_to_another_group(pattern, sparsity, dtype):
    dense, x = problem(dtype=dtype)
    layer = linear(dense, x, pattern, sparsity)
    start = layer.select()
    gram, width = (x.T @ x).double(), pattern.width if pattern.width > 1 else 128

    def errors(mask):
        lost = dense.double() * ~mask
        return ((lost @ gram) * lost).sum(1)

    masks = [start, *(Swaps(cycles=n).linear(layer).mask for n in (1, 2, 3, 100))]
    for before, after in pairwise(masks):
        moved = (before != after).any(1)
        assert moved.any() and (errors(after) < errors(before))[moved].all()
        assert torch.equal(*(mask.unflatten(1, (-1, width)).sum(2) for mask in (before, after)))
    assert Swaps().linear(replace(layer, given=Pruned(dense * after, after))).notes == {"swapped": 0}


@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS)
def test_alps_keeps_as_many_as_the_pattern_says_and_its_weights_are_nearly_the_best_on_its_mask(pattern, sparsity):
    dense, x = problem()
    layer = linear(dense, x, pattern, sparsity)
    found = ALPS().linear(layer)
    assert (~found.mask).sum() == round(sparsity * dense.numel()) and pattern.violations(found.mask) == 0
    assert torch.equal(found.weight != 0, found.mask) and found.notes == {}
    best = Refit(tolerance=1e-8).linear(replace(layer, given=found))
    torch.testing.assert_close(found.weight, best.weight, rtol=1e-3, atol=1e-4)
    again = ALPS().linear(replace(layer, given=found))
    assert torch.equal(again.mask, found.mask)
    torch.testing.assert_close(again.weight, best.weight, rtol=1e-3, atol=1e-4)


def test_alps_says_when_its_mask_had_not_come_to_stay():
    dense, x = problem(dtype=torch.float32)
    assert ALPS(iterations=6).linear(linear(dense, x)).notes == {"unsettled_masks": 1}


@pytest.mark.parametrize("update", [Refit(), ALPS(), Swaps()])
def test_dead_features_leave_weights_finite_and_a_layer_without_any_input_is_refused(update):
    dense, x = problem(dtype=torch.float32)
    x[:, [3, 64]] = 0
    x[:, 10] = 1e-12 * x[:, 11]
    found = update.linear(linear(dense, x, metric=Wanda()))
    assert found.weight.half().isfinite().all() and not found.mask[:, [3, 64, 10]].any()
    if update.refits:
        with pytest.raises(ValueError, match="layer: every input feature is zero"):
            update.linear(linear(dense, 0 * x))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Refit, "damping", -1),
        (Refit, "tolerance", 0),
        (ALPS, "damping", 0),
        (ALPS, "penalty", 0),
        (Swaps, "cycles", -1),
    ],
)
def test_settings_out_of_range_are_refused(kind, field, value):
    with pytest.raises(ValueError, match=f"{kind.__name__.lower()}: expected .*{field}"):
        kind(**{field: value})
