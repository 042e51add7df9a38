"""Pictures show what the runs' JSON says: the numbers behind them."""

import math
import random
from statistics import fmean, stdev

import pytest
from scipy.stats import t

from experiments.figures import canvas, curves, depth, histograms, pareto, seeds, stages, values
from experiments.runs.record import joined_histograms, sparsities
from tests.figures import LONG, PPL, groups, record, spread_over_bins, with_histograms


def test_runs_that_differ_in_their_seed_alone_are_one_series():
    runs = [record(value=20.0 + seed, seed=seed) for seed in range(3)]
    runs += [record(value=30.0, sparsity=0.7), record("sparsegpt"), record(pattern="2of4"), record(model="other")]
    found = groups(runs)
    assert sorted((one.model, one.method, one.budget, len(one.rows)) for one in values.pruned(found)) == [
        ("demo", "sparsegpt", "unstructured 0.5", 1),
        ("demo", "wanda", "2of4 0.5", 1),
        ("demo", "wanda", "unstructured 0.5", 3),
        ("demo", "wanda", "unstructured 0.7", 1),
        ("other", "wanda", "unstructured 0.5", 1),
    ]
    assert [values.dense(found, model, PPL) for model in ("demo", "other", "none")] == [10.0, 10.0, None]


def test_a_bar_is_the_interval_of_the_difference_to_dense_and_one_rule_holds_for_all_panels():
    draws, windows = [20.0, 21.0, 24.0], 1.96 * 0.25
    several = [record(value=value, seed=seed) for seed, value in enumerate(draws)]
    _, group = groups(several)
    over_seeds = t.ppf(0.975, 2) * stdev(draws) / math.sqrt(3)
    assert values.spread(group, PPL, seeds=True) == pytest.approx(
        (fmean(draws), math.hypot(windows, over_seeds)), rel=1e-4
    )
    bars = lambda runs: {bar for panel in curves.panels(groups(runs)).values() for _, (_, bar) in panel.points}
    again = [record("ria", value, seed) for seed, value in enumerate(draws)]
    assert bars([*several, *again]) == {values.spread(group, PPL, seeds=True)[1]}
    assert bars([*several, record("lone")]) == {windows}, "never windows here and seeds there"
    untold = [record(method, difference_stderr={}) for method in ("wanda", "ria")]
    assert bars(untold) == {None}, "the error of the value alone is no bar of a difference"


def test_settings_and_given_masks_set_series_apart():
    given = lambda method: {"given": {"names": {"method": method}}}
    settings = [{"metric": {"alpha": 1}}, {"metric": {"alpha": 2}}]
    found = values.pruned(groups([record(seed=seed, settings=each) for each in settings for seed in (0, 1)]))
    assert sorted((one.method, len(one.rows)) for one in found) == [
        ("wanda (metric.alpha=1)", 2),
        ("wanda (metric.alpha=2)", 2),
    ]
    found = values.pruned(groups([record("admm", settings=given(method)) for method in ("wanda", "magnitude")]))
    assert sorted(one.method for one in found) == ["admm (masks of magnitude)", "admm (masks of wanda)"]
    found = values.pruned(groups([record("admm", seed=seed, settings=given("wanda")) for seed in (0, 1)]))
    assert [one.method for one in found] == ["admm"], "all have their masks from one method"


def test_no_point_of_the_front_is_beaten_and_every_other_one_is():
    draw = random.Random(0)
    points = [pareto.Point(str(k), draw.choice([1, 2, 3, 4]), draw.choice([5, 6, 7, 8, 9])) for k in range(30)]
    for metric, sign in (("ppl/text", 1), ("acc/mean", -1)):
        front = pareto.Panel(metric, None, points).front
        beats = lambda a, b, s=sign: (
            a.cost <= b.cost and s * a.value <= s * b.value and (a.cost, a.value) != (b.cost, b.value)
        )
        best = {(b.cost, b.value) for b in points if not any(beats(a, b) for a in points)}
        assert {(point.cost, point.value) for point in front} == best
        assert [point.cost for point in front] == sorted({cost for cost, _ in best})


def test_quality_is_set_against_the_mean_time_of_pruning():
    runs = [record("wanda", 20.0 + s, s, seconds={"prune": 1.0 + s, "load": 9.0}) for s in (0, 1)]
    (panel,) = pareto.panels(groups([*runs, record("sparsegpt", 15.0, seconds={"prune": 4.0})])).values()
    assert sorted(panel.points, key=lambda p: p.cost) == [
        pareto.Point("wanda", 1.5, 20.5),
        pareto.Point("sparsegpt", 4.0, 15.0),
    ]
    assert not pareto.panels(groups(runs)), "one method alone is not compared with anything"


def test_three_sparsities_make_a_curve_and_diverged_runs_are_named():
    runs = [record("wanda", 20.0 + 10 * s, sparsity=s) for s in (0.3, 0.5, 0.7)] + [record("nan", math.nan)]
    (panel,) = curves.panels(groups(runs)).values()
    assert (panel.swept, panel.dense, panel.lost) == (True, 10.0, ["nan unstructured 0.5"])
    assert not curves.panels(groups(runs[:1])), "one mark says no more than the table"
    (panel,) = curves.panels(groups(runs[:2])).values()
    assert not panel.swept
    assert panel.span == (10.0, 25.0 + 1.96 * 0.25), "from the dense value to the end of the highest bar"


def test_what_lies_far_beyond_the_others_does_not_stretch_the_axis():
    runs = [record(f"method{k}", 20.0 + k) for k in range(5)] + [record("random", 1e6)]
    (panel,) = curves.panels(groups(runs)).values()
    assert (panel.limit, panel.span[1]) == (24.0, 24.0 + 1.96 * 0.25)
    assert panel.methods[-1] == "random"
    assert values.limit([65.0, 66.0, 68.0, 70.0, 165.0], 62.0) == 70.0, "far from the dense value, not from zero"
    assert values.limit([62.0, 62.1, 62.2, 62.4, 63.9], 62.0) == 63.9, "what is close to the others is not far"


def test_only_uneven_allocations_are_shown_as_means_over_seeds():
    uneven = [record("owl", seed=seed) for seed in (0, 1)]
    for seed, run in enumerate(uneven):
        run.results["layers"][0]["sparsity"] = 0.6 + 0.1 * seed
    ((title, panel),) = depth.allocations(groups([record("wanda"), *uneven])).items()
    assert title == "owl, demo\nunstructured 0.5\n0.50 to 0.65, 2 seeds"
    assert panel.matrices["attn.q"] == pytest.approx({"h.0": 0.65, "h.1": 0.5})
    assert panel.span == pytest.approx((0.5, 0.65)) and panel.reach == pytest.approx(0.15)
    rounding = record()  # a row of 40 weights takes 0.5 or 0.525, and no more than one of 80 need be between
    for layer in rounding.results["layers"]:
        layer["sparsity"] = {40: 0.525, 80: 0.5125}[layer["shape"][1]]
    assert not depth.allocations(groups([rounding]))


def test_experts_share_a_line_of_the_heat_map_weighted_by_size():
    expert = lambda name, shape, sparsity: {"name": name, "block": "h.7", "shape": shape, "sparsity": sparsity}
    found = sparsities([expert("h.7.mlp.experts.0.w1", [2, 4], 0.25), expert("h.7.mlp.experts.1.w1", [4, 6], 0.75)])
    assert found == {"mlp.experts.*.w1": {"h.7": (8 * 0.25 + 24 * 0.75) / 32}}


def test_errors_of_different_streams_are_not_in_one_panel():
    blocks = lambda *errors: [{"block": f"h.{k}", "error": error} for k, error in enumerate(errors)]
    own = record("own", settings={"propagate": "dense"})
    runs = [record("wanda"), record("wanda", seed=1), record("low"), own]
    for run, errors in zip(runs, [(0.1, 0.2), (0.3, None), (0.01, 0.02), (0.5, math.inf)], strict=True):
        run.results["blocks"] = blocks(*errors)
    (title, first), (_, second) = depth.errors(groups(runs)).items()
    assert first == {"low": {"h.0": 0.01, "h.1": 0.02}, "wanda": {"h.0": pytest.approx(0.2), "h.1": 0.2}}
    assert list(first) == ["low", "wanda"] and title.endswith("calibrated on the pruned stream")
    assert second == {"own": {"h.0": 0.5}}


def test_a_histogram_counts_each_matrix_with_its_size():
    small, large = [0] * 60, [0] * 60
    small[10], large[20] = 8, 100  # of the large matrix a sample was counted
    layer = lambda shape, removed, kept: {"shape": shape, "histograms": {"weight": {"removed": removed, "kept": kept}}}
    layers = [layer([2, 4], small, [0] * 60), layer([8, 3], [0] * 60, large)]
    found = joined_histograms(layers)["weight"]
    assert (found.removed[10], found.kept[20], sum(found.removed) + sum(found.kept)) == (0.25, 0.75, 1.0)
    assert "score" not in joined_histograms([layer([2, 4], small, large)])


def test_the_cut_removes_as_many_weights_and_what_lies_above_it_is_told():
    draw = random.Random(1)
    values = [abs(draw.gauss(0, 1)) for _ in range(20000)]
    threshold, rms = sorted(values)[8000], math.sqrt(fmean(value**2 for value in values))
    by_size = [value < threshold for value in values]
    by_chance = [draw.random() < 0.4 for _ in values]
    sized, chance = (
        joined_histograms([{"shape": [1, 1], "histograms": {"weight": spread_over_bins(values, removed)}}])["weight"]
        for removed in (by_size, by_chance)
    )
    assert sized.cut == pytest.approx(threshold / rms, rel=0.05)
    assert sized.misplaced == pytest.approx(0, abs=1e-9)
    above = sum(value > chance.cut * rms for value, gone in zip(values, by_chance, strict=True) if gone)
    assert chance.misplaced == pytest.approx(above / sum(by_chance), abs=0.02)
    assert 0.5 < chance.misplaced < 0.7


def test_one_method_alone_has_its_kinds_of_matrices_and_several_have_a_row_each(tmp_path):
    runs = [with_histograms(record("wanda"), tmp_path), with_histograms(record("owl"), tmp_path, score=False)]
    (alone,) = values.pruned(groups(runs[:1]))
    titles = ["wanda, demo, unstructured 0.5: 4 matrices", "attn.q: 2 matrices", "mlp.up: 2 matrices"]
    assert list(histograms.rows([alone])) == titles
    both = histograms.rows(values.pruned(groups([*runs, record("old")])))
    assert [(title.split(",")[0], list(row)) for title, row in both.items()] == [
        ("owl", ["weight"]),
        ("wanda", ["weight", "score"]),
    ]


def test_calibration_seeds_alone_are_a_spread_too():
    draws = [record(value=20.0 + k, settings={"data": {"name": "text", "seed": k}}) for k in range(3)]
    (panel,) = seeds.panels(groups(draws)).values()  # as ablate=seed makes them
    assert sorted(panel["wanda"]) == [20.0, 21.0, 22.0]


def test_the_spread_over_seeds_needs_two_different_seeds():
    again = record(value=25.0, settings={"outputs": "elsewhere"})
    assert not seeds.panels(groups([record(value=20.0), again])), "two runs of one seed say nothing of seeds"
    draws = [20.0, 22.0, 21.0]
    runs = [record(value=value, seed=seed) for seed, value in enumerate(draws)]
    unmoved = [record("magnitude", seed=seed) for seed in range(3)]
    (panel,) = seeds.panels(groups([*runs, *unmoved, record("lone")])).values()
    assert panel == {"wanda": draws}, "what no seed changes has no spread, not one of 0"


def test_times_and_peaks_are_means_of_each_stage():
    peaks = lambda host, device: {"host_peak": host, "device_peak": device}
    runs = [
        record(
            seed=s,
            seconds={"load": 9.0 + s, "prune": 2.0 + s, "ppl": 1.0},
            stage_memory={"prune": peaks(100 * (s + 1), 7)},
        )
        for s in (0, 1)
    ]
    untold = [record("untold", seconds={"prune": 0.5, "ppl": 1.0}), record("least", seconds={"prune at least": 0.1})]
    ((untold, line),) = stages.panels(groups([*runs, *untold])).values()
    assert (line.runs, line.seconds) == (2, {"prune": 2.5, "ppl": 1.0})
    assert line.peaks == {"host_added": {}, "host_peak": {"prune": 150.0}, "device_peak": {"prune": 7.0}}
    assert not any(untold.peaks.values())


def test_no_bar_has_what_one_run_did_for_all_others_or_what_only_some_measured():
    first = {"load": 2.0, "dense ppl": 60.0, "prune": 0.1, "ppl": 1.0, "zeroshot": 99.0}
    runs = [record("magnitude", seconds=first), record("magnitude", seed=1, seconds={"prune": 0.3, "ppl": 1.0})]
    runs += [
        record("wanda", seconds={"data": 5.0, "prune": 3.0, "ppl": 1.0}),
        record("gblm", seconds={"prune at least": 1}),
    ]
    ((fast, slow),) = stages.panels(groups(runs)).values()
    assert (fast.method, fast.seconds) == ("magnitude", {"prune": 0.2, "ppl": 1.0})
    assert (slow.method, slow.seconds) == ("wanda", {"prune": 3.0, "ppl": 1.0})
    said = " ".join(text.get_text() for text in stages.draw(groups(runs)).texts)
    assert all(name in said for name in ("dense ppl", "zeroshot", "load", "data", "gblm"))


def test_what_is_left_out_is_counted_and_named():
    assert canvas.left_out({"a": ["wanda"], "b": []}, 2) == []
    methods = [f"m{k}" for k in range(canvas.METHODS + 1)]
    assert canvas.left_out(dict.fromkeys("abcdefghij", methods), 2) == [
        "not shown, for want of room: 8 panels (c, d, e, f, g, h and 2 more)",
        "not shown, for want of room: 1 methods of a (m24)",
        "not shown, for want of room: 1 methods of b (m24)",
    ]
    assert canvas.short(LONG, 11) == "a_met…nd_on" and canvas.short("wanda", 11) == "wanda"
