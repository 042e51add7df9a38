"""The table of all methods on image classifiers: which runs it is, and what its claims are judged by."""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import pytest

from experiments import table as reproduction
from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.console.families import learn
from experiments.evals.top1 import Top1
from experiments.reproduction import cells, methods
from experiments.reproduction.cells import Cell, Outcome
from experiments.runs.record import Record


@pytest.fixture(scope="module")
def vision(shared):
    return cells.load(reproduction.TABLES / "vision.yaml")


def test_every_method_is_there_with_three_draws_of_the_images(vision):
    every = methods.cells(vision)
    assert len(every) == len(set(every)) == 2 * 3 * (11 * 3 + 5 * 2)
    assert {cell.seed for cell in every} == {0, 1, 2} and {cell.budget for cell in every} == {"50%", "70%", "2:4"}
    for claim in vision["claims"]:
        for method in claim["order"]:
            offered = vision["methods"][method].get("budgets") or vision["usual"]
            assert set(claim.get("budgets") or []) <= set(offered), claim


def test_its_cells_compose(vision):
    """One of every method on digits, one of every budget on CIFAR-10."""
    with composing():
        for cell in methods.cells(vision):
            if cell.seed == 0 and (cell.budget == "50%" if cell.model == "digits" else cell.method == "wanda"):
                config = compose_job(list(cell.overrides)).config
                assert config["data"]["images"] == 256 and set(config["eval"]) == {"top1", "audit"}


def measured(folder: Path, right: int, loss: float) -> Outcome:
    """A run that got so many of 100 images right, with this loss of each."""
    scores = {"acc/set": [1.0] * right + [0.0] * (100 - right), "ce/set": [loss] * 100}
    (folder / "steps").mkdir(parents=True)
    step = {"metrics": {}, "protocol": {}, "details": {"scores": scores}}
    (folder / "steps" / "top1.json").write_text(json.dumps(step))
    metrics = {key: fmean(values) for key, values in scores.items()}
    record = Record(folder, {"config": {}}, {"step": dict.fromkeys(scores, "top1"), "metrics": metrics}, "done")
    return Outcome(code="code", metrics=metrics, record=record)


def test_a_claim_is_judged_by_top_1_and_cross_entropy_over_draws_and_images(vision, tmp_path):
    """No draw moves the difference, but 3 of 100 images are as few as chance would give."""
    learn({"ce": asdict(Top1.families["ce"])})  # as a run's results do
    outcomes = {
        Cell("cifar10", method, "50%", seed, ()): measured(tmp_path / f"{method}{seed}", right, loss + seed)
        for method, right, loss in (("gblm", 53, 1.5), ("wanda", 50, 1.0))
        for seed in (0, 1, 2)
    }
    (claim,) = [claim for claim in vision["claims"] if claim["order"] == ["gblm", "wanda"]]
    half = 1.96 * (100 * 0.03 * 0.97 / 99) ** 0.5 / 10  # of the mean of 100 numbers, of which 3 are 1 and the rest 0
    assert methods.compare(vision, outcomes, claim) == [
        ["gblm > wanda", "cifar10", "50%", "acc", f"+3.00 ± {100 * half:.2f} points", "within noise"],
        ["gblm < wanda", "cifar10", "50%", "ce", "+0.50000 ± 0.00000", "does not hold"],
    ]
    (tmp_path / "gblm1" / "steps" / "top1.json").unlink()
    rows = methods.compare(vision, outcomes, claim)
    assert [row[4:] for row in rows] == [["", "not known"]] * 2, "over how many images is not known any more"
