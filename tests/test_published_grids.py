"""Published numbers of quantised models: what of a grid must agree before a number of ours is set against them."""

import pytest

from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.reproduction import published
from experiments.reproduction.request import Request
from tests import test_published as plain
from tests.test_published import SPEC, filled, outcome

table = plain.table  # the fixture

GRID = {"ends": "minmax", "bits": 4, "group": None, "symmetric": False, "sweep": True, "act_order": False}
GRID |= {"source": "dense", "order": "joint"}


@pytest.mark.parametrize(
    ("said", "typed", "why"),
    [
        ({"grid": GRID}, [], []),
        ({"grid": GRID}, ["quantizer.bits=3"], ["quantizer bits is 3, published with 4"]),
        ({"grid": GRID}, ["quantizer.group=64"], ["quantizer group is 64, published with None"]),
        ({"grid": GRID}, ["quantizer=mse"], ["quantizer ends is mse, published with minmax"]),
        ({"grid": GRID}, ["quantizer.order=after"], ["quantizer order is after, published with joint"]),
        ({"grid": GRID | {"act_order": True}}, [], ["quantizer act_order is False, published with True"]),
        ({"grid": {k: GRID[k] for k in GRID if k != "group"}}, [], ["not stated: quantizer group"]),
        ({}, [], ["ours is quantised, and the published grid is not stated"]),
        ({"reason": "another text"}, ["quantizer=none"], ["another text"]),
        ({}, ["quantizer=none"], []),
    ],
)
def test_a_quantised_cell_compares_only_on_the_published_grid(table, said, typed, why):
    with composing():
        quantizer = compose_job(["model=demo", "experiment=sparsegpt_joint", *typed]).config["quantizer"]
    spec = table(methods=SPEC["methods"] | {"wanda": {"overrides": ["experiment=sparsegpt_joint"]} | said})
    found = outcome(6.9)
    found.record.manifest["config"]["quantizer"] = quantizer
    (row,) = [row for row in published.rows(spec, filled(spec, wanda=found)) if row.ours is not None]
    assert list(row.reasons) == why and (row.verdict == "not comparable") == bool(why)
    assert (row.difference is None) == bool(why)


def test_a_stand_in_may_have_a_group_that_divides_it_and_the_table_says_so(table):
    spec = SPEC["methods"] | {"gptq": {"overrides": ["experiment=gptq", "quantizer.group=128"]}}
    spec["gptq"]["stand_in"] = ["quantizer.group=64"]
    own, other = table(methods=spec), table(Request(models=("demo",)), methods=spec)
    groups = [[c.overrides[-1] for c in published.cells(each) if c.method == "gptq"] for each in (own, other)]
    assert groups == [["quantizer.group=128"], ["quantizer.group=64"]]
    assert "demo has quantizer.group=64 in gptq" in published.files(other, filled(other))[".md"]


def test_a_run_that_quantises_calibrated_weights_and_prunes_none_changes_with_its_seed():
    found = outcome(5.5)
    found.record.manifest["sparsity"] = 0.0
    assert not published.drawn(found), "the dense model"
    found.record.manifest["config"]["quantizer"] = {"_target_": "prune.quantizers.minmax.MinMax", "bits": 4}
    assert published.drawn(found)
    found.record.manifest["data"] = None
    assert not published.drawn(found), "rounding to nearest reads no text"
