"""What a run leaves on disk: its name, its manifest, its stored steps, its blocks."""

import json

import pytest
import torch
from hydra import compose, initialize
from omegaconf import OmegaConf

from experiments import identity
from experiments.hints import one_line
from experiments.record import Names, Run, once, read_json, write_json
from experiments.store import BlockStore, load_masks, pack, unpack
from prune.method import Pruned
from prune.prune import Solved
from tests.tiny import decoder, random

NAMES = Names("tiny", "wanda", "unstructured", "python -m experiments.run")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    decoder().model.save_pretrained(folder)
    return folder


def config(model, *overrides):
    with initialize(version_base="1.3", config_path="../conf"):
        chosen = compose("config", overrides=["model=local", f"model.path={model}", *overrides])
    return OmegaConf.to_container(chosen, resolve=True)


@pytest.mark.parametrize(
    "change",
    ["eval=[audit]", "tracker=[wandb]", "device=cuda", "outputs=elsewhere", "save_model=true", "sweep=x"],
)
def test_what_does_not_change_the_weights_does_not_change_the_identity(model, change):
    assert identity.identity(config(model, change)) == identity.identity(config(model))


@pytest.mark.parametrize(
    "change",
    [
        "sparsity=0.6",
        "scope=matrix",
        "metric=magnitude",
        "update=sparsegpt",
        "granularity=sequential",
        "propagate=dense",
        "batch=2",
        "seed=1",
        "data.sequences=64",
        "pattern=2of4",
        "model.dtype=float16",
    ],
)
def test_what_changes_the_weights_changes_the_identity(model, change):
    assert identity.identity(config(model, change)) != identity.identity(config(model))


def test_a_file_counts_with_its_content_not_its_place(model, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("one.txt", "a/two.txt", "three.txt"):
        (tmp_path / name).write_text("other" if name == "three.txt" else "the same words")
    found = [
        identity.identity(config(model, "data=textfile", f"data.path={tmp_path / name}"))
        for name in ("one.txt", "a/two.txt", "three.txt")
    ]
    assert found[0] == found[1] != found[2]


def test_a_run_has_a_readable_folder(model, tmp_path):
    settings = config(model, f"outputs={tmp_path}")
    run = Run.open(settings, NAMES)
    assert run.folder == tmp_path / "tiny" / f"wanda-unstructured-0.5-{identity.identity(settings)}"
    assert not run.folder.exists() and not run.done


def test_a_run_is_running_then_done_or_failed_with_the_reason(model, tmp_path):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    with run.recorded():
        assert read_json(run.folder / "manifest.json")["status"] == "running"
    assert run.done
    assert "error" not in run.told()
    run = Run.open(config(model, f"outputs={tmp_path / 'other'}"), NAMES)
    with pytest.raises(ValueError, match="bad"), run.recorded():
        raise ValueError("bad\n  input")
    manifest = run.told()
    assert (manifest["status"], manifest["error"]) == ("failed", "bad input")
    assert "Traceback" in manifest["traceback"] and not run.done
    assert manifest["config"]["model"]["path"] == str(model)
    assert {"commit", "dirty", "versions", "device", "started", "finished", "command"} <= set(manifest)


def test_trackers_hear_the_end_after_the_manifest_is_final(model, tmp_path):
    class Ear:
        def start(self, folder, manifest):
            self.heard = [manifest["status"]]

        def log(self, metrics, step=None):
            self.heard.append(metrics)

        def finish(self, folder, status):
            self.heard.append((status, json.loads((folder / "manifest.json").read_text())["status"]))

    ear, run = Ear(), Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    with pytest.raises(KeyboardInterrupt), run.recorded() as listeners:
        listeners.start([ear])
        listeners.log({"x": 1.0})
        raise KeyboardInterrupt
    assert ear.heard == ["running", {"x": 1.0}, ("failed", "failed")]


def test_a_stored_step_is_not_computed_again(tmp_path):
    calls = []
    for _ in range(3):
        assert once(tmp_path / "steps" / "x.json", lambda: calls.append(1) or {"value": 7}) == {"value": 7}
    assert len(calls) == 1


def test_a_json_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", [circular := [], circular.append(circular)])
    assert read_json(tmp_path / "a.json") == {"x": 1}


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 16), (7, 9)])
def test_masks_are_bits_and_come_back(shape):
    mask = random(*shape) > 0
    bits = pack(mask)
    assert bits.dtype == torch.uint8 and len(bits) == (mask.numel() + 7) // 8
    assert torch.equal(unpack(bits, shape), mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_block_comes_back_as_the_model_holds_it(tmp_path, dtype):
    store, weight = BlockStore(tmp_path), random(6, 10).to(dtype)
    mask = weight > 0
    assert "model.layers.0" not in store
    solved = {"model.layers.0.mlp.up": Pruned(weight * mask, mask, 0.5, {"dead_columns": 2})}
    store.save(Solved("model.layers.0", solved, 0.25, 1.5))
    assert "model.layers.0" in store
    found = store.load("model.layers.0").inside["mlp.up"]
    assert found.weight.dtype == dtype
    assert torch.equal(found.weight, weight * mask) and torch.equal(found.mask, mask)
    assert (found.target, found.notes) == (0.5, {"dead_columns": 2})
    store.drop_weights()
    assert "model.layers.0" not in store
    assert torch.equal(load_masks(tmp_path / "masks" / "model.layers.0.safetensors")["mlp.up"], mask)


def test_a_finished_run_stays_done_when_a_later_command_fails_and_keeps_what_it_was_made_of(model, tmp_path):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    with run.recorded():
        run.manifest |= {"data": {"sha256": "abc"}, "pruned": {"commit": "123"}}
    again = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    with pytest.raises(ValueError, match="no such task"), again.recorded():
        raise ValueError("no such task")
    told = again.told()
    assert (told["status"], told["error"]) == ("done", "no such task")
    assert told["data"] == {"sha256": "abc"} and told["pruned"] == {"commit": "123"}


EVALUATIONS = {"seed=3": 1, "data.sequences=7": 1, "sparsity=0.7": 1, "eval.perplexity.length=64": 0, "batch=2": 0}


@pytest.mark.parametrize(("change", "same"), EVALUATIONS.items())
def test_the_dense_model_is_evaluated_once_whatever_the_calibration(model, change, same):
    assert (identity.dense(config(model, change), "perplexity") == identity.dense(config(model), "perplexity")) == same


def test_an_error_is_one_line_and_a_librarys_keeps_its_class():
    assert one_line(ValueError("a\n b")) == "a b"
    assert one_line(RuntimeError("x")) == "RuntimeError: x"
    assert one_line(KeyError()) == "KeyError: KeyError"


def test_a_whole_number_and_the_same_fraction_name_one_run():
    assert identity.fingerprint({"ratio": [1, {"alpha": 100}]}) == identity.fingerprint(
        {"ratio": [1.0, {"alpha": 100.0}]}
    )
    assert identity.fingerprint(True) != identity.fingerprint(1) != identity.fingerprint(1.5)
