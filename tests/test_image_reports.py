"""Reports and comparisons of image classifiers: accuracy leads, in percent, and nothing is said of text."""

from dataclasses import asdict

import pytest

from experiments import plan
from experiments.console import families
from experiments.evals.top1 import Top1
from experiments.figures import curves, pareto
from experiments.figures.catalogue import FIGURES
from experiments.reporting.findings import Findings
from experiments.reporting.formats import markdown, paper
from experiments.reporting.page import page
from experiments.summary.shared import main_metrics, of_images
from tests.figures import groups, record
from tests.pictures import folder, model

KEYS = {name: f"{name}/pets@50" for name in ("acc", "acc5", "agree", "ce", "kl")}
NUMBERS = {"acc": 0.75, "acc5": 0.875, "agree": 0.9, "ce": 1.5, "kl": 0.1}


@pytest.fixture(autouse=True)
def known():
    """What families are known before and after: none that is declared."""
    before = dict(families.KNOWN)
    for name in before.keys() - families.EVERYWHERE:
        del families.KNOWN[name]
    yield
    families.KNOWN.clear()
    families.KNOWN.update(before)


def classified(method="wanda", worse=0.0, sparsity=0.5):
    """A run that classified images, so much worse in its accuracy."""
    metrics = {KEYS[name]: value for name, value in (NUMBERS | {"acc": 0.75 - worse}).items()}
    errors = {key.replace("/", "_stderr/"): 0.01 for key in metrics}
    declared = {name: asdict(family) for name, family in Top1.families.items()}
    sections = {"metrics": metrics | errors, "dense": {KEYS["acc"]: 0.8, KEYS["ce"]: 1.25}, "families": declared}
    sections |= {"protocol": {"top1-1": {"images": 50, "sha256": "a"}}, "step": dict.fromkeys(metrics, "top1-1")}
    sections |= {"difference_stderr": dict.fromkeys(metrics, 0.02)}
    return record(method, sparsity=sparsity, **sections)


def several():
    return [classified(m, worse, s) for m, worse in (("wanda", 0.0), ("magnitude", 0.25)) for s in (0.3, 0.5, 0.7)]


def test_accuracy_is_the_first_metric_of_an_image_classifier():
    found = Findings(several())
    assert found.metrics == [KEYS[name] for name in ("acc", "ce", "agree", "kl", "acc5")]
    assert main_metrics(found.groups) == {"demo": KEYS["acc"]} and KEYS["acc5"] not in found.table.short


def test_accuracy_is_drawn_in_percent_the_highest_first_and_no_panel_is_of_text():
    found = groups(several())
    drawn = curves.panels(found, images=True)
    assert [panel.metric for panel in drawn.values()] == [KEYS[name] for name in ("acc", "ce", "kl")]
    first = drawn[f"demo, {KEYS['acc']}"]
    assert first.methods == ["wanda", "magnitude"] and first.dense == pytest.approx(80)
    assert first.points[0][1] == pytest.approx((75, 1.96 * 2), rel=1e-3)
    axes = curves.draw_images(found).axes[0]
    assert axes.get_ylabel().replace("\n", " ") == "accuracy, % (higher is better)"
    assert not curves.panels(found) and {f.name for f in FIGURES if not f.suits(found)} == {"sparsity-perplexity"}
    panel = pareto.panels(found)["demo, unstructured 0.5"]
    assert [point.value for point in panel.points] == pytest.approx([50, 75]) and panel.unit == " %"


def test_text_is_drawn_as_ever():
    found = groups([record("wanda"), record("magnitude")])
    assert curves.panels(found) and curves.draw_images(found) is None
    assert {figure.name for figure in FIGURES if not figure.suits(found)} == {"sparsity-accuracy"}


@pytest.mark.parametrize("make", [lambda f: page(f, [], "."), lambda f: markdown(f, []), paper])
def test_a_report_of_images_says_nothing_of_windows_and_perplexity(make):
    said = make(Findings(several()))
    said = said.partition('<script type="text/plain"')[0]
    assert "images" in said and not any(word in said for word in ("perplexity", "windows", "ppl/"))


def test_a_dense_model_alone_is_known_to_have_classified_images():
    (dense, _) = groups([classified()])
    assert dense.dense and of_images([dense], KEYS["acc"])


@pytest.mark.parametrize(("asked", "told"), [("null", "eval=top1 128 images"), ("2000", "")])
def test_a_plan_has_the_whole_model_once_and_speaks_of_images(tmp_path, capsys, asked, told):
    model(tmp_path / "model")
    folder(tmp_path / "set")
    images = ["data=images", f"data.path={tmp_path}/set", "data.images=12", "eval=[top1,audit]", "device=cpu"]
    assert plan.main([f"model={tmp_path}/model", *images, f"outputs={tmp_path}/out", f"eval.top1.images={asked}"]) == 0
    said = capsys.readouterr().out
    (stage,) = (line for line in said.splitlines() if "eval=top1: " in line)
    assert "the whole model" in stage and "logits of all images" in stage and "hidden states" not in stage
    assert told in said and ("assumed" in said) == bool(told)
    assert "over 12 images of 17 tokens" in said and "windows" not in said and "sequences" not in said
