"""The embedded image classifier: as good as its log says, and what its script makes."""

import hashlib
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig

from experiments.composing import command
from experiments.data.digits import Digits
from experiments.demo.train_vision import RECIPES, accuracy, build, eyes, images, jittered, main, measured, varied
from experiments.models.load import load
from experiments.models.location import located

REPOSITORY = Path(__file__).parents[1]
FOLDER = located("demo/digits")
LOG = (FOLDER / "train.log").read_text()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_as_good_as_its_log_says_and_better_than_97_percent_on_images_that_it_was_not_trained_on():
    found, count = measured(FOLDER, Digits())
    assert f"saved weights: held-out accuracy {found:.2f} % of {count} images" in LOG
    assert found > 97 and count == 359


def test_its_files_are_what_the_script_writes_and_below_a_megabyte(tmp_path):
    weights = FOLDER / "model.safetensors"
    assert {path.name for path in FOLDER.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json", "train.log",
    }  # fmt: skip
    assert weights.stat().st_size < 1e6
    assert f"sha256 of the weights {hashlib.sha256(weights.read_bytes()).hexdigest()}" in LOG
    model = build(RECIPES["digits"], [str(digit) for digit in range(10)], seeded())
    assert f"{model.num_parameters()} parameters" in LOG
    eyes(RECIPES["digits"], model, tmp_path)
    name = "preprocessor_config.json"
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
    kept, made = ViTConfig.from_pretrained(FOLDER).to_dict(), model.config.to_dict()
    run = {"architectures", "dtype", "transformers_version"}
    assert {k: v for k, v in kept.items() if k not in run} == {k: v for k, v in made.items() if k not in run}
    assert kept["id2label"] == {k: str(k) for k in range(10)}


def test_the_accuracy_on_the_way_is_of_the_images_that_a_run_evaluates():
    network = load(str(FOLDER), None, "float32", False, None, 64, "cpu")
    with network.resident():
        heldout = images(Digits(), "evaluation", network.processor)
        assert accuracy(network.model, heldout) == pytest.approx(measured(FOLDER, Digits())[0])


def test_a_varied_image_is_a_crop_of_the_reflected_one_or_its_mirror():
    recipe = RECIPES["cifar10"]
    pixels = torch.arange(2 * 3 * 32 * 32.0).view(2, 3, 32, 32)
    found = varied(pixels, replace(recipe, jitter=0.0), seeded())
    padded = torch.nn.functional.pad(pixels, [4] * 4, mode="reflect")
    crops = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # [n, c, down, right, h, w]
    for image, places in zip(found, crops, strict=True):
        both = torch.stack([places, places.flip(-1)])
        assert (both == image[:, None, None]).all(-1).all(-1).all(1).any()


def test_colours_stay_in_their_range_and_no_jitter_changes_nothing():
    recipe = RECIPES["cifar10"]
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (recipe.mean, recipe.std))
    pixels = (torch.rand(4, 3, 32, 32, generator=seeded()) - mean) / std
    still = replace(recipe, jitter=0.0)
    torch.testing.assert_close(jittered(pixels, still, seeded()), pixels, atol=1e-5, rtol=0)
    seen = jittered(pixels, recipe, seeded()) * std + mean
    assert seen.min() >= -1e-6 and seen.max() <= 1 + 1e-6
    assert not torch.allclose(seen, pixels * std + mean, atol=0.01)


def test_make_demo_vision_runs_five_methods_at_three_budgets_and_2_of_4():
    done = subprocess.run(["make", "-n", "-o", "setup", "demo-vision"], capture_output=True, text=True, cwd=REPOSITORY)
    lines = [shlex.split(line) for line in done.stdout.splitlines() if "experiments.run" in line]
    jobs = [job for words in lines for job in command.jobs(words[words.index("experiments.run") + 1 :])]
    asked = {
        (*(job.choices[group] for group in ("experiment", "pattern")), job.config["allocator"]["sparsity"])
        for job in jobs
    }
    methods = ("magnitude", "wanda", "sparsegpt", "gblm", "admm")
    budgets = (("2of4", 0.5), ("unstructured", 0.5), ("unstructured", 0.6), ("unstructured", 0.7))
    assert asked == {(method, *budget) for method in methods for budget in budgets} and len(jobs) == 20
    assert "experiments.report outputs/demo-vision" in done.stdout


def test_images_that_are_not_there_are_told_in_a_line_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_vision", "cifar10", "--out", f"{tmp_path}/made"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "cifar10_test_jpeg.tar.gz: no such file" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_the_same_training_command_gives_the_same_files(tmp_path):
    command_line = [sys.executable, "-m", "experiments.demo.train_vision", "digits", "--epochs", "1", "--out"]
    for order in "12":
        environment = os.environ | {"PYTHONHASHSEED": order}
        subprocess.run([*command_line, tmp_path / order], cwd=REPOSITORY, env=environment, check=True)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / order).iterdir() if p.suffix != ".log"} for order in "12")
    assert one == two
