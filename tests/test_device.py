"""Whole runs on the emulated device (tests/emulated.py): read from files block by block, pruned, evaluated, saved.

Everything has the bits of the CPU's run, so that a tensor that is left on the host where it should not be is told.
"""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.composing import command
from experiments.models import location
from experiments.running import pipeline
from tests import emulated, tiny
from tests.faults import settings
from tests.test_contracts import solve


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny Llama in float32 with a real tokenizer in model/, and windows of tokens."""
    folder = tmp_path_factory.mktemp("device")
    tiny.network(num_hidden_layers=2, vocab_size=4096).model.save_pretrained(folder / "model")
    for file in Path(location.located("demo")).glob("tokenizer*"):
        shutil.copy(file, folder / "model")
    save_file({"tokens": tiny.tokens(6, 16)}, folder / "tokens.safetensors")
    return folder


def finished(outputs, device, words, place):
    """Metrics and saved weights of a run that this process makes on that device."""
    usual = f"outputs={outputs} save_model=true batch=2 eval.perplexity.path={{tokens}}"
    outputs.mkdir()
    (each,) = command.jobs(settings(f"{words} {usual}", outputs, place))
    configs = [each.config, *([each.config["given"]["config"]] if each.config["given"] else [])]
    for config in configs:
        config["device"] = config["model"]["device"] = str(device)
    folder = pipeline.run(each.run).folder
    told = json.loads((folder / "results.json").read_text())
    weights = {name: t for file in folder.glob("model/*.safetensors") for name, t in load_file(file).items()}
    return told.get("value", told)["metrics"], weights


def test_a_model_that_nobody_runs_leaves_nothing_on_the_device():
    with emulated.device() as far:
        subject = tiny.network(num_hidden_layers=2)
        subject.device = far
        subject.losses(tiny.tokens(4, 8))
        gc.collect()
        assert emulated.memory.held == 0


late = lambda words: pytest.param(words, marks=pytest.mark.slow)
RUNS = [
    "experiment=sparsegpt pattern=2of4 eval=[perplexity,audit] activations=host",
    late("experiment=wanda eval=[perplexity,zeroshot,audit] eval.zeroshot.tasks=[stdlib] eval.zeroshot.limit=8"),
    late("experiment=gblm eval=[perplexity,audit] activations=disk"),
    late("experiment=barber eval=[perplexity,audit] activations=disk"),
    late("experiment=besa_layer eval=[perplexity] activations=host"),
    late("experiment=mixed eval=[perplexity] activations=disk"),
    late("experiment=admm granularity=submodule propagate=dense eval=[perplexity]"),
]


@pytest.mark.parametrize("words", RUNS)
def test_a_run_from_files_has_the_numbers_and_the_weights_of_the_cpu(tmp_path, words, place):
    with emulated.device() as far:
        metrics, weights = finished(tmp_path / "far", far, words, place)
        assert emulated.memory.held == 0, "nothing stays there"
        expected, dense = finished(tmp_path / "cpu", "cpu", words, place)
    assert metrics == expected
    assert weights.keys() == dense.keys() and all(torch.equal(weights[name], dense[name]) for name in dense)


@pytest.mark.parametrize("place", [late("device"), late("host"), "disk"])
@pytest.mark.parametrize(
    "words",
    [
        "experiment=sparsegpt granularity=sequential propagate=dense",
        late("experiment=dsnot granularity=submodule propagate=pruned pattern=4of8"),
        late("experiment=barber granularity=submodule propagate=dense"),
        late("experiment=besa granularity=block propagate=dense allocator.reference=dense"),
    ],
)
def test_wherever_hidden_states_wait_the_weights_are_those_of_the_cpu(words, place):
    def on(device):
        def make(family):
            subject = tiny.network(family, batch=2, num_hidden_layers=2)
            subject.device, subject.activations = torch.device(device), place
            return subject

        return solve(*words.split(), make=make)[1].weights()

    with emulated.device() as far:
        there, here = on(far), on("cpu")
    assert all(torch.equal(there[name], here[name]) for name in here)
