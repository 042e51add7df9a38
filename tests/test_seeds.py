"""Runs that differ in their seed alone are one row, and only what is beyond the noise is bold."""

import json
import math
from statistics import fmean, stdev

import pytest
from scipy.stats import norm, t

from experiments.reporting.findings import Findings, contests
from experiments.runs.record import read
from experiments.summary.rows import arrange
from experiments.summary.seeds import alone, grouped, half_width, quantile
from tests.runs import BOOLQ, DENSE, PPL, losses, metrics, put

T4 = 2.7764  # 97.5 % quantile of Student's t with 4 degrees of freedom


def seeded(top, method, values, follow=True, **manifest):
    """A run for each seed; data.seed follows it, or stays 0."""
    for seed, value in enumerate(values):
        config = {"model": {"path": "demo"}, "seed": seed, "data": {"seed": seed if follow else 0}}
        put(top, method, metrics=metrics(value), identity=f"{method}{seed}", config=config, **manifest)


def groups(top):
    return grouped(arrange(read([top])))


def test_runs_of_several_seeds_are_a_mean_with_the_interval_over_windows_and_seeds(tmp_path):
    values = [24.0, 25.0, 23.5, 24.5, 26.0]
    seeded(tmp_path, "wanda", values)
    dense, wanda = groups(tmp_path)
    mean = wanda.means[PPL]
    over_seeds = T4 * stdev(values) / math.sqrt(5)
    assert (wanda.method, len(wanda.rows), mean.count) == ("wanda", 5, 5)
    assert mean.value == pytest.approx(fmean(values))
    assert mean.half == pytest.approx(math.hypot(1.96 * 0.5, over_seeds), rel=1e-4)
    assert mean.difference == pytest.approx(fmean(values) - DENSE[PPL])
    assert mean.difference_half == pytest.approx(math.hypot(1.96 * math.hypot(0.5, 0.25), over_seeds), rel=1e-4)
    assert [one.method for one in alone(wanda)] == [f"seed {seed}" for seed in range(5)]
    assert dense.means[PPL].half == pytest.approx(1.96 * 0.25)


def test_the_error_over_the_same_windows_does_not_shrink_with_the_number_of_seeds():
    assert half_width([1.0] * 100, [0.5] * 100) == pytest.approx(1.96 * 0.5)
    assert half_width([1.0], [None]) is None
    assert half_width([1.0, math.inf], [0.5, 0.5]) is None
    assert half_width([1.0, 2.0], [None, None]) == pytest.approx(12.7062 * stdev([1, 2]) / math.sqrt(2), rel=1e-4)


def test_what_differs_in_more_than_the_seed_is_not_taken_together(tmp_path):
    for seed, scope in enumerate(("row", "matrix")):
        config = {"model": {"path": "demo"}, "seed": seed, "granularity": scope}
        put(tmp_path, "wanda", metrics=metrics(24.0), identity=scope, config=config)
    labels = {group.method for group in groups(tmp_path)}
    assert labels == {"dense", "wanda (granularity=row)", "wanda (granularity=matrix)"}


def test_the_same_seed_twice_is_no_second_draw(tmp_path):
    for top in ("a", "b"):
        put(tmp_path / top, "wanda", metrics=metrics(24.0), config={"model": {"path": "demo"}, "seed": 0})
    assert [len(group.rows) for group in groups(tmp_path)] == [1, 1, 1]


def test_a_difference_over_the_same_windows_decides_where_the_errors_alone_would_not(tmp_path):
    """The perplexities have standard errors of 0.5, but on every window the one run is better."""
    shared = [2.0, 4.0, 3.0, 3.5]
    for name, better in (("wanda", 0.0), ("sparsegpt", 0.01)):
        windows = [loss - better * (1 + 0.1 * k) for k, loss in enumerate(shared)]
        losses(put(tmp_path, name, metrics=metrics(math.exp(fmean(windows)))), windows)
    (contest,) = contests(groups(tmp_path), [PPL])
    assert contest.best.method == "sparsegpt" and contest.won
    assert contest.verdict.startswith("better than wanda, by 0.2")
    assert Findings(read([tmp_path])).bold == {(tmp_path / "demo" / "sparsegpt-unstructured-0.5-0000000000", PPL)}


@pytest.mark.parametrize("comparisons", [2, 66, 5000])
def test_intervals_of_several_comparisons_hold_at_once(comparisons):
    tail = 0.025 / comparisons
    for degrees in (1, 2, 3, 4, 5, 9, 10, 31):
        assert quantile(degrees, comparisons) == pytest.approx(t.isf(tail, degrees), rel=1e-6)
    assert half_width([1.0], [0.5], comparisons) == pytest.approx(norm.isf(tail) * 0.5)


def test_bold_is_corrected_for_the_comparisons_in_its_column(tmp_path):
    """2.3 standard errors apart: enough for two methods, and not for the best two of a dozen."""
    for name, value in (("wanda", 24.0), ("sparsegpt", 24.0 - 2.3 * math.hypot(0.5, 0.5))):
        put(tmp_path, name, metrics={PPL: value, "ppl_stderr/text@128": 0.5})
    assert {folder.name.split("-")[0] for folder, _ in Findings(read([tmp_path])).bold} == {"sparsegpt"}
    for place in range(10):
        put(tmp_path, f"method{place}", metrics={PPL: 60.0 + place, "ppl_stderr/text@128": 0.5})
    findings = Findings(read([tmp_path]))
    assert not findings.bold and findings.contests[0].verdict == "not told apart from wanda"


def test_what_is_within_the_noise_is_not_bold_and_said_so(tmp_path):
    for name, value in (("wanda", 24.0), ("sparsegpt", 23.9), ("magnitude", 60.0)):
        put(tmp_path, name, metrics=metrics(value))
    (contest,) = contests(groups(tmp_path), [PPL])
    assert not contest.won and contest.verdict == "not told apart from wanda"


def test_without_a_known_error_nothing_is_bold(tmp_path):
    for name, value in (("wanda", 24.0), ("magnitude", 60.0)):
        put(tmp_path, name, metrics={PPL: value})
    found = Findings(read([tmp_path]))
    assert not found.bold
    assert found.contests[-1].verdict == "36.000 ahead of magnitude; no error is known"


def test_higher_accuracy_wins_and_runs_that_diverged_never_do(tmp_path):
    put(tmp_path, "wanda", metrics=metrics(math.nan, **{BOOLQ: 0.9, "acc_stderr/boolq": 0.01}))
    put(tmp_path, "magnitude", metrics=metrics(1e5, **{BOOLQ: 0.5, "acc_stderr/boolq": 0.01}))
    by_metric = {contest.metric: contest for contest in contests(groups(tmp_path), [PPL, BOOLQ])}
    assert by_metric[BOOLQ].best.method == "wanda" and by_metric[BOOLQ].won
    assert by_metric[PPL].best.method == "magnitude" and not by_metric[PPL].rivals


def test_patterns_sparsities_and_models_compete_among_themselves(tmp_path):
    put(tmp_path, "wanda", metrics=metrics(24.0))
    put(tmp_path, "wanda", "2of4", metrics(26.0))
    put(tmp_path, "wanda", metrics=metrics(29.0), sparsity=0.6)
    put(tmp_path, "wanda", metrics=metrics(20.0), model="other")
    assert len(list(contests(groups(tmp_path), [PPL]))) == 4


def test_seeds_are_paired_by_seed(tmp_path):
    """The seeds differ much more from each other than the methods do within each of them."""
    values = [24.0, 34.0, 29.0, 39.0, 27.0]
    seeded(tmp_path, "wanda", values)
    seeded(tmp_path, "ria", [value - 1.0 - 0.01 * k for k, value in enumerate(values)])
    for folder in (tmp_path / "demo").iterdir():
        results = json.loads((folder / "results.json").read_text())
        perplexity = results["metrics"][PPL]
        losses(folder, [math.log(perplexity) + shift for shift in (-0.4, 0.4, 0.1, -0.1)])
    (contest,) = contests(groups(tmp_path), [PPL])
    ((rival, margin, half),) = contest.rivals
    assert (contest.best.method, rival.method) == ("ria", "wanda")
    assert margin == pytest.approx(1.02) and half < 1.0 and contest.won
