"""The console command: every command under one name, from any folder, and what a shell completes of it."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from experiments import prune_lm
from experiments.composing.completion import completions
from tests.test_readme import tiny

ROOT = Path(__file__).parents[1]
ENTRY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["prune-lm"]


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash in an empty folder, where prune-lm is installed as pip would install it."""
    script = tmp_path / "bin" / "prune-lm"
    script.parent.mkdir()
    module, name = ENTRY.split(":")
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {name}\nsys.exit({name}())\n")
    script.chmod(0o755)
    (here := tmp_path / "here").mkdir()
    where = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return lambda line: subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=here, env=where)


def test_it_is_a_function_of_ours_that_lists_every_command():
    module, name = ENTRY.split(":")
    assert callable(getattr(import_module(module), name))
    commands = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__", "prune_lm", "api"}
    assert set(prune_lm.COMMANDS) == commands
    lines = prune_lm.overview().splitlines()
    assert all(any(line.startswith(f"  {command} ") for line in lines) for command in commands)


@pytest.mark.slow
def test_a_run_from_another_folder_is_written_there(tmp_path, monkeypatch, capsys):
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    for words in (["run", *tiny(tmp_path), "experiment=magnitude", "eval=[audit]"], ["status"]):
        monkeypatch.setattr(sys, "argv", ["prune-lm", *words])
        assert prune_lm.main() == 0
    assert list(here.glob("outputs/demo/magnitude-*/results.json"))
    assert "1 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("prune-lm", 0, "usage: prune-lm COMMAND"),
        ("prune-lm report --help", 0, "usage: prune-lm report"),
        ("prune-lm run --help", 0, "Prune a language model"),
        ("prune-lm rnu", 2, "error: rnu: no such command, did you mean run?"),
        ("prune-lm experiment=wanda", 2, "did you mean prune-lm run experiment=wanda?"),
        ("prune-lm plan sparsty=1", 2, "did you mean sparsity?"),
    ],
)
def test_help_and_mistakes(line, code, words, shell):
    answer = shell(line)
    assert answer.returncode == code and words in answer.stdout + answer.stderr
    assert code == 0 or answer.stderr.count("\n") == 1


def test_help_waits_for_neither_torch_nor_hydra():
    code = "import sys\nfrom experiments.prune_lm import main\nmain()\nassert not {'torch', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("exp", ["experiment="]),
        ("experiment=ow", ["experiment=owl"]),
        ("-m experiment=magnitude,ow", ["experiment=magnitude,owl"]),
        ("eval=[perplexity,zer", ["eval=[perplexity,zeroshot"]),
        ("experiment=sparsegpt update.d", ["update.damping="]),
        ("experiment=sparsegpt upda", ["update.", "update="]),
        ("eval=[zeroshot] eval.zeroshot.li", ["eval.zeroshot.limit="]),
        ("save_model=", ["save_model=false", "save_model=packed", "save_model=true"]),
        ("sparsity=", ["sparsity=0.5"]),
        ("model=dem", ["model=demo"]),
        ("model={here}/a", ["model={here}/a b", "model={here}/above/"]),
        ("data=textfile data.path={here}/above/", ["data.path={here}/above/c.txt"]),
        ("data={here}/above/c.txt data.fi", ["data.field="]),
        ("experiment=nonsense upd", []),
        ("--cfg", ["--cfg"]),
    ],
)
def test_options_settings_values_and_paths_are_completed(words, found, tmp_path):
    (tmp_path / "above").mkdir()
    (tmp_path / "a b").touch()
    (tmp_path / "above" / "c.txt").touch()
    here = lambda text: text.format(here=tmp_path)
    assert completions([here(word) for word in words.split()]) == list(map(here, found))


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "replies"),
    [
        ("prune-lm st", "status"),
        ("prune-lm run experiment = ow", "owl"),
        ("prune-lm run save_model =", "false packed true"),
        ("prune-lm table besa_z", "besa_zeroshot"),
        ("prune-lm report ou", ""),
    ],
)
def test_bash_completes_with_what_it_takes_for_the_word(words, replies, shell):
    line = words.replace(" = ", "=").replace(" =", "=")
    last = len(words.split()) - 1
    setting = f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({words}) COMP_CWORD={last}"
    answer = shell(f'eval "$(prune-lm completion)"; {setting}; _prune_lm; echo "${{COMPREPLY[*]}}"')
    assert answer.stdout.split() == replies.split(), answer.stderr
