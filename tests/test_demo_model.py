"""The text of this Python installation and the model trained on it: what the demo stands on."""

import hashlib
import math
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
import torch

from experiments.data.stdlib import Stdlib, documents
from experiments.models.load import load
from experiments.models.location import located
from prune.method import ALL, Method, Metric
from prune.prune import prune
from tests import tiny

REPOSITORY = Path(__file__).parent.parent


class Random(Metric):
    """Scores that know nothing."""

    def __call__(self, weight, stats, columns=ALL):
        return torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))[:, columns]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of four readable modules, a broken one and two that do not count."""
    sources = {
        "a.py": '"""Module a."""\nclass A:\n    """Class A."""\n    def f(self):\n        """Said twice."""\n',
        "b.py": 'try:\n    pass\nexcept OSError:\n    async def f():\n        """Said twice."""\n',
        "c/d.py": '# -*- coding: latin-1 -*-\n"""Caf\xe9.\n\n    An indented example.\n    """\nx = "no docstring"\n',
        "e.py": 'def f():\n    """An escape: \\d."""\n',
        "broken.py": 'def (:\n    """Not Python."""\n',
        "site-packages/other.py": '"""Not of the standard library."""\n',
        "c/test/test_d.py": '"""A test."""\n',
    }
    for name, source in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="latin-1")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))


def texts() -> list[str]:
    return [*documents("train"), *documents("heldout")]


def test_a_document_holds_the_docstrings_of_a_module_in_order_and_a_repeated_one_only_once(library):
    found = texts()
    assert "Module a.\n\nClass A.\n\nSaid twice." in found
    assert "Café.\n\nAn indented example." in found
    assert "An escape: \\d." in found
    assert "Said twice." not in found
    assert not [text for text in found if "Not Python" in text or "Not of the" in text or "A test." in text]


def test_an_installation_without_sources_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"found none in .*use a complete Python installation or data=textfile"):
        Stdlib(sequences=1, length=8, seed=0).check()


def test_the_parts_share_no_paragraph_of_the_language_reference_and_no_document():
    train, heldout = documents("train"), documents("heldout")
    assert len(set(train + heldout)) == len(train) + len(heldout)
    paragraphs = {paragraph for text in train for paragraph in text.split("\n\n") if len(paragraph) > 200}
    shared = [p for text in heldout for p in text.split("\n\n") if p in paragraphs]
    assert sum(map(len, shared)) < 0.01 * sum(map(len, heldout))  # docstrings may still quote a paragraph
    assert 0.05 < sum(map(len, heldout)) / sum(map(len, train)) < 0.2


def test_the_windows_are_cut_from_the_two_parts_and_capped_by_the_model():
    tokenizer = load("demo", None, "float32", False, None, 1, "cpu").processor
    data = Stdlib(sequences=3, length=2048, seed=7)
    calibration = data.calibration(tokenizer, 64)
    assert calibration.shape == (3, 64)
    assert torch.equal(calibration, data.calibration(tokenizer, 64))
    assert not torch.equal(calibration, Stdlib(sequences=3, length=2048, seed=8).calibration(tokenizer, 64))
    train = "\n\n".join(documents("train"))
    assert all(tokenizer.decode(window).strip("\ufffd") in train for window in calibration)
    heldout = "\n\n".join(documents("heldout"))
    assert heldout.startswith(tokenizer.decode(data.evaluation(tokenizer, 256).flatten()).rstrip("\ufffd"))


@torch.no_grad()
def test_the_embedded_model_predicts_unseen_text_far_better_than_token_frequencies_do():
    network = load("demo", None, "float32", False, None, 8, "cpu")
    windows = Stdlib(sequences=1, length=2048, seed=0).evaluation(network.processor, network.limit)
    windows = windows[:: max(1, len(windows) // 64)][:64]
    with network.resident():
        logits = torch.cat([network.model(part).logits[:, :-1] for part in windows.split(8)])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()

    counts = Counter(network.processor("\n\n".join(documents("train")), verbose=False)["input_ids"])
    total = counts.total() + len(network.processor)
    unigram = -sum(math.log((counts[token] + 1) / total) for token in windows[:, 1:].flatten().tolist())
    assert math.exp(loss) < 0.5 * math.exp(unigram / windows[:, 1:].numel())


def test_the_embedded_model_is_small_half_precision_and_carries_its_tokenizer():
    folder = located("demo")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    network = load("demo", None, "auto", False, None, 1, "cpu")
    assert {parameter.dtype for parameter in network.model.parameters()} == {torch.float16}
    assert 1e6 <= sum(parameter.numel() for parameter in network.model.parameters()) <= 4e6


def test_the_log_names_the_weights_it_tells_about():
    folder = located("demo")
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert f"sha256 of the weights {weights}" in (folder.parent / "train.log").read_text()


@pytest.mark.slow
def test_the_same_training_command_gives_the_same_files(tmp_path):
    command = [sys.executable, "-m", "experiments.demo.train", "--steps", "3", "--out"]
    runs = [
        subprocess.Popen(
            [*command, tmp_path / order / "model"], cwd=REPOSITORY, env=os.environ | {"PYTHONHASHSEED": order}
        )
        for order in "12"
    ]
    assert [run.wait() for run in runs] == [0, 0]
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / order / "model").iterdir()} for order in "12")
    assert one == two


@pytest.mark.slow  # make demo shows it
def test_methods_differ_on_it_as_they_do_on_large_models():
    """SparseGPT < Wanda < random at 50 %, on held-out text that no method saw."""
    random = Method(tiny.wanda().pattern, Random(), tiny.wanda().allocator, tiny.wanda().update)
    perplexity = {}
    for name, method in {"sparsegpt": tiny.sparsegpt(), "wanda": tiny.wanda(), "random": random}.items():
        subject = load("demo", None, "float32", False, None, 16, "cpu")
        source = Stdlib(sequences=16, length=128, seed=0)
        for _ in prune(subject, source.calibration(subject.processor, subject.limit), method, done=tiny.Memory()):
            pass
        perplexity[name] = subject.losses(source.evaluation(subject.processor, 256)[::16]).double().mean().exp().item()
    assert perplexity["sparsegpt"] < perplexity["wanda"] < 0.5 * perplexity["random"]
