"""Grids and the sweep onto them: closed forms, identities, and the numbers of ../shared/papers/quantisation.md."""

import pytest
import torch

from prune.grid import between
from prune.method import Pruned
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.quantizers.minmax import MinMax
from prune.quantizers.mse import MSE
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.toys import error, solved, toy, toy_a, toy_b

ROW = {"group": None, "source": "dense"}


def test_the_grid_of_four_weights():
    values = torch.tensor([[-0.7, 0.2, 0.0, 1.3]], dtype=torch.float64)
    grid = MinMax(group=None).fit(values, torch.float64)
    assert grid.scale.item() == pytest.approx(2 / 15)
    assert grid.zero.item() == 5
    assert grid.codes(values).tolist() == [[0, 7, 5, 15]]


def test_row_grids_of_toy_a():
    weight, _ = toy_a()
    grid = MinMax(group=None).fit(weight, torch.float64)
    assert grid.scale.flatten().tolist() == pytest.approx([0.254088, 0.233962, 0.212579, 0.222642], abs=5e-7)
    assert grid.zero.flatten().tolist() == [8, 7, 6, 7]


@pytest.mark.parametrize(
    ("expected", "update", "sparsity", "pattern", "quantizer"),
    [
        (0.00364163, Zero(), 0.0, Unstructured("matrix"), MinMax(sweep=False, **ROW)),  # round to nearest
        (0.00247472, SparseGPT(), 0.0, Unstructured("matrix"), MinMax(**ROW)),  # GPTQ
        (0.00247472, Zero(), 0.0, Unstructured("matrix"), MinMax(**ROW)),  # the sweep behind an update that has none
        (0.08319592, SparseGPT(), 0.5, Unstructured("matrix"), None),
        (0.11293568, SparseGPT(), 0.5, Unstructured("matrix"), MinMax(**ROW)),
        (0.10341218, SparseGPT(), 0.5, NM(2, 4), MinMax(**ROW)),
        (0.08471106, SparseGPT(), 0.5, Unstructured("matrix"), MinMax(group=None, source="pruned", sweep=False)),
    ],
)
def test_errors_of_toy_a(expected, update, sparsity, pattern, quantizer):
    weight, x = toy_a()
    found = solved(update, toy(weight, x, pattern=pattern, sparsity=sparsity, quantizer=quantizer))
    assert error(x, weight, found.weight) == pytest.approx(expected, abs=5e-9)


def test_codes_of_the_joint_sweep_of_toy_a():
    weight, x = toy_a()
    found = solved(SparseGPT(), toy(weight, x, quantizer=MinMax(**ROW)))
    assert found.grid.codes(found.weight).tolist() == [
        [0, 8, 15, 8, 15, 8, 15, 8],
        [2, 11, 7, 13, 7, 13, 7, 0],
        [6, 15, 6, 6, 14, 6, 0, 12],
        [7, 2, 15, 7, 7, 7, 15, 7],
    ]


TOY_B = [
    # name, at 4 and 3 bits, update, metric, pattern, sparsity, quantizer
    ("rtn", (0.0233, 0.1054), Zero(), None, None, 0.0, {"sweep": False}),
    ("gptq", (0.0127, 0.0578), SparseGPT(), None, None, 0.0, {}),
    ("gptq act-order", (0.0060, 0.0281), SparseGPT(), None, None, 0.0, {"act_order": True}),
    ("gptq mse", (0.0112, 0.0399), SparseGPT(), None, None, 0.0, {"kind": MSE}),
    ("gptq g32", (0.0048, 0.0221), SparseGPT(), None, None, 0.0, {"group": 32}),
    ("wanda, rtn", (0.0304, 0.1084), Zero(), Wanda(), "row", 0.5, {"sweep": False}),
    ("wanda's mask, joint", (0.0243, 0.0843), SparseGPT(), Wanda(), "row", 0.5, {}),
    ("rtn, wanda", (0.0311, 0.1064), Zero(), Wanda(), "row", 0.5, {"order": "before", "sweep": False}),
    ("joint", (0.0208, 0.0719), SparseGPT(), None, None, 0.5, {}),
    ("sparsegpt, sweep", (0.0230, 0.0818), SparseGPT(), None, None, 0.5, {"order": "after", "source": "pruned"}),
    ("sparsegpt, rtn", (0.0271, 0.1051), SparseGPT(), None, None, 0.5, {"sweep": False, "source": "pruned"}),
    ("joint g32", (0.0125, 0.0316), SparseGPT(), None, None, 0.5, {"group": 32}),
    ("joint mse", (0.0193, 0.0516), SparseGPT(), None, None, 0.5, {"kind": MSE}),
    ("joint sym", (0.0261, 0.0955), SparseGPT(), None, None, 0.5, {"symmetric": True}),
    ("joint 2:4", (0.0316, 0.0779), SparseGPT(), None, NM(2, 4), 0.5, {}),
]


@pytest.mark.parametrize(("name", "expected", "update", "metric", "pattern", "sparsity", "settings"), TOY_B)
def test_errors_of_toy_b(name, expected, update, metric, pattern, sparsity, settings):
    kind = settings.get("kind", MinMax)
    settings = ROW | {key: value for key, value in settings.items() if key not in ("kind", "masked")}
    pattern = Unstructured(pattern) if isinstance(pattern, str) else pattern
    for bits, value in zip((4, 3), expected, strict=True):
        errors = []
        for seed in range(3):
            weight, x = toy_b(seed)
            given = Zero().linear(toy(weight, x, metric, pattern, sparsity)) if name == "wanda's mask, joint" else None
            quantizer = kind(bits=bits, **settings)
            linear = quantizer.before(toy(weight, x, metric, pattern, sparsity, quantizer, given))
            errors.append(error(x, weight, solved(update, linear).weight))
        assert sum(errors) / 3 == pytest.approx(value, rel=0.01, abs=5e-5)


@pytest.mark.parametrize("pattern", [Unstructured("matrix"), NM(2, 4)])
def test_a_joint_sweep_with_a_given_mask_is_the_masked_sweep_of_what_pruning_alone_makes(pattern):
    weight, x = toy_a()
    quantizer = MinMax(**ROW)
    mask = SparseGPT().linear(toy(weight, x, pattern=pattern)).mask
    given = Pruned(weight * mask, mask)
    alone = SparseGPT().linear(toy(weight, x, pattern=pattern, given=given))
    joint = SparseGPT().linear(toy(weight, x, pattern=pattern, quantizer=quantizer, given=given))
    after = quantizer.after(toy(weight, x, quantizer=quantizer), alone)
    torch.testing.assert_close(joint.weight, after.weight, rtol=0, atol=1e-12)
    assert torch.equal(joint.mask, mask)


@pytest.mark.parametrize("block", [1, 5, 16, 128])
def test_with_a_given_mask_the_answer_does_not_depend_on_where_blocks_end(block):
    weight, x = toy_b(0)
    given = Zero().linear(toy(weight, x, Wanda(), Unstructured("row")))
    answers = [
        SparseGPT(block_size=size).linear(toy(weight, x, quantizer=MinMax(group=32), given=given)).weight
        for size in (block, 256)
    ]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("quantizer", [MinMax, MSE])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_lie_on_few_values_and_pruned_ones_are_the_code_of_zero(quantizer, symmetric, stored):
    weight, x = (part.float() for part in toy_b(1))
    linear = toy(weight, x, quantizer=quantizer(bits=3, group=64, symmetric=symmetric))
    linear.stored = stored
    found = solved(SparseGPT(), linear)
    kept = found.weight.to(stored)  # as the model has it
    grid = found.grid
    codes = grid.codes(kept.float())
    assert torch.equal(grid.scale.to(stored).float(), grid.scale)
    assert codes.min() >= 0
    assert codes.max() <= 7
    assert torch.equal(codes[~found.mask], grid.zero[:, grid.groups(256)][~found.mask])
    assert torch.equal(grid.nearest(kept.float()).to(stored), kept)
    assert not (found.weight.signbit() & (found.weight == 0)).any()
    for row in kept.unflatten(1, (-1, 64)).flatten(0, 1)[:50]:
        assert len(row.unique()) <= 8


def test_a_group_of_one_sign_keeps_its_largest_weight_on_a_symmetric_grid():
    values = torch.tensor([[0.1, 0.4, 1.0, 0.7]])
    assert MinMax(group=None, symmetric=True, sweep=False).fit(values, torch.float32).nearest(values)[0, 2] > 0.93


def test_a_grid_of_zeros_and_of_the_smallest_weights_is_finite():
    values = torch.tensor([[0.0, 0.0], [1e-8, -1e-8]])
    grid = MinMax(group=None).fit(values, torch.float16)
    assert torch.equal(grid.nearest(values), torch.zeros(2, 2))


def test_a_swept_grid_has_no_room_for_features_without_input():
    weight, x = toy_a()
    weight[:, 3], x[:, 3] = 100.0, 0.0
    found = solved(SparseGPT(), toy(weight, x, sparsity=0.0, quantizer=MinMax(**ROW)))
    assert found.grid.scale.max() < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 9}, "whole number from 2 to 8, found 9"),
        ({"group": 0}, "expected a whole number of columns"),
        ({"source": "pruned", "order": "before"}, "nothing is pruned yet"),
        ({"order": "both"}, "expected one of joint, after, before"),
        ({"act_order": True, "sweep": False}, "order of a sweep"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MinMax(**settings)


def test_what_does_not_fit_the_pattern_the_update_or_the_model_is_refused():
    with pytest.raises(ValueError, match="groups of neighbours"):
        MinMax(act_order=True).check(NM(2, 4), SparseGPT(), {})
    with pytest.raises(ValueError, match="SparseGPT leaves the grid"):
        MinMax(order="before").check(Unstructured(), SparseGPT(), {})
    with pytest.raises(ValueError, match="128 does not divide the 200 columns of a"):
        MinMax(group=128).check(Unstructured(), SparseGPT(), {"a": (4, 200)})


def test_the_scale_that_is_searched_is_the_best_of_all_factors():
    weight = toy_b(2)[0][:8]
    quantizer = MSE(bits=3, group=None)
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    grids = [between(low * p, high * p, 3, False, torch.float64) for p in (1 - k / 100 for k in range(80))]
    errors = torch.stack([(grid.nearest(weight) - weight).abs().pow(2.4).sum(1) for grid in grids])
    best = [grids[k].scale[row] for row, k in enumerate(errors.argmin(0).tolist())]
    assert torch.equal(quantizer.fit(weight, torch.float64).scale, torch.stack(best))
