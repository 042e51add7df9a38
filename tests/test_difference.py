"""The difference of two runs and its standard error, held against the jackknife."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import stdev

import pytest

from experiments.files.disk import seal
from experiments.runs.difference import SURE, difference, outcome, over_pairs, paired_error, significant
from experiments.runs.record import Record

KEY = "ppl/text@8"


def record(folder: Path, values: list[float], sha256: str = "a1", **metrics: float) -> Record:
    """A run that measured these losses, one for each window, with its sealed file of steps."""
    perplexity = math.exp(sum(values) / len(values))
    kept = {"metrics": {KEY: perplexity}, "protocol": {"sha256": sha256}, "details": {"losses": values}}
    seal(folder / "steps" / "perplexity-1.json", kept)
    results = {"metrics": {KEY: perplexity, "ppl_stderr/text@8": 0.3, **metrics}}
    results |= {"protocol": {"perplexity-1": {"sha256": sha256}}, "step": {KEY: "perplexity-1"}}
    return Record(folder, {}, results, "done")


@pytest.fixture
def drawn() -> tuple[list[float], list[float]]:
    """Losses of 60 windows of which some are far harder than others, and of a model that is a little worse on each."""
    generator = random.Random(0)
    first = [generator.gauss(3.0, 0.5) for _ in range(60)]
    return first, [loss + generator.gauss(0.1, 0.02) for loss in first]


def test_the_error_over_pairs_is_that_of_the_jackknife(tmp_path, drawn):
    found, error = difference(record(tmp_path / "a", drawn[0]), record(tmp_path / "b", drawn[1]), KEY)

    def gap(left_out: int | None = None) -> float:
        means = [sum(x for i, x in enumerate(side) if i != left_out) / (60 - (left_out is not None)) for side in drawn]
        return math.exp(means[1]) - math.exp(means[0])

    without = [gap(place) for place in range(60)]
    middle = sum(without) / 60
    assert found == pytest.approx(gap())
    assert error == pytest.approx(math.sqrt(59 / 60 * sum((each - middle) ** 2 for each in without)), rel=0.02)
    alone = [math.exp(sum(side) / 60) * stdev(side) / 60**0.5 for side in drawn]
    assert error < 0.2 * math.hypot(*alone), "what is hard for both models does not count"
    assert significant(found, error)


def test_the_difference_is_second_minus_first_and_turns_its_sign_with_the_order(tmp_path, drawn):
    first, second = record(tmp_path / "a", drawn[0]), record(tmp_path / "b", drawn[1])
    (forth, error), (back, same) = difference(first, second, KEY), difference(second, first, KEY)
    assert forth == -back > 0 and error == pytest.approx(same)


def test_a_run_does_not_differ_from_itself(tmp_path, drawn):
    run = record(tmp_path, drawn[0])
    assert difference(run, run, KEY) == (0.0, 0.0)
    assert not significant(0.0, 0.0)


def test_without_pairs_the_runs_count_as_independent(tmp_path, drawn):
    first, apart = record(tmp_path / "a", drawn[0]), math.hypot(0.3, 0.3)
    others = {
        "other windows": record(tmp_path / "b", drawn[1], sha256="b2"),
        "fewer windows": record(tmp_path / "c", drawn[1][1:]),
        "a loss that is not finite": record(tmp_path / "d", drawn[1]),
        "no losses": record(tmp_path / "e", drawn[1]),
        "altered losses": record(tmp_path / "f", drawn[1]),
        "a cut file": record(tmp_path / "g", drawn[1]),
    }
    seal(tmp_path / "d" / "steps" / "perplexity-1.json", {"details": {"losses": [*drawn[1][1:], math.nan]}})
    (tmp_path / "e" / "steps" / "perplexity-1.json").unlink()
    altered = tmp_path / "f" / "steps" / "perplexity-1.json"
    altered.write_text(altered.read_text().replace("3", "4", 1))
    (tmp_path / "g" / "steps" / "perplexity-1.json").write_text('{"details": {"lo')
    for why, second in others.items():
        assert over_pairs(first, second, KEY) is None, why
        assert difference(first, second, KEY)[1] == apart, why


def test_losses_of_a_version_that_did_not_seal_count(tmp_path, drawn):
    run = record(tmp_path, drawn[0])
    (tmp_path / "steps" / "perplexity-1.json").write_text(json.dumps({"details": {"losses": drawn[0]}}))
    assert outcome(run, KEY)["details"]["losses"] == drawn[0]


def test_accuracies_have_no_pairs(tmp_path, drawn):
    accuracy = {"acc/boolq": 0.5, "acc_stderr/boolq": 0.03, "acc/rte": 0.6}
    first = record(tmp_path / "a", drawn[0], **accuracy)
    second = record(tmp_path / "b", drawn[1], **accuracy | {"acc/boolq": 0.6, "acc_stderr/boolq": 0.04})
    assert difference(first, second, "acc/boolq") == (pytest.approx(0.1), pytest.approx(0.05))
    assert difference(first, second, "acc/rte") == (0.0, None), "no standard error is known"
    with pytest.raises(KeyError):
        difference(first, second, "acc/piqa")


def test_significant_is_more_than_196_standard_errors():
    assert significant(-1.97, 1.0) and not significant(1.95, 1.0) and not significant(SURE, 1.0)
    assert not significant(9.0, None), "without an error nothing is known"


def test_what_reads_runs_back_does_not_load_torch():
    modules = "experiments.runs.difference, experiments.compare, sys"
    asked = [sys.executable, "-c", f"import {modules}; print('torch' in sys.modules)"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    assert done.stdout.split() == ["False"]


def test_accuracies_are_paired_by_example_and_their_mean_by_task():
    generator = random.Random(1)
    tasks = {"acc/a@first40": 40, "acc/b@first40": 40}
    answers = [
        {key: [float(generator.random() < chance) for _ in range(n)] for key, n in tasks.items()}
        for chance in (0.6, 0.5)
    ]
    first, second = ({"details": {"scores": part}, "protocol": {"mean_over": ["a", "b"]}} for part in answers)
    each = [paired_error(first, second, key) for key in tasks]
    for key, error in zip(tasks, each, strict=True):
        moves = [late - early for early, late in zip(answers[0][key], answers[1][key], strict=True)]
        assert error == pytest.approx(stdev(moves) / len(moves) ** 0.5)
    assert paired_error(first, second, "acc/mean@first40") == pytest.approx(math.hypot(*each) / 2)
    assert paired_error(first, second, "acc/c@first40") is None, "its answers are not kept"
    assert paired_error(first, first, "acc/a@first40") == 0
