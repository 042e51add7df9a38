"""What the READMEs promise: their examples work, their commands run, what they link to is there."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.composing import command
from experiments.models import location
from experiments.running import pipeline
from prune.allocators.uniform import Uniform
from prune.method import Method
from prune.metrics.magnitude import Magnitude
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from prune.updates.zero import Zero
from tests.test_contracts import slices_agree
from tests.test_updates import linear
from tests.text import SHARED
from tests.tiny import random

ROOT = Path(__file__).parents[1]
PAGES = {place: ROOT / place / "README.md" for place in (".", "experiments", "prune", "conf")}
TEXTS = {place: path.read_text(encoding="utf-8") for place, path in PAGES.items()}
COMMAND = re.compile(r"(?:^\.venv/bin/|`)python -m (experiments\.\w+)((?: [^`\n|]*)?)", re.MULTILINE)
NAMES = re.compile(r"(^|[ =/])[A-Z_]{3,}( |$)|\.\.\.|/path/to")  # FOLDER, NAME: what a reader puts in
# What the words that ask for a model that is not here, or for hours, become.
SMALLER = {
    "model=llama2_7b": "model=demo",
    "data=c4": "data=stdlib",
    "8": "0.01",
    "100": "1",
}
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # commands are run once more, as main
TINY = ["data.sequences=2", "data.length=16", "device=cpu"]
LONG = ("experiments.run", "experiments.bench", "models=[demo]", "all_methods", "outputs/curves", "--method wanda")


def listed() -> list[str]:
    """Those of them that can be typed as they stand."""
    return [line for line in every_line() if not NAMES.search(line) and " " in line]


def every_line() -> list[str]:
    """Every command of the four pages, each once."""
    text = "\n".join(TEXTS.values()).replace("\\\n", " ").replace("python -m\nexperiments", "python -m experiments")
    return sorted({f"{module}{rest.partition('  #')[0].rstrip()}" for module, rest in COMMAND.findall(text)})


def slow(line: str) -> bool:
    return any(word in line for word in LONG) or ("experiments.plan" in line and "llama" in line)


def example(place: str, language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[place], re.DOTALL)[number]


def tiny(place: Path) -> list[str]:
    """Settings for two short windows of a text that is written to this folder."""
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog, again and again. " * 40)
    return [*TINY, "data=textfile", f"data.path={place}/text.txt"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as the commands expect it: two finished runs below outputs/demo."""
    place = tmp_path_factory.mktemp("desk")
    words = ["-m", "experiment=wanda,sparsegpt", "pattern=2of4", *tiny(place), f"outputs={place}/outputs/demo"]
    evaluated = [f"eval.perplexity.path={place}/text.txt", "eval.perplexity.length=64"]
    for line in command.jobs([*words, *evaluated]):
        pipeline.run(line.run)
    return place


def status(line: str, *more: str) -> int:
    """The exit status of a command, run in this process as `python -m` would."""
    module, *words = [*shlex.split(line), *more]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [module, *words])
        runpy.run_module(module, run_name="__main__")
    return ended.value.code or 0


@pytest.mark.parametrize("line", [line for line in listed() if not slow(line)])
def test_its_commands_run(line, desk, monkeypatch, capfd):
    monkeypatch.chdir(desk)
    assert status(line) == 0, capfd.readouterr().err
    assert capfd.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in listed() if slow(line)])
def test_its_long_commands_run_when_they_are_made_small(line, desk, monkeypatch, capfd):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of processes that they start
    words = [SMALLER.get(word, word) for word in shlex.split(line)]
    words = [word for word in words if not word.startswith(("hydra", "eval=", "tracker="))]
    runs = words[0] in ("experiments.run", "experiments.plan") and "--help" not in words
    small = [*TINY, "eval=[audit]"] if runs else []
    ended, words_of_error = status(shlex.join(words), *small), capfd.readouterr().err
    if words[:2] == ["experiments.bench", "latency"] and not torch.cuda.is_available():
        assert ended == 2 and "no CUDA device" in words_of_error, "of all commands this one alone needs a GPU"
    else:
        assert ended == 0, words_of_error


@pytest.mark.parametrize("line", [line for line in listed() if line.startswith("experiments.run ")])
def test_its_runs_compose(line):
    words = shlex.split(line)[1:]
    assert command.jobs(words) or {"--help", "--cfg"} & set(words)


@pytest.mark.parametrize("place", PAGES)
def test_what_it_links_to_is_there(place):
    for target in re.findall(r"\]\((?!http)([^)]*)\)", TEXTS[place]):
        path, _, anchor = target.partition("#")
        file = (PAGES[place].parent / path).resolve() if path else PAGES[place]
        assert file.exists(), target
        heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]


def test_the_settings_page_names_every_group_and_every_option_whose_file_does_not_say_what_it_is():
    files = [path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/**/*.yaml")]
    silent = {f.stem for f in files if not (ROOT / "conf" / f).read_text(encoding="utf-8").startswith("# ")}
    words = set(re.findall(r"`(?:\w+=)?([\w/]+)`", TEXTS["conf"]))
    assert not ({file.parent.as_posix() for file in files} | silent) - words


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", "\n".join(TEXTS.values()), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_rooms_it_draws_are_there():
    for place in ("experiments", "prune"):
        picture = re.search(r"## Rooms\n\n```\n(.*?)```", TEXTS[place], re.DOTALL)[1]
        entries = [path for path in (ROOT / place).iterdir() if not path.name.startswith("_")]
        there = {path.name for path in entries if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert there == set(re.findall(r"\b(\w+(?:\.py|(?=/)))", picture)) - {"tables", "conf"}


def test_the_example_method_is_what_it_says(monkeypatch):
    module = types.ModuleType("prune.metrics.power")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(example("prune", "python", 1), module.__dict__)  # the README's own code
    settings = yaml.safe_load(example("prune", "yaml"))
    assert settings.pop("_target_") == "prune.metrics.power.Power"
    assert settings == {"power": module.Power().power}
    weight, x = random(6, 16), random(40, 16, seed=1) * torch.arange(1, 17)
    for power, same in ((0.0, Magnitude()), (1.0, Wanda())):
        scores = [linear(weight, x, metric, Unstructured()).score() for metric in (module.Power(power), same)]
        torch.testing.assert_close(*scores)
    slices_agree(Method(Unstructured(), module.Power(), Uniform(0.5), Zero()))


def test_the_examples_are_one_file_and_one_yaml_each_and_run(tmp_path):
    for folder in ("conf", "experiments", "prune"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "prune/metrics/power.py").write_text(example("prune", "python", 1))
    (tmp_path / "conf/metric/power.yaml").write_text(example("prune", "yaml"))
    (tmp_path / "experiments/evals/sentence.py").write_text(example("experiments", "python"))
    (tmp_path / "conf/eval/sentence.yaml").write_text(example("experiments", "yaml"))
    (asked,) = re.findall(r"`(metric=power [^`]*)`", TEXTS["prune"])
    line = [sys.executable, "-m", "experiments.run", *asked.split(), *tiny(tmp_path), "eval=[audit,sentence]"]
    told = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."})
    assert told.returncode == 0, told.stderr
    (results,) = tmp_path.glob("outputs/demo/power+sparsegpt-2of4-*/results.json")
    network = AutoModelForCausalLM.from_pretrained(folder := location.located("demo"), dtype=torch.float32)
    words = yaml.safe_load(example("experiments", "yaml"))["sentence"]["sentence"]
    ids = AutoTokenizer.from_pretrained(folder)(words, return_tensors="pt")["input_ids"]
    dense = network(ids, labels=ids).loss.exp().item()
    assert json.loads(results.read_text())["dense"]["ppl/sentence"] == pytest.approx(dense, rel=1e-4)


@pytest.mark.parametrize("model", [location.located("demo"), SHARED / "data/models/stories-260k"], ids=lambda f: f.name)
def test_a_model_of_your_own_is_pruned_on_a_text_of_your_own_and_writes(model, tmp_path, monkeypatch, capfd):
    if not model.is_dir():
        pytest.skip("needs the small real models in ../shared")
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path)
    (line,) = [line for line in every_line() if "/path/to" in line]
    asked = re.sub("/path/to/(train|test).txt", "text.txt", line.replace("/path/to/folder", str(model)))
    assert status(asked, *TINY, "eval.perplexity.length=64") == 0
    folder = capfd.readouterr().out.splitlines()[-1]
    shown = re.search("`(outputs/[^`]*)/model`", TEXTS["."])[1]
    assert Path(shown).name[:-10] == Path(folder).name[:-10], "the name that the README shows"
    text = transformers.pipeline("text-generation", f"{folder}/model")("Once upon a time", max_new_tokens=40)[0][
        "generated_text"
    ]
    assert text.startswith("Once upon a time") and len(text) > 40
    kept = AutoModelForCausalLM.from_pretrained(f"{folder}/model").get_parameter("model.layers.0.mlp.up_proj.weight")
    assert (kept.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all(), "two of four are zero"


def test_a_loaded_model_is_pruned_by_the_call_it_shows_and_writes(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(example(".", "python"), names)
    assert capfd.readouterr().out.startswith("Return the")
    for name, weight in names["model"].named_parameters():
        if "proj" in name:
            assert (weight.unflatten(1, (-1, 4)) == 0).sum(-1).ge(2).all(), name


def test_the_library_example_prunes_a_model(monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    exec(example("prune", "python"), {})
    dense, *blocks, pruned = capfd.readouterr().out.splitlines()
    assert float(pruned.split()[-1]) > float(dense.split()[-1]) > 1 and len(blocks) == 6
