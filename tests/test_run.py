"""A run as a user starts it: from the command line to the table, and again, and with mistakes."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.models import location
from tests.faults import ask

ROOT = Path(__file__).parents[1]
TREE = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """The embedded model, copied into a folder of its own, with a few windows of Python's documentation."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(location.located("demo"), folder / "small")
    text = " ".join(topics.values())[:20_000]
    tokens = AutoTokenizer.from_pretrained(folder / "small")(text, return_tensors="pt").input_ids
    for part, windows in zip(("calib", "eval"), tokens[0, : 24 * 128].view(2, 12, 128), strict=True):
        save_file({"tokens": windows.contiguous()}, folder / f"{part}.safetensors")
    named = ["model=local", f"model.path={folder}/small", "data=tokens", f"data.path={folder}/calib.safetensors"]
    return [*named, "model.dtype=float32", f"eval.perplexity.path={folder}/eval.safetensors"]


def damaged(folder: Path) -> Path:
    """The embedded model with one weight that is not a number."""
    shutil.copytree(location.located("demo"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def only(outputs: Path, name="*/*") -> Path:
    """The folder of the single run."""
    found = [path.parent for path in outputs.glob(f"{name}/manifest.json")]
    assert len(found) == 1, found
    return found[0]


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    asked = ["experiment=sparsegpt", "pattern=2of4", "save_model=true", f"outputs={outputs}", *arguments]
    return asked, outputs, ask(*asked)


def test_a_run_prints_its_configuration_and_a_table_beside_the_dense_model(finished):
    _, outputs, answer = finished
    assert answer.code == 0, answer.err
    assert "update=sparsegpt  block_size=128 damping=0.01\n" in answer.out
    results = read(only(outputs), "results.json")
    row = next(line for line in answer.out.splitlines() if line.startswith("ppl/eval@128"))
    assert f"{results['metrics']['ppl/eval@128']:.3f}" in row and f"{results['dense']['ppl/eval@128']:.3f}" in row
    assert results["metrics"]["ppl/eval@128"] > results["dense"]["ppl/eval@128"]


def test_the_folder_holds_what_a_reader_needs(finished):
    folder = only(finished[1])
    assert folder.parent.name == "small" and folder.name.startswith("sparsegpt-2of4-0.5-")
    manifest, results = read(folder, "manifest.json"), read(folder, "results.json")
    assert (
        manifest["status"] == "done" and manifest["data"]["sequences"] == 12 and len(manifest["data"]["sha256"]) == 64
    )
    assert len(results["layers"]) == 42 and all(
        layer["sparsity"] == layer["target"] == 0.5 for layer in results["layers"]
    )
    assert len(results["blocks"]) == 6 and all(0 < block["error"] < 1 for block in results["blocks"])
    assert {"load", "data", "prune", "perplexity"} <= set(results["seconds"]) and results["memory"]["host_peak"] > 1e6
    assert len(list((folder / "masks").iterdir())) == 6 and not (folder / "blocks").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "block/error" in line] == [0, 1, 2, 3, 4, 5]


def test_the_saved_model_is_a_plain_folder_that_keeps_its_zeros(finished):
    folder = only(finished[1]) / "model"
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, weight in model.named_parameters():
        if ".layers." in name and weight.dim() == 2:
            assert ((weight.reshape(-1, 4) != 0).sum(1) <= 2).all()
            assert not torch.signbit(weight[weight == 0]).any()
    certificate = read(folder, "pruning_manifest.json")
    assert certificate["method"] == "sparsegpt" and certificate["status"] == "done"
    assert set(certificate["sparsity_by_matrix"].values()) == {0.5}
    assert (folder / "tokenizer.json").exists() and model.config.use_cache


def test_the_same_command_returns_at_once_with_its_table(finished):
    asked, outputs, first = finished
    before = read(only(outputs), "manifest.json")
    again = ask(*asked)
    assert again.code == 0 and again.out == first.out
    assert read(only(outputs), "manifest.json") == before


def test_another_evaluation_adds_only_itself(finished):
    asked, outputs, _ = finished
    data = read(only(outputs), "manifest.json")["data"]
    times = lambda: {path.name: path.stat().st_mtime_ns for path in (only(outputs) / "steps").glob("perplexity-*")}
    before = times()
    answer = ask(*asked, "eval=[perplexity,zeroshot]", "eval.zeroshot.tasks=[stdlib]", "eval.zeroshot.limit=4")
    assert answer.code == 0, answer.err
    assert times() == before
    assert read(only(outputs), "manifest.json")["data"] == data
    metrics = read(only(outputs), "results.json")["metrics"]
    assert "acc/stdlib@first4" in metrics and "ppl/eval@128" in metrics


def test_a_multirun_in_which_one_run_cannot_work_ends_before_the_first_begins(arguments, tmp_path):
    answer = ask("-m", "experiment=magnitude,wanda", "pattern=1of4,2of4", f"outputs={tmp_path}", *arguments)
    assert answer.code == 2 and not list(tmp_path.iterdir())
    said = "1:4 removes exactly 0.75 of the weights, found sparsity=0.5; set sparsity=0.75"
    assert answer.err.splitlines() == [f"error: pattern=1of4: {said}"], "what both have in common, once"


@pytest.mark.parametrize("moment", [pytest.param("model.layers.0", marks=pytest.mark.slow), "model.layers.3"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(arguments, finished, tmp_path, moment):
    asked = ["experiment=sparsegpt", "pattern=2of4", "save_model=true", f"outputs={tmp_path}", *arguments]
    line = [sys.executable, "-m", "experiments.run", *asked]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **TREE)
    while not list(tmp_path.glob(f"*/*/blocks/{moment}.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read(only(tmp_path), "manifest.json")["status"] == "running"
    solved = {p: p.stat().st_mtime_ns for p in (only(tmp_path) / "masks").glob("*.safetensors")}
    answer = ask(*asked)
    assert answer.code == 0, answer.err
    assert all(path.stat().st_mtime_ns == moment for path, moment in solved.items()), "solved blocks are kept"
    ours, other = only(tmp_path), only(finished[1])
    weights = [{p.name: p.read_bytes() for p in (run / "model").glob("*.safetensors")} for run in (ours, other)]
    assert len(weights[0]) == 7 and weights[0] == weights[1], "a file for each block and one for the rest"
    key = "ppl/eval@128"
    assert read(ours, "results.json")["metrics"][key] == read(other, "results.json")["metrics"][key]


def test_a_failure_keeps_its_traceback_and_shows_one_line(arguments, tmp_path):
    broken = damaged(tmp_path / "broken")
    answer = ask(*arguments, f"model.path={broken}", f"outputs={tmp_path / 'out'}")
    assert answer.code == 1
    told = [line for line in answer.err.splitlines() if line.startswith("failed: ")]
    reason = "NaN or infinite values in its weights; the checkpoint is damaged"
    assert told == [f"failed: eval=perplexity: model.layers.2.mlp.up_proj: {reason}"]
    manifest = read(only(tmp_path / "out"), "manifest.json")
    assert manifest["status"] == "failed" and "Traceback" in manifest["traceback"] and "Traceback" not in answer.err


def test_jobs_of_one_process_leave_no_model_behind(arguments, tmp_path):
    from experiments.composing import command  # noqa: PLC0415
    from experiments.running import pipeline  # noqa: PLC0415

    asked = ["-m", "experiment=wanda,sparsegpt", "device=cpu", f"outputs={tmp_path}", *arguments]
    for each in command.jobs(asked):
        pipeline.run(each.run)
        gc.collect()
        assert not [o for o in gc.get_objects() if isinstance(o, torch.nn.Module) and hasattr(o, "lm_head")]


def test_a_later_command_that_fails_leaves_the_finished_run_as_it_was(finished):
    asked, outputs, _ = finished
    answer = ask(*asked, "eval=[perplexity,zeroshot]", "eval.zeroshot.files=/nowhere")
    assert answer.code == 2 and "error: " in answer.err and "/nowhere" in answer.err
    assert read(only(outputs), "manifest.json")["status"] == "done"


def test_a_dense_run_fits_into_a_grid_with_patterns(arguments, tmp_path):
    answer = ask("-m", "experiment=dense,wanda", "pattern=2of4", f"outputs={tmp_path}", *arguments)
    assert answer.code == 0, answer.err
    found = {path.parent.name[:-11]: read(path.parent, "results.json") for path in tmp_path.glob("*/*/manifest.json")}
    assert set(found) == {"dense-2of4-0", "wanda-2of4-0.5"}
    dense = found["dense-2of4-0"]
    assert dense["metrics"]["ppl/eval@128"] == dense["dense"]["ppl/eval@128"]


def test_evaluations_may_be_left_out(arguments, tmp_path):
    answer = ask("experiment=magnitude", "eval=[]", "tracker=[]", f"outputs={tmp_path}", *arguments[:5])
    assert answer.code == 0, answer.err
    assert read(only(tmp_path), "results.json")["metrics"] == {}
