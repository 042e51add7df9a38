"""Which weights go: exact counts, ties decided, and what cannot be is refused."""

import pytest
import torch

from prune.lowest import lowest
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from tests.tiny import random


def share(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.33, 0.5, 0.55, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (16, 10), (5, 64)])
def test_exactly_round_of_share_times_group_is_dropped(shape, sparsity):
    scores = random(*shape)
    row = Unstructured("row").select(scores, share(sparsity))
    due = int(sparsity * scores.numel() + 0.5)
    assert (~row).sum() == due
    assert (((~row).sum(1) - sparsity * shape[1]).abs() < 1).all(), "rows differ by one at most"
    matrix = Unstructured("matrix").select(scores, share(sparsity))
    assert (~matrix).sum() == due


def test_the_lowest_scores_of_the_group_are_dropped():
    scores = random(8, 20).abs()
    for mask, groups in (
        (Unstructured("row").select(scores, share(0.3)), list(scores)),
        (Unstructured("matrix").select(scores, share(0.3)), [scores.flatten()]),
    ):
        for kept, group in zip(mask.reshape(len(groups), -1), groups, strict=True):
            assert group[~kept].max() < group[kept].min()


def test_of_equal_scores_the_leftmost_are_dropped():
    equal = torch.ones(3, 8)
    assert Unstructured("row").select(equal, share(0.5)).tolist() == [[False] * 4 + [True] * 4] * 3
    assert Unstructured("matrix").select(equal, share(0.5)).flatten().tolist() == [False] * 12 + [True] * 12
    assert NM(2, 4).select(equal, share(0.5)).tolist() == [[False, False, True, True] * 2] * 3


def test_each_row_may_have_its_own_share():
    mask = Unstructured("row").select(random(3, 10), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
    assert (~mask).sum(1).tolist() == [0, 3, 10]


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (3, 4), (4, 8), (1, 2), (5, 16)])
def test_n_of_every_m_are_kept_and_they_are_the_highest(n, m):
    scores = random(6, 3 * m)
    mask = NM(n, m).select(scores, share(1 - n / m))
    grouped, kept = scores.reshape(-1, m), mask.reshape(-1, m)
    assert (kept.sum(1) == n).all()
    assert torch.equal(grouped.masked_fill(~kept, -9).sort(1).values[:, m - n :], grouped.sort(1).values[:, m - n :])
    assert NM(n, m).violations(mask) == 0
    assert NM(n, m).violations(torch.ones_like(mask)) == mask.numel() // m


@pytest.mark.parametrize("scope", ["row", "matrix"])
@pytest.mark.parametrize("sparsity", [0.3, 0.55, 0.77])
def test_slices_solved_one_after_the_other_add_up_to_the_exact_count(scope, sparsity):
    pattern, rows, width = Unstructured(scope), 7, 100
    dropped = 0
    for start in range(0, width, 16):
        stop = min(start + 16, width)
        mask = pattern.select(random(rows, stop - start), pattern.share(share(sparsity), (rows, width), start, stop))
        dropped += int((~mask).sum())
    assert dropped == int(sparsity * rows * width + 0.5)


def test_a_width_that_m_does_not_divide_is_refused_with_the_layers_name():
    with pytest.raises(ValueError, match=r"mlp.down_proj: 4:8 needs an input width that 8 divides, found 172"):
        NM(4, 8).check(0.5, {"q_proj": (8, 64), "mlp.down_proj": (64, 172)})


@pytest.mark.parametrize("sparsity", [0.55, 0.6, 0.75])
def test_a_sparsity_that_contradicts_the_pattern_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"2:4 removes exactly 0.5 of the weights, found .*; set sparsity=0.5"):
        NM(2, 4).check(sparsity, {})
    with pytest.raises(ValueError, match="2:4 removes exactly"):
        NM(2, 4).select(random(4, 8), share(sparsity))


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(sparsity):
    with pytest.raises(ValueError, match="expected the share to remove, 0 to 1"):
        Unstructured().check(sparsity, {})


def test_patterns_that_are_none_are_refused():
    with pytest.raises(ValueError, match="scope: expected row or matrix, found 'column'"):
        Unstructured("column")
    with pytest.raises(ValueError, match="expected 0 < n < m"):
        NM(4, 4)


def with_edges(*shape: int) -> torch.Tensor:
    """Scores of both signs with many ties, both zeros and infinity among them."""
    scores = (random(*shape) * 2).round() / 2
    scores[:, 3], scores[:, 5], scores[:, 7] = 0.0, -0.0, torch.inf
    return torch.where(random(*shape, seed=1) > 1, 1e-30 * scores, scores)


@pytest.mark.parametrize("shape", [(1, 200), (16, 40)])
def test_the_lowest_are_the_first_of_a_stable_sort(shape):
    scores = with_edges(*shape)
    for step in range(8):
        counts = torch.randint(0, shape[1] + 1, shape[:1], generator=torch.Generator().manual_seed(step))
        found = lowest(scores, counts)
        for row, count, mask in zip(scores, counts.tolist(), found, strict=True):
            assert set(mask.nonzero().flatten().tolist()) == set(row.argsort(stable=True)[:count].tolist())
    assert not lowest(scores, 0 * counts).any()
    assert lowest(scores, 0 * counts + shape[1]).all()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.77, 0.999])
def test_on_the_way_to_n_of_m_the_highest_of_every_group_are_safe_and_the_lowest_of_all_others_go(fraction):
    scores = random(6, 32)
    mask = NM(2, 4).select(scores, share(0.5 * fraction))
    assert (~mask).sum() == int(0.5 * fraction * scores.numel() + 1e-9)
    final = NM(2, 4).select(scores, share(0.5))
    assert mask[final].all()
    dropped, spared = scores[~mask], scores[mask & ~final]
    assert not len(dropped) or not len(spared) or dropped.max() < spared.min()
