"""What can be known of a run before its model is loaded is said before, in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.composing import command
from experiments.composing.method import make
from experiments.models import location
from experiments.running import components, pipeline, preflight
from experiments.running.footprint import footprint, sizes
from tests.tiny import network


def check(*overrides):
    """The checks of one run."""
    config = command.jobs(["device=cpu", *map(str, overrides)])[0].config
    preflight.preflight(config, components.build(config), Path(config["outputs"]) / "run")


@pytest.fixture
def folder(tmp_path):
    """A copy of the demo's model, whose files may be broken."""
    shutil.copytree(location.located("demo"), tmp_path / "model")
    return tmp_path / "model"


def refused(*overrides, kind=ValueError):
    with pytest.raises(kind) as caught:
        check(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_that_can_work_passes_and_leaves_nothing_behind(tmp_path):
    check(f"outputs={tmp_path}/a/b", "save_model=true", "experiment=gblm", f"scratch={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_no_layer_fits_is_refused_from_the_configuration_alone(folder, tmp_path):
    network(intermediate_size=66).model.save_pretrained(folder)
    for file in folder.glob("tokenizer*"):  # of another embedding
        file.unlink()
    said = refused("model=local", f"model.path={folder}", "pattern=2of4", f"outputs={tmp_path}/out")
    assert "model.layers.0.mlp.down_proj: 2:4 needs an input width that 4 divides, found 66" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.layers.2.mlp.up_proj.weight"), ("missing", "model.layers.2.mlp.up_proj.weight")),
        (
            lambda t: t.update({"model.layers.1.self_attn.q_proj.weight": torch.zeros(8, 8)}),
            ("another shape", "model.layers.1.self_attn.q_proj.weight"),
        ),
    ],
)
def test_a_checkpoint_that_is_not_the_models_is_refused_by_its_headers(folder, tmp_path, change, words):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused("model=local", f"model.path={folder}", f"outputs={tmp_path}/out")
    assert all(word in said for word in words), said


def test_a_tokenizer_larger_than_the_embedding_is_refused_without_a_weight(folder, tmp_path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    one = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [one | {"id": 2048 + more, "content": f"<far {more}>"} for more in range(99)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refused("model=local", f"model.path={folder}", f"outputs={tmp_path}/out")
    assert "99 of the tokenizer's ids, up to 2146, are beyond the 2048" in said


def test_a_text_with_fewer_bytes_than_a_window_has_tokens_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("a few words")
    said = refused("data=textfile", f"data.path={tmp_path}/short.txt", "eval=[audit]", f"outputs={tmp_path}/out")
    assert "11 bytes" in said and "data.length" in said
    said = refused(f"eval.perplexity.path={tmp_path}/short.txt", f"outputs={tmp_path}/out")
    assert "11 bytes" in said and "eval.perplexity.length" in said


def test_token_windows_longer_than_the_model_takes_are_refused(tmp_path):
    save_file({"tokens": torch.ones(4, 300, dtype=torch.int64)}, tmp_path / "long.safetensors")
    said = refused("data=tokens", f"data.path={tmp_path}/long.safetensors", "eval=[audit]", f"outputs={tmp_path}/out")
    assert "300 tokens a row, but this model takes 256" in said
    said = refused(f"eval.perplexity.path={tmp_path}/long.safetensors", f"outputs={tmp_path}/out")
    assert "eval=perplexity" in said and "300 tokens a row" in said


def test_a_folder_that_takes_no_file_is_refused():
    said = refused("outputs=/proc/self/out", kind=OSError)
    assert "outputs=/proc/self/out: nothing can be written there" in said


def test_a_disk_with_less_room_than_the_run_writes_is_refused_with_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "room", lambda folder: 2**20)
    said = refused("save_model=true", f"outputs={tmp_path}")
    assert (
        "masks 288 KiB, solved blocks, until the run is done 9 MiB, saved model 10" in said and "1 MiB are free" in said
    )


def test_what_is_written_is_the_size_of_what_a_run_leaves(tmp_path):
    config = command.jobs(["experiment=magnitude", "eval=[]", "save_model=true", "device=cpu", f"outputs={tmp_path}"])[
        0
    ]
    parts = components.build(config.config)
    network = make(config.config["model"])
    told = {part: size for _, part, size in footprint(config.config, parts, sizes(network))}
    folder = pipeline.run(config.run).folder
    there = lambda pattern: sum(file.stat().st_size for file in folder.glob(pattern))
    assert there("model/*.safetensors") == pytest.approx(told["saved model"], rel=0.01)
    assert there("masks/*") == pytest.approx(told["masks"], rel=0.1)
