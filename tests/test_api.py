"""A model in memory is pruned by a call: as a run with the same windows and settings prunes it."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from experiments.api import prune_model
from experiments.composing import command
from experiments.models.location import located
from experiments.running import pipeline
from tests.text import refused

WINDOWS = torch.randint(256, (4, 32), generator=torch.Generator().manual_seed(0))


def dense():
    return AutoModelForCausalLM.from_pretrained(located("demo"), dtype=torch.float32)


@pytest.mark.parametrize(
    "settings",
    [
        ["experiment=sparsegpt", "pattern=2of4", "update.damping=0.1", "granularity=submodule"],
        ["experiment=barber", "sparsity=0.4", "batch=2"],  # takes over the masks of another
    ],
)
@pytest.mark.slow
def test_it_gives_the_weights_of_the_run_of_the_same_settings(settings, tmp_path):
    save_file({"tokens": WINDOWS}, tmp_path / "windows.safetensors")
    where = [f"data={tmp_path}/windows.safetensors", f"outputs={tmp_path}/out", "device=cpu", "eval=[]", "tracker=[]"]
    (job,) = command.jobs([*settings, *where, "save_model=true"])
    saved = pipeline.run(job.run).folder / "model"
    model = dense()
    answers = prune_model(model, WINDOWS, "device=cpu", *settings)
    expected = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).state_dict()
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)
    zeros = [(p.weight == 0).double().mean().item() for solved in answers.values() for p in solved.linears.values()]
    assert len(answers) == 6 and sum(zeros) / len(zeros) == pytest.approx(
        0.5 if "pattern=2of4" in settings else 0.4, abs=1e-5
    )


def test_what_is_no_method_or_no_window_is_refused_and_nothing_is_pruned():
    model = dense()
    for settings, words in (
        (["data=c4"], "data=c4: expected name=value, the name one of experiment, pattern"),
        (["ablate=metric"], "ablate=metric: expected name=value"),
        (["experiment=ablation/metric_update"], "expected one method, found"),
        (["experiment=wnda"], "did you mean wanda?"),
        (["experiment=besa", "pattern=2of4"], "use pattern=unstructured"),
    ):
        refused(lambda settings=settings: prune_model(model, WINDOWS, *settings), words)
    refused(lambda: prune_model(model, WINDOWS[0]), "expected token ids [n, t], found [32]")
    refused(lambda: prune_model(model, WINDOWS + 10**6), "made with another tokenizer")
    torch.testing.assert_close(model.state_dict(), dense().state_dict(), rtol=0, atol=0)
