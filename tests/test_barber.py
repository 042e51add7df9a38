"""LLM-Barber: swaps against loops and closed forms, gradients against autograd, masks against their start."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from prune.method import Linear, Method, Pruned, Unit
from prune.metrics.magnitude import Magnitude
from prune.network import Network
from prune.part import unit
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import Solved, gather, prune
from prune.statistic import Gathered, Stats
from prune.survey import Survey
from prune.updates.barber import Barber, gaining, pairs, rebuild, squared_gradients
from tests import tiny

GRANULARITIES = ["row", "column", "matrix", "block"]


def random_masks(rows: int, columns: int) -> torch.Tensor:
    """Rows from wholly kept to wholly pruned."""
    draws = torch.rand(rows, columns, generator=torch.Generator().manual_seed(1))
    return draws > torch.linspace(0, 1, rows)[:, None]


def n_of_m(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    return NM(n, m).select(scores, torch.tensor([1 - n / m], dtype=torch.float64))


def one_by_one(scores, mask, ratio, width=0):
    """The text of the method, for one group at a time; n:m as the docstring of rebuild has it."""
    rebuilt = mask.clone()
    for score, kept, new in zip(scores.tolist(), mask.tolist(), rebuilt, strict=True):
        grow = sorted((j for j in range(len(kept)) if not kept[j]), key=lambda j: -score[j])
        drop = sorted((j for j in range(len(kept)) if kept[j]), key=lambda j: score[j])
        gaining = sum(score[g] > score[d] for g, d in zip(grow, drop, strict=False))
        quota = int(gaining * ratio + 1e-9)
        for g, d in zip(grow[:quota], drop[:quota], strict=True) if not width else ():
            new[g], new[d] = True, False
        for start in range(0, len(kept), width) if width else ():
            inside = range(start, start + width)
            swaps = sum(g in inside for g in grow[:quota])
            better, worse = ([j for j in side if j in inside][:swaps] for side in (grow, drop))
            for g, d in zip(better, worse, strict=False):
                if score[g] > score[d]:
                    new[g], new[d] = True, False
    return rebuilt


@pytest.mark.parametrize("levels", [None, 4])  # 4: most scores are tied
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_swaps_are_those_of_a_loop_and_conserve_every_groups_count(ratio, levels):
    scores, mask = tiny.random(21, 30).abs(), random_masks(21, 30)
    scores = (scores * levels).round() if levels else scores
    rebuilt = rebuild(scores, mask, ratio)
    assert torch.equal(rebuilt, one_by_one(scores, mask, ratio))
    assert torch.equal(rebuilt.sum(1), mask.sum(1))


@pytest.mark.parametrize("levels", [None, 1, 2, 4, 30])
def test_pairs_that_gain_are_counted_without_a_sort(levels):
    for seed in range(20):
        scores, mask = tiny.random(21, 30, seed=seed).abs(), random_masks(21, 30)
        scores = (scores * levels).round() if levels else scores
        assert torch.equal(gaining(scores, mask), (pairs(scores, mask)[0] > 0).sum(1))


def test_ratio_0_is_identity_and_ratio_1_the_best_mask_of_each_group():
    scores, mask = tiny.random(21, 30).abs(), random_masks(21, 30)
    assert torch.equal(rebuild(scores, mask, 0.0), mask)
    for score, kept, new in zip(scores, mask, rebuild(scores, mask, 1.0), strict=True):
        assert set(new.nonzero().flatten().tolist()) == set(score.topk(int(kept.sum())).indices.tolist())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_granularity_says_which_weights_are_ranked_together(granularity):
    scores = {"a": tiny.random(6, 10).abs(), "b": tiny.random(4, 20, seed=3).abs()}
    masks = {"a": tiny.random(6, 10, seed=4) > 0.5, "b": tiny.random(4, 20, seed=5) > -0.5}
    rebuilt = Barber(ratio=1.0, granularity=granularity).rebuild(scores, masks)
    if granularity == "block":
        scores, masks, rebuilt = ({"all": torch.cat([p[n].flatten() for n in "ab"])} for p in (scores, masks, rebuilt))
    for name in masks:
        parts = [part[name] for part in (scores, masks, rebuilt)]
        parts = [p.T if granularity == "column" else p if granularity == "row" else p.reshape(1, -1) for p in parts]
        for score, kept, new in zip(*parts, strict=True):
            assert set(new.nonzero().flatten().tolist()) == set(score.topk(int(kept.sum())).indices.tolist())


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_n_of_m_is_kept_exactly_and_every_swap_gains(n, m, ratio):
    scores = tiny.random(16, 64).abs()
    mask = n_of_m(tiny.random(16, 64, seed=1).abs(), n, m)
    rebuilt = rebuild(scores, mask, ratio, m)
    assert (rebuilt.reshape(-1, m).sum(1) == n).all()
    assert torch.equal(rebuilt, one_by_one(scores, mask, ratio, m))
    before, after = ((scores * part).reshape(-1, m).sum(1) for part in (mask, rebuilt))
    changed = (rebuilt != mask).reshape(-1, m).any(1)
    assert changed.any() and (after[changed] > before[changed]).all()


def test_the_toy_of_the_notes_swaps_as_many_pairs_as_the_released_code():
    draw = np.random.default_rng(0)
    weight, size = draw.standard_normal((64, 512)), np.exp(0.7 * draw.standard_normal(512))
    scores = np.abs(weight) * np.abs(draw.standard_normal((64, 512))) * size
    scores = torch.from_numpy(scores * np.exp(0.5 * draw.standard_normal((64, 1)))).float()
    half = torch.tensor([0.5], dtype=torch.float64)
    shares = []
    for start in (np.abs(weight) * size, np.abs(weight)):
        mask = Unstructured("row").select(torch.from_numpy(start).float(), half)
        rows, matrix = (scores, mask), (scores.reshape(1, -1), mask.reshape(1, -1))
        for (score, kept), ratio in [(rows, 1.0), (rows, 0.1), (matrix, 1.0), (matrix, 0.1), (rows, 0.5), (rows, 0.01)]:
            shares.append(((rebuild(score, kept, ratio) & ~kept).sum() / (64 * 256)).item())
    wanda, magnitude = [0.220, 0.0203, 0.239, 0.0239, 0.1093, 0.0], [0.288, 0.0270, 0.302, 0.0302, 0.1431, 0.0]
    assert shares == pytest.approx(wanda + magnitude, abs=6e-4)


def toy(forward, weight: torch.Tensor, mask: torch.Tensor, calls: list) -> Unit:
    """A unit of one matrix whose output is forward(call, weight)."""
    stats = Stats("a", lambda: Gathered({}, 1))
    linear = Linear("a", weight, stats, Magnitude(), Unstructured(), given=Pruned(weight * mask, mask))
    return Unit({"a": linear}, lambda: iter(calls), lambda call, weights: forward(call, weights["a"]))


def test_opposite_gradients_of_two_sequences_do_not_cancel():
    weight, mask = torch.tensor([[1.0, 3.0]]), torch.tensor([[True, False]])
    subject = toy(lambda sign, w: w[:, 0] + sign * w[:, 1], weight, mask, [1.0, -1.0])
    # y_dense - y_sparse = 3 sign, so dL/dw = 6 sign (1, sign), and w_0's two gradients are +6 and -6.
    assert squared_gradients(subject, {"a": mask})["a"].tolist() == [[36.0, 36.0]]


def test_where_nothing_was_lost_the_mask_stays():
    weight, mask = tiny.random(1, 8), torch.arange(8)[None] < 4
    subject = toy(lambda call, w: w[:, :4].sum(), weight, mask, [0, 1])
    answer = Barber(ratio=1.0)(subject)["a"]
    assert torch.equal(answer.mask, mask) and answer.notes == {"swapped": 0}


@pytest.mark.parametrize(("score", "kept"), [("WD", 1), ("W", 2), ("D", 0)])
def test_the_score_multiplies_weight_and_gradient_or_takes_one(score, kept):
    weight, mask = torch.tensor([[1.0, 2.0, 3.0, 0.1]]), torch.tensor([[False, False, False, True]])
    slopes = torch.tensor([5.0, 3.0, 1.0, 1.0])  # dL/dw is in proportion to them
    answer = Barber(ratio=1.0, score=score)(toy(lambda call, w: (w * slopes).sum(), weight, mask, [0]))["a"]
    assert answer.mask.nonzero()[:, 1].tolist() == [kept]


@pytest.mark.parametrize(("retain", "expected"), [(False, [0.0, 2.0, 3.0, 0.0]), (True, [0.0, 2.0, 7.0, 0.0])])
def test_weights_that_stay_are_dense_or_those_of_the_given_run_and_regrown_ones_dense(retain, expected):
    weight, mask = torch.tensor([[1.0, 2.0, 3.0, 0.1]]), torch.tensor([[False, False, True, True]])
    subject = toy(lambda call, w: w.sum(), weight, mask, [0])
    subject.linears["a"].given = Pruned(torch.tensor([[0.0, 0.0, 7.0, 0.2]]), mask)
    answer = Barber(ratio=1.0, retain_reconstruction=retain)(subject)["a"]
    torch.testing.assert_close(answer.weight, torch.tensor([expected]))
    assert answer.notes == {"swapped": 1}


def test_the_squared_gradient_is_that_of_plain_autograd():
    subject, data, method = tiny.network(), tiny.tokens(5), tiny.wanda()
    attention, heard = copy.deepcopy(subject.blocks[0].self_attn).requires_grad_(), []
    hook = subject.blocks[0].self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: heard.append(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        for sequence in data:
            subject.model(sequence[None], use_cache=False)
    hook.remove()
    walk = subject.walk(data, batch=1)
    block = next(walk)
    linears = gather(block, block.units("submodule")[0], method, Survey({}))
    for linear in linears.values():
        linear.sparsity = torch.tensor([0.5], dtype=torch.float64)
    masks = {name: linear.select() for name, linear in linears.items()}
    found = squared_gradients(unit(block, linears), masks)

    sparse = copy.deepcopy(attention)
    expected = dict.fromkeys(masks, 0.0)
    for name, mask in masks.items():
        sparse.get_submodule(name.removeprefix("self_attn.")).weight.data *= mask
    for kwargs in heard:
        attention.zero_grad()
        (attention(**kwargs)[0] - sparse(**kwargs)[0].detach()).square().mean().backward()
        for name in masks:
            gradient = attention.get_submodule(name.removeprefix("self_attn.")).weight.grad
            expected[name] = expected[name] + gradient.square() / len(heard)
    assert len(found) == 4
    for name, square in found.items():
        torch.testing.assert_close(square, expected[name], rtol=1e-3, atol=0.0)


def run(subject: Network, start: Method, *updates: Barber) -> list[list[Solved]]:
    """What the method `start` makes of this model, and what each update makes of that."""
    before, found = tiny.Memory(), []
    for update in (None, *updates):
        fresh = Network(copy.deepcopy(subject.model), batch=subject.batch)
        if update is None:
            found.append(list(prune(fresh, tiny.tokens(8), start, done=before)))
        else:
            method = replace(start, update=update)
            found.append(list(prune(fresh, tiny.tokens(8), method, granularity="submodule", given=before)))
    return found


def by_name(solved: list[Solved]) -> dict[str, Pruned]:
    return {name: p for block in solved for name, p in block.linears.items()}


@pytest.mark.parametrize(
    ("family", "granularity"), [("llama", g) for g in GRANULARITIES] + [("opt", "block"), ("mixtral", "block")]
)
def test_a_model_keeps_its_budget_and_its_blocks_lose_less_than_by_magnitude(family, granularity):
    updates = [Barber(ratio=ratio, granularity=granularity) for ratio in (0.0, 0.2)]
    start, same, better = run(tiny.network(family), tiny.magnitude(), *updates)
    masks = [{name: p.mask for name, p in by_name(solved).items()} for solved in (start, same, better)]
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())
    assert sum(int(mask.sum()) for mask in masks[2].values()) == sum(int(mask.sum()) for mask in masks[0].values())
    regrown = sum(int((mask & ~masks[0][name]).sum()) for name, mask in masks[2].items())
    assert 0 < regrown == sum(p.notes.get("swapped", 0) for p in by_name(better).values())
    assert sum(block.error for block in better) < sum(block.error for block in same)


def test_the_batch_size_changes_no_mask():
    found = [by_name(run(tiny.network(batch=batch), tiny.wanda(), Barber(ratio=0.3))[1]) for batch in (1, 3)]
    assert sum(p.notes["swapped"] for p in found[0].values()) > 0
    assert all(torch.equal(p.mask, found[1][name].mask) for name, p in found[0].items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Barber(ratio=1.5), "expected ratio in 0..1"),
        (lambda: Barber(granularity="layer"), "expected granularity row"),
        (lambda: Barber(score="WDD"), "expected score WD"),
        (lambda: Barber(granularity="matrix").check(NM(2, 4)), "n:m needs update.granularity=row"),
    ],
)
def test_what_cannot_be_done_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
