"""Evaluation of image classifiers: each number by its formula, the dense model's anchor, and a whole run."""

import base64
import io
import json
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributions import Categorical, kl_divergence
from transformers import AutoImageProcessor, AutoModelForImageClassification

from experiments import cache, report, verify
from experiments.data.hub_images import HubImages
from experiments.data.images import ImageFiles
from experiments.evals.top1 import Top1, compared, spread
from experiments.models.load import load
from tests.answers import run
from tests.faults import ask
from tests.offline import last, recorded
from tests.pictures import folder, model, picture


def logits(seed: int) -> torch.Tensor:
    return 2 * torch.randn(40, 10, generator=torch.Generator().manual_seed(seed))


def test_each_number_is_that_of_its_formula():
    one, dense, labels = logits(0), logits(1), torch.arange(40) % 10
    found = compared(one, dense, labels)
    assert torch.equal(found["acc"].bool(), one.argmax(1) == labels)
    assert torch.equal(found["acc5"].bool(), (one.topk(5).indices == labels[:, None]).any(1))
    assert torch.equal(found["agree"].bool(), one.argmax(1) == dense.argmax(1))
    torch.testing.assert_close(found["ce"].float(), nn.functional.cross_entropy(one, labels, reduction="none"))
    expected = kl_divergence(Categorical(logits=dense.double()), Categorical(logits=one.double()))
    torch.testing.assert_close(found["kl"], expected)


def test_the_dense_model_is_at_no_distance_from_itself():
    found = compared(logits(0), logits(0), torch.zeros(40, dtype=torch.long))
    assert found["agree"].all() and not found["kl"].any()


def test_some_images_are_evenly_spread_over_all():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, None) == spread(3, 9) == [0, 1, 2]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A tiny classifier and images of its classes."""
    here = tmp_path_factory.mktemp("vision")
    model(here / "model")
    folder(here / "set")
    return here


def words(here, *more):
    """A run on these images."""
    images = [f"data.path={here}/set", "data.images=12"]
    own = [f"model={here}/model", "data=images", *images, "eval=[top1,audit]", f"outputs={here}/out", "device=cpu"]
    return [*own, *more]


def test_the_answers_are_the_models_own(here):
    network = load(str(here / "model"), None, "float32", False, None, 4, "cpu")
    with network.resident():
        found, labels, _ = Top1(ImageFiles(str(here / "set"))).answers(network)
    own = AutoModelForImageClassification.from_pretrained(here / "model")
    processor = AutoImageProcessor.from_pretrained(here / "model", backend="pil")
    files = [here / "set" / f"kind{k}" / "4.png" for k in range(10)]
    inputs = processor(images=[Image.open(file) for file in files], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(found, own(**inputs).logits)
    assert labels.tolist() == list(range(10))


def test_the_hash_of_the_images_is_the_same_for_every_batch(here):
    """Else two runs that saw the same images would not be held against each other."""
    found = []
    for batch in (3, 64):
        network = load(str(here / "model"), None, "float32", False, None, batch, "cpu")
        with network.resident():
            found.append(Top1(ImageFiles(str(here / "set"))).answers(network)[2])
    assert found[0] == found[1]


def test_other_images_are_read_by_the_columns_of_the_data():
    own = ImageFiles("a.parquet", image="picture", label="kind", numbered=True, holdout=0.5)
    assert Top1(own, path="b.parquet").source == replace(own, path="b.parquet", evaluation_path="b.parquet")
    assert Top1(HubImages("owner/set", numbered=True), path="b").source == ImageFiles("b", "b", numbered=True)


def test_a_run_prunes_evaluates_saves_and_vouches(here, capsys):
    found = ask(*words(here, "experiment=wanda", "pattern=2of4", "save_model=true"))
    assert found.code == 0, found.err
    place = run(found.out)
    results, manifest = (json.loads((place / f"{name}.json").read_text()) for name in ("results", "manifest"))
    assert manifest["data"]["images"] == 12 and manifest["data"]["size"] == "3x16x16"
    metrics = results["metrics"]
    assert {"acc/set", "acc_stderr/set", "acc5/set", "ce/set", "agree/set", "kl/set"} <= set(metrics)
    assert metrics["audit/zeros"] == 0.5 and results["dense"]["agree/set"] == 1
    saved = AutoModelForImageClassification.from_pretrained(place / "model")
    weight = dict(saved.named_parameters())["vit.layers.0.mlp.fc1.weight"]
    assert ((weight.view(-1, 4) != 0).sum(1) <= 2).all()
    assert AutoImageProcessor.from_pretrained(place / "model", backend="pil").size["height"] == 16
    assert verify.main([str(place)]) == 0 and "holds: all" in capsys.readouterr().out
    (kept,) = (here / "out" / "cache" / "predictions").glob("*.safetensors")
    assert cache.describe(kept, whole=True).endswith("eval=top1, 10 images")
    again = ask(*words(here, "experiment=wanda", "pattern=2of4", "save_model=true"))
    assert "nothing to compute" in again.out + again.err


def test_the_dense_accuracy_is_told_first_and_must_be_its_cards(here):
    found = ask(*words(here, "experiment=wanda", "eval.top1.anchor=99", "seed=5"))
    said = found.out + found.err
    assert found.code == 1
    assert "expected 99: other images, classes or preprocessing" in said
    assert not list((here / "out").glob("model/*/blocks")), "nothing was pruned"


FAULTS = [
    (["data=stdlib", "eval=[audit]"], "ViTForImageClassification reads images: set data=images"),
    (["eval=[perplexity]", "eval.perplexity.path={here}/t.txt"], "eval=perplexity asks of text, which ViTForIm"),
    (["eval=[zeroshot]", "eval.zeroshot.tasks=[stdlib]"], "eval=zeroshot asks of text.*take eval=.top1,audit."),
    (["eval.top1.images=0"], "eval.top1.images: expected a whole number of at least 1"),
    (["eval.top1.anchor=200"], "eval.top1.anchor: expected a top-1 accuracy in %"),
    (["data.holdout=1"], "data.holdout: expected a share from 0 to below 1"),
    (["data.images=0"], "data.images"),
    (["model=demo"], "eval=top1 asks of images, which LlamaForCausalLM does not read"),
    (["model=demo", "eval=[audit]"], "data=set: LlamaForCausalLM reads text: set data=stdlib"),
    (["data=stdlib"], "eval=top1 classifies images, and data=stdlib is text; set data=images"),
]


@pytest.mark.parametrize(("changes", "line"), FAULTS)
def test_what_cannot_go_together_is_refused_before_the_model_is_read(here, changes, line):
    (here / "t.txt").write_text("a text. " * 99)
    names = {change.partition("=")[0] for change in changes}
    own = [word for word in words(here, "experiment=wanda") if word.partition("=")[0] not in names]
    if any(change.startswith("data=") for change in changes):
        own = [w for w in own if not w.startswith("data.")]
    found = ask(*own, *(change.format(here=here) for change in changes))
    assert found.code == 2 and "Traceback" not in found.err
    assert re.search(line, found.err.replace("\n", " ")), found.err


def test_wandb_has_every_number_of_an_image_run_read_back(here, tmp_path):
    home = {"tracker.wandb.mode": "offline", "tracker": "[jsonl,wandb]"}
    found = ask(*words(here, "experiment=magnitude", *(f"{name}={value}" for name, value in home.items())))
    assert found.code == 0, found.err
    results = json.loads((run(found.out) / "results.json").read_text())
    summary = last(recorded(run(found.out), tmp_path))
    named = {"acc/set", "acc5/set", "ce/set", "agree/set", "kl/set", "acc_stderr/set"}
    assert named <= set(results["metrics"])
    assert {name: summary[name] for name in results["metrics"]} == pytest.approx(results["metrics"])
    assert summary["dense/acc/set"] == pytest.approx(results["dense"]["acc/set"])
    assert summary["difference/acc/set"] == pytest.approx(results["metrics"]["acc/set"] - results["dense"]["acc/set"])


def test_a_report_shows_images_and_what_each_model_took_them_for(here, capsys):
    own = [word for word in words(here, "experiment=magnitude", "sparsity=0.9") if not word.startswith("outputs=")]
    found = ask(*own, f"outputs={here}/shown")
    assert found.code == 0, found.err
    (step,) = (run(found.out) / "steps").glob("top1-*.json")
    told = json.loads(step.read_text())["details"]
    assert [one["number"] for one in told["examples"]] == list(range(10)), "all of them, as they are few"
    assert [one["label"] for one in told["examples"]] == [f"kind{k}" for k in range(10)]
    assert [one["model"] for one in told["examples"]] == [f"kind{k}" for k in told["predicted"]["model"]]
    image = Image.open(io.BytesIO(base64.b64decode(told["examples"][3]["png"])))
    assert image.tobytes() == picture(304).tobytes()
    assert report.main([str(here / "shown")]) == 0
    page = (here / "shown" / "report.html").read_text().partition('id="examples"')[2].partition("</section>")[0]
    assert page.count("data:image/png;base64,") == 10
    wrong = sum(one[who] != one["label"] for one in told["examples"] for who in ("dense", "model"))
    assert page.count('class="wrong"') == wrong > 0
