"""AlphaPruning: tails of a known exponent, loops over the released definition, and the sparsities they lead to."""

import math

import pytest
import torch

from prune.allocators.alphapruning import AlphaPruning, TailIndex, spectrum, tail_index
from prune.method import Linear, Method, Unit
from prune.metrics.magnitude import Magnitude
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Stats
from prune.survey import Survey
from prune.updates.zero import Zero
from tests.tiny import network, random


def wanted_by(method, pairs, sizes):
    """What it gives to matrices with these [own, block's mean] tail indices and weights."""
    names = [f"layer{k}" for k in range(len(pairs))]
    values = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in zip(names, pairs, strict=True)}
    look = Survey(dict(zip(names, sizes, strict=True)), {TailIndex(method.window): values})
    linears = {name: Linear(name, random(1, 1), Stats(name, dict), Magnitude(), Unstructured()) for name in names}
    return list(method(Unit(linears), look).values())


def by_loops(values, window):
    """The released fit, value by value: the tail with the smallest Kolmogorov-Smirnov distance."""
    logs = [math.log10(v) for v in values]
    width = (logs[-1] - logs[0]) / 100
    bins = [min(int((x - logs[0]) / width), 99) for x in logs]
    peak = 10 ** (logs[0] + width * max(range(100), key=lambda b: (bins.count(b), -b)))
    lowest = 0.95 * peak if window == "peak" else math.log10(0.95 * peak)
    best = (math.inf, 0.0)
    for k, start in enumerate(values[:-1]):
        if lowest <= start <= 1.5 * peak:
            n = len(values) - k
            alpha = 1 + n / sum(math.log(v / start) for v in values[k:])
            gaps = [abs(1 - (v / start) ** (1 - alpha) - j / n) for j, v in enumerate(values[k:])]
            best = min(best, (max(gaps), alpha))
    return best[1]


@pytest.mark.parametrize("alpha", [1.7, 2.5, 4.0])
@pytest.mark.parametrize("window", ["released", "peak"])
def test_a_power_law_gives_back_its_exponent(alpha, window):
    quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    found = tail_index(3 * (1 - quantiles) ** (-1 / (alpha - 1)), window)
    assert found.item() == pytest.approx(alpha, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", ["released", "peak"])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_fit_is_the_one_that_a_loop_over_all_tails_finds(seed, window, scale):
    weight = scale * random(60, 90, seed=seed) * torch.logspace(0, 1.5, 60)[:, None]
    values = spectrum(weight)
    assert tail_index(values, window).item() == pytest.approx(by_loops(values.tolist(), window), rel=1e-9)


def test_the_spectrum_is_that_of_the_gram_matrix_however_the_weight_lies():
    weight = random(20, 50)
    expected = torch.linalg.eigvalsh(weight.double() @ weight.double().T)
    torch.testing.assert_close(spectrum(weight), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spectrum(weight.T), expected, rtol=1e-4, atol=1e-4)
    assert len(spectrum(weight[:, :1] @ weight[:1])) < 20, "values that are zero up to rounding are left out"


def test_a_heavier_tail_has_a_smaller_index_and_the_peak_window_knows_no_scale():
    light = random(100, 100)
    heavy = light * torch.logspace(0, 2, 100)
    values = spectrum(light), spectrum(heavy)
    assert tail_index(values[1], "peak") < tail_index(values[0], "peak")
    torch.testing.assert_close(tail_index(1e4 * values[0], "peak"), tail_index(values[0], "peak"))


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(6, 8), torch.eye(8), random(1, 8), torch.linalg.qr(random(64, 64))[0]],
    ids=["zero", "identity", "row", "orthogonal"],
)
def test_a_spectrum_without_a_tail_is_marked_and_counted(weight):
    found = tail_index(spectrum(weight), "released")
    assert found.isnan()
    assert TailIndex("released").notes(torch.stack([found, found])) == {"no_tail": 1}


@pytest.mark.parametrize(
    "weight", [random(2, 8), random(40, 2) @ random(2, 40, seed=1), torch.diag(torch.logspace(-18, 18, 60))]
)
@pytest.mark.parametrize("window", ["released", "peak"])
def test_small_deficient_and_very_wide_spectra_have_an_index(weight, window):
    assert 1 < tail_index(spectrum(weight), window) < math.inf


def test_matrices_without_a_tail_do_not_stop_a_run():
    subject = network()
    subject.weights()["model.layers.1.mlp.up_proj"].zero_()
    method = Method(Unstructured("row"), Magnitude(), AlphaPruning(0.6, level="matrix"), Zero())
    assert not method.calibrated
    solved = {name: p for done in prune(subject, None, method) for name, p in done.linears.items()}
    removed = sum(int((~p.mask).sum()) for p in solved.values())
    assert removed == round(0.6 * sum(p.mask.numel() for p in solved.values()))


def test_blocks_get_the_mean_of_their_matrices():
    subject = network()
    parts = list(TailIndex("released").of(subject, None))
    assert [path for path, _ in parts] == [f"model.layers.{k}" for k in range(3)]
    for path, values in parts:
        own = [tail_index(spectrum(subject.weights()[name]), "released") for name in values]
        assert all(name.startswith(path) for name in values)
        for alpha, value in zip(own, values.values(), strict=True):
            torch.testing.assert_close(value, torch.stack([alpha, torch.stack(own).mean()]))


@pytest.mark.parametrize("level", ["block", "matrix"])
def test_ratios_follow_the_formula_and_cost_what_was_asked(level):
    pairs, sizes, spread, sparsity = [[2.0, 3.0], [4.0, 3.0], [5.0, 5.0]], [10_000, 30_000, 20_000], 0.3, 0.5
    index = [pair[level == "block"] for pair in pairs]
    ratio = [1 - spread + 2 * spread * (a - min(index)) / (max(index) - min(index)) for a in index]
    scale = sparsity * sum(sizes) / sum(n * r for n, r in zip(sizes, ratio, strict=True))
    for one, r in zip(wanted_by(AlphaPruning(sparsity, spread, level), pairs, sizes), ratio, strict=True):
        assert one.wanted == pytest.approx(scale * r)
        assert one.sparsity.item() == pytest.approx(scale * r, abs=1e-4), "up to a weight of 10,000"


def test_equal_tails_and_no_tails_at_all_are_pruned_alike():
    for value in (2.5, math.nan):
        found = wanted_by(AlphaPruning(0.7), [[value, value]] * 4, [1000] * 4)
        assert [one.sparsity.item() for one in found] == [0.7] * 4


def test_a_ratio_above_one_is_cut_off_and_the_others_make_up_for_it():
    found = wanted_by(AlphaPruning(0.9, 0.5), [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]], [10_000] * 3)
    assert found[2].wanted > 1 and found[2].sparsity.item() == 1
    assert sum(one.sparsity.item() for one in found) / 3 == pytest.approx(0.9, abs=1e-12)
    assert found[0].sparsity < found[1].sparsity <= 1


def test_a_damaged_matrix_is_named():
    subject = network()
    subject.weights()["model.layers.1.mlp.up_proj"][3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj: NaN or infinite values in its weights"):
        list(TailIndex("released").of(subject, None))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"spread": 1.2}, "expected a spread from 0 to 1, found 1.2"),
        ({"level": "row"}, "expected level block or matrix, found 'row'"),
        ({"window": "all"}, "expected window released or peak, found 'all'"),
    ],
)
def test_settings_without_a_meaning_are_refused(fields, reason):
    with pytest.raises(ValueError, match=f"alphapruning: {reason}"):
        AlphaPruning(0.5, **fields)
