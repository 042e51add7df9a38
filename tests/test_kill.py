"""Runs that are killed and go on: nothing is lost, and nothing comes out otherwise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.composing import command
from experiments.files.disk import read_json, seal, sealed
from experiments.files.tensors import write_tensors
from experiments.running import pipeline
from tests import kill
from tests.crashes import likeness
from tests.test_disk import DAMAGES

ROOT = Path(__file__).parents[1]


def killed(*arguments):
    """What the command says."""
    line = [sys.executable, "-m", "tests.kill", *arguments]
    return subprocess.run(line, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.mark.slow
def test_killed_runs_end_as_undisturbed_ones():
    answer = killed("--points", "3", "--methods", "wanda", "--seed", "3")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "3 kills in" in answer.stdout


@pytest.mark.slow
def test_a_hundred_kills_over_all_methods_change_nothing():
    answer = killed("--points", "100")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "100 kills in" in answer.stdout


def test_an_unknown_method_gets_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        kill.main(["--methods", "wnda"])
    assert "no method wnda; there are magnitude" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the embedded model, and how to do it again in another folder."""
    folder = tmp_path_factory.mktemp("finished")
    write_tensors({"tokens": torch.randint(1000, (4, 32))}, folder / "windows.safetensors")
    place = f"{folder}/windows.safetensors"
    lines = ["experiment=wanda", "data=tokens", f"data.path={place}", f"eval.perplexity.path={place}", "device=cpu"]

    def run(outputs):
        [asked] = command.jobs([*lines, "model.dtype=float32", "tracker=[]", f"outputs={outputs}"])
        return pipeline.run(asked.run).folder

    run(folder / "outputs")
    return folder / "outputs", run


def test_the_comparison_sees_a_bit_in_a_mask_a_digit_of_a_metric_and_a_missing_file(finished, tmp_path):
    folders = [finished[0], shutil.copytree(finished[0], tmp_path / "two")]
    found = lambda: likeness.differences(*folders)
    assert found() == []
    [results] = folders[1].glob("*/*/results.json")
    told = sealed(results)
    [key] = [name for name in told["metrics"] if name.startswith("ppl/")]
    seal(results, told | {"metrics": told["metrics"] | {key: told["metrics"][key] + 1.0}})
    assert len(found()) == 2, "the file and the row of the table"
    seal(results, told)
    mask = results.parent / "masks" / "model.layers.3.safetensors"
    content = bytearray(mask.read_bytes())
    content[-1] ^= 1
    mask.write_bytes(content)
    assert len(found()) == 1
    mask.unlink()
    assert len(found()) == 1


def test_whatever_stored_file_is_damaged_the_run_is_made_whole_again(finished, tmp_path):
    reference, run = finished
    [folder] = [path.parent for path in shutil.copytree(reference, tmp_path / "damaged").glob("*/*/manifest.json")]
    kinds = ("masks/*.1.*", "steps/blocks/*.2.*", "steps/perplexity*", "results.json")
    for pattern, damage in zip(kinds, DAMAGES, strict=True):
        [file] = folder.glob(pattern)
        damage(file)
        if pattern != kinds[0]:  # two at once
            assert run(tmp_path / "damaged") == folder
    [dense] = (tmp_path / "damaged" / "cache" / "dense").glob("*.json")
    DAMAGES[1](dense)
    (folder / "results.json").unlink()
    run(tmp_path / "damaged")
    assert likeness.differences(reference, folder.parents[1]) == []
    assert read_json(folder / "manifest.json")["status"] == "done"
