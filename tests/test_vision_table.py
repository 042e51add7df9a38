"""The table of all methods on image classifiers: which runs it is, and what its claims are judged by."""

import pytest

from experiments import table as reproduction
from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.reproduction import cells, methods
from experiments.reproduction.cells import Cell, Outcome


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


def test_a_claim_is_judged_by_top_1_in_points_and_by_cross_entropy_in_percent(vision):
    outcomes = {}
    for seed in vision["seeds"]:
        for method, right, loss in (("gblm", 0.6, 1.1), ("wanda", 0.5, 1.0)):
            metrics = {"acc/set": right + seed / 100, "acc_stderr/set": 0.01, "ce/set": loss * (2 + seed)}
            outcomes[Cell("cifar10", method, "50%", seed, ())] = Outcome(code="code", metrics=metrics)
    (claim,) = [claim for claim in vision["claims"] if claim["order"] == ["gblm", "wanda"]]
    assert methods.compare(vision, outcomes, claim) == [
        ["gblm > wanda", "cifar10", "50%", "+10.00 ± 0.00", "holds"],
        ["gblm < wanda", "cifar10", "50%", "+10.00 ± 0.00", "does not hold"],
    ]
