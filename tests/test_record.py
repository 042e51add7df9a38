"""What a run leaves on disk: its name, its manifest, its stored steps, its blocks."""

import json
import subprocess
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize
from omegaconf import OmegaConf

from experiments.console.errors import one_line
from experiments.files.disk import read_json
from experiments.runs import identity, provenance
from experiments.runs.folder import Names, Run
from experiments.runs.record import Record, load
from experiments.runs.results import has_blocks
from experiments.runs.stores import BlockStore, load_masks, pack, unpack
from experiments.summary import rows
from prune.method import Pruned
from prune.prune import Solved
from tests.test_disk import DAMAGES, holding
from tests.tiny import network, random

NAMES = Names("tiny", "wanda", "unstructured", "python -m experiments.run")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    network().model.save_pretrained(folder)
    return folder


def config(model, *overrides):
    with initialize(version_base="1.3", config_path="../conf"):
        chosen = compose("config", overrides=["model=local", f"model.path={model}", *overrides])
    return OmegaConf.to_container(chosen, resolve=True)


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
    assert "error" not in run.stored()
    run = Run.open(config(model, f"outputs={tmp_path / 'other'}"), NAMES)
    with pytest.raises(ValueError, match="bad"), run.recorded():
        raise ValueError("bad\n  input")
    manifest = run.stored()
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
    with pytest.raises(KeyboardInterrupt), run.recorded():
        run.track([ear])
        run.log({"x": 1.0})
        raise KeyboardInterrupt
    assert ear.heard == ["running", {"x": 1.0}, ("failed", "failed")]


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
    solved = {"model.layers.0.mlp.up": Pruned(weight * mask, mask, target=0.5, notes={"dead_columns": 2})}
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
    told = again.stored()
    assert (told["status"], told["error"]) == ("done", "no such task")
    assert told["data"] == {"sha256": "abc"} and told["pruned"] == {"commit": "123"}


def test_an_error_is_one_line_and_a_librarys_keeps_its_class():
    assert one_line(ValueError("a\n b")) == "a b"
    assert one_line(RuntimeError("x")) == "RuntimeError: x"
    assert one_line(KeyError()) == "KeyError: KeyError"


def test_only_one_process_is_in_a_run_and_those_that_build_on_it_wait(model, tmp_path, caplog):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    run.folder.mkdir(parents=True)
    other = holding(run.folder / ".lock", seconds=6.0)
    with pytest.raises(BlockingIOError, match=f"in use by process {other.pid}"), run.alone():
        pytest.fail("two processes at once")
    assert not (run.folder / "manifest.json").exists(), "the other's manifest is left alone"
    with caplog.at_level("INFO", "experiments"), run.alone(wait=True):
        assert other.wait(9) == 0
    assert "waiting for it" in caplog.text


def test_a_sweep_waits_for_its_own_run_under_another_name(model, tmp_path):
    mine = Run.open(config(model, f"outputs={tmp_path}"), replace(NAMES, sweep="grid"))
    mine.write()
    other = holding(mine.folder / ".lock", seconds=2.0)
    with mine.alone():
        assert other.wait(5) == 0


def test_what_a_killed_process_was_writing_goes_when_the_run_is_entered_again(model, tmp_path):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    run.folder.mkdir(parents=True)
    (run.folder / ".manifest.json.17.part").write_text("{")
    with run.alone():
        assert [file.name for file in run.folder.iterdir() if file.name.endswith(".part")] == []


def test_blocks_of_other_input_are_forgotten_but_a_finished_run_is_not(model, tmp_path, caplog):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    run.settle("data", {"name": "text", "sha256": "one"})
    store, mask = BlockStore(run.folder), torch.ones(2, 4, dtype=torch.bool)
    store.save(Solved("layers.0", {"layers.0.up": Pruned(random(2, 4), mask)}, None, 0.0))
    run.settle("data", {"name": "the same text elsewhere", "sha256": "one"})
    assert "layers.0" in store and not caplog.records
    run.settle("data", {"name": "text", "sha256": "two"})
    assert "layers.0" not in store and "begun with other input (data was one, now two)" in caplog.text
    store.save(Solved("layers.0", {"layers.0.up": Pruned(random(2, 4), mask)}, None, 0.0))
    (run.folder / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"data was two, now three.*; remove it to prune again"):
        run.settle("data", {"name": "text", "sha256": "three"})
    assert "layers.0" in store and run.stored()["data"]["sha256"] == "two"


def test_a_run_that_other_code_went_on_with_names_both(model, tmp_path):
    run = Run.open(config(model, f"outputs={tmp_path}"), NAMES)
    first, second = ({"commit": c * 40, "dirty": False, "diff": None, "versions": {"torch": "2.13"}} for c in "ab")
    run.manifest |= first
    run.note_code(begun=False)
    run.note_code(begun=True)
    assert run.stored()["pruned"] == first | {"command": NAMES.command, "ranks": 1}
    run.manifest |= second
    run.note_code(begun=True)
    assert load(run.folder).code == f"{'a' * 12}, torch 2.13; then {'b' * 12}, torch 2.13"
    run.note_code(begun=False)
    assert load(run.folder).code == f"{'b' * 12}, torch 2.13", "all blocks were solved again"


@pytest.mark.parametrize("kind", ["blocks", "masks"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_not_in_the_store(tmp_path, kind, damage):
    store, mask = BlockStore(tmp_path), random(8, 8) > 0
    solved = Solved("layers.0", {"layers.0.up": Pruned(random(8, 8) * mask, mask)}, 0.5, 1.0)
    store.save(solved)
    assert "layers.0" in store and has_blocks(tmp_path)
    damage(tmp_path / kind / "layers.0.safetensors")
    assert "layers.0" not in store and not has_blocks(tmp_path)
    store.save(solved)
    assert "layers.0" in store and torch.equal(store.load("layers.0").inside["up"].mask, mask)


def test_two_states_of_a_tree_that_is_worked_on_are_two_codes(tmp_path, monkeypatch):
    git = lambda *words: subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *words], cwd=tmp_path)
    (tmp_path / "code.py").write_text("1")
    assert [git(*words.split()).returncode for words in ("init -q", "add .", "commit -qm first")] == [0, 0, 0]
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "code.py"))
    found = [provenance.code()]
    for text in ("2", "3", "2"):
        (tmp_path / "code.py").write_text(text)
        found.append(provenance.code())
    assert found[0]["dirty"] is False and found[0]["diff"] is None and found[1]["dirty"] is True
    assert found[1] == found[3] != found[2] and len({each["commit"] for each in found}) == 1


def test_a_table_over_two_codes_says_so_in_one_line(tmp_path):
    def record(name, commit):
        code = {"commit": commit * 40, "dirty": True, "diff": "0123456789", "versions": {"torch": "2.13.0"}}
        manifest = {"model": "m", "method": name, "pattern": "2of4", "sparsity": 0.5, "config": {}, "pruned": code}
        results = {"metrics": {"ppl/x@8": 2.0}, "dense": {"ppl/x@8": 1.0}, "layers": []}
        return Record(tmp_path / name, manifest, results, "done")

    same = rows.arrange([record("wanda", "a"), record("sparsegpt", "a")])
    assert not [note for note in same.notes if "code" in note]
    [note] = rows.arrange([record("wanda", "a"), record("sparsegpt", "a"), record("admm", "b")]).notes
    assert note == (
        "not all rows were computed by the same code and libraries: "
        f"{'a' * 12} with uncommitted changes 0123456789, torch 2.13.0 (2 runs), "
        f"{'b' * 12} with uncommitted changes 0123456789, torch 2.13.0 (1 run)"
    )
