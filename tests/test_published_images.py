"""A published table of images: top-1 is compared over as many images of one size, beside the same dense model."""

from dataclasses import replace

import pytest

from experiments import table as reproduction
from experiments.reproduction import cells, published, verdict
from experiments.reproduction.request import Request, narrow
from tests.pictures import model
from tests.test_published import filled, outcome
from tests.test_table import lines

KEY, MODEL = "acc/imagenet-1k", "vit-b16.augreg_in1k"


@pytest.fixture(scope="module")
def table():
    return narrow(cells.load(reproduction.file_of("maskllm4v", reproduction.TABLES)), Request(models=(MODEL,)))


def found(value, dense=0.7915, key=KEY, images=50000, size="3x224x224", protocol=()):
    """What a run would have found: shares of 1."""
    ours = outcome(value, key=key, protocol={"images": images, **dict(protocol)}, data="drawn")
    results = ours.record.results | {"dense": {key: dense}}
    manifest = ours.record.manifest | {"data": {"name": "drawn", "sha256": "a", "size": size}}
    return replace(ours, record=replace(ours.record, manifest=manifest, results=results))


def test_a_top_1_of_the_same_protocol_is_judged_in_points(table):
    ours = filled(table, dense=replace(found(0.7918, 0.7918), sparsity=0.5), magnitude=found(0.6592), wanda=found(0.64))
    text = published.files(table, ours)[".md"]
    assert lines(text, "Top-1", "dense")[0][3:8] == ["79.18", "79.15", "+0.03", "+0.04", "within noise"]
    assert lines(text, "Top-1", "2:4", "magnitude")[0][3:8] == ["65.92", "65.92", "+0.00", "+0.00", "within noise"]
    assert lines(text, "Top-1", "2:4", "wanda")[0][3:8] == ["64.00", "63.28", "+0.72", "+1.14", "not judged"]
    assert lines(text, "Top-1", "2:4", "maskllm-20epochs-sparsegpt-prior")[0][3:5] == ["", "79.46"]


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (found(0.63), []),
        (found(0.63, dense=0.7926), ["dense is 79.26, published 79.15: another protocol or model"]),
        (found(0.63, images=500), ["images 500 instead of 50000"]),
        (found(0.63, size="3x256x256"), ["size 3x256x256 instead of 3x224x224"]),
        (found(0.63, key=f"{KEY}@500", images=500),
         [f"measured as {KEY}@500 instead of {KEY}", "images 500 instead of 50000"]),
    ],
)  # fmt: skip
def test_another_model_or_other_images_are_not_comparable(table, ours, said):
    assert verdict.reasons(table, MODEL, "Top-1", ours) == said


def test_an_image_classifier_stands_in_on_the_tables_images_or_on_those_that_are_typed(table):
    for typed, expected in (
        ((), ["data=imagenet", "data.split=validation", "data.images=128"]),
        (("data=digits",), []),
    ):
        whole = cells.load(reproduction.file_of("maskllm4v", reproduction.TABLES))
        every = published.cells(narrow(whole, Request(models=("vit_b16",), overrides=typed)))
        for cell in every:
            assert [line for line in cell.overrides if line.startswith("data")] == expected
            assert "model=vit_b16" in cell.overrides and "eval=[top1,audit]" in cell.overrides


def test_the_table_runs_on_a_small_classifier(tmp_path, capfd):
    small = model(tmp_path / "tiny")
    asked = [f"models=[{small}]", "methods=[wanda]", "data=digits", "data.images=8", "eval.top1.images=20"]
    assert reproduction.main(["maskllm4v", *asked, f"outputs={tmp_path}/out", "device=cpu"]) == 0
    out = capfd.readouterr().out
    assert "## tiny, a stand-in" in out
    (row,) = lines(out, "acc/digits@20", "2:4", "wanda")
    assert 0 <= float(row[3]) <= 100 and row[4:] == [""] * 5
