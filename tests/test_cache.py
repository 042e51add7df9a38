"""What runs of one folder share is computed once, noticed when it is damaged, listed, and cleaned."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from experiments import cache
from experiments.composing import command
from experiments.console.text import size as readable
from experiments.data.files import TextFile
from experiments.files.disk import locked, write_json
from experiments.models import location
from experiments.running import pipeline
from experiments.running.pipeline import Pipeline
from prune.statistics.gradient import LossGradient
from prune.statistics.trace import HessianTrace
from tests.tiny import network

ROOT = Path(__file__).parents[1]
WORDS = "Once there was a cat, and the cat had a hat. The hat was red; the cat was not, but it could have been. "


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny random model with the demo's tokenizer, and a text."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = AutoTokenizer.from_pretrained(location.located("demo"))
    network("llama", vocab_size=len(tokenizer)).model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "text.txt").write_text("".join(f"{number}. {WORDS}" for number in range(60)))
    return folder


def jobs(small, outputs, *overrides):
    text = [f"data.path={small}/text.txt", "data.sequences=6", "data.length=32", "eval=[perplexity]"]
    path = [f"eval.perplexity.path={small}/text.txt", "tracker=[]", "device=cpu", f"outputs={outputs}"]
    return command.jobs(["-m", "model=local", f"model.path={small}/model", "data=textfile", *text, *path, *overrides])


SHORT = [["metric=gblm", "sparsity=0.3,0.6"], ["metric=gblm", "pattern=2of4"]]
SHORT += [["metric=isc", "allocator=sensitivity", "sparsity=0.3,0.6"]]
METRICS = "metric=wanda,gblm,isc"
FULL = [[METRICS, "sparsity=0.3,0.5,0.6,0.7"], [METRICS, "pattern=2of4"]]
FULL += [[METRICS, "allocator=sensitivity", "sparsity=0.3,0.5,0.6,0.7"]]


@pytest.mark.parametrize("grids", [SHORT, pytest.param(FULL, marks=pytest.mark.slow)], ids=["short", "full"])
def test_a_sweep_finds_gradients_traces_tokens_and_dense_numbers_once(small, tmp_path, monkeypatch, grids):
    calls = Counter()
    watched = [(LossGradient, "of"), (HessianTrace, "of"), (TextFile, "calibration"), (TextFile, "evaluation")]
    for owner, name in watched:
        whole, name_of = getattr(owner, name), f"{owner.__name__}.{name}"
        note = lambda *a, whole=whole, name_of=name_of: calls.update([name_of]) or whole(*a)
        monkeypatch.setattr(owner, name, note)
    evaluate = Pipeline.evaluate
    monkeypatch.setattr(Pipeline, "evaluate", lambda *a: calls.update([a[-1]]) or evaluate(*a))
    asked = [each for grid in grids for each in jobs(small, tmp_path, *grid)]
    for each in asked:
        pipeline.run(each.run)
    assert len(asked) == (5 if grids is SHORT else 27)
    once = ["dense perplexity", *(f"{owner.__name__}.{name}" for owner, name in watched)]
    assert calls == {"perplexity": len(asked), **dict.fromkeys(once, 1)}


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """A folder with a finished run that keeps its blocks, and all that it left in the cache."""
    asked = jobs(small, tmp_path_factory.mktemp("outputs"), "metric=gblm", "sparsity=0.5")[0]
    pipeline.run(asked.run, keep=True)
    return Path(asked.config["outputs"])


@pytest.fixture
def outputs(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "outputs")


def listed(capsys, *arguments):
    assert cache.main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def entry_names(outputs):
    return sorted(path.name for path in (outputs / "cache" / "tokens").glob("*.safetensors"))


def tree(folder):
    return {path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock")}


def test_the_list_says_what_is_kept_and_how_much(outputs, capsys):
    text = listed(capsys, outputs)
    rows = {line.split()[0]: line for line in text.splitlines()[2:6] if line}
    assert "calibration, 6 windows of 32" in text and "model, ppl/text@32" not in text
    assert "LossGradient(order=1, target='label')" in rows["surveys"] and "ppl/text@64" in rows["dense"]
    kinds = Counter(line.split()[0] for line in text.splitlines()[2:] if "cache/" in line)
    assert kinds == {"tokens": 2, "dense": 1, "surveys": 1}
    size = sum(path.stat().st_size for path in tree(outputs / "cache") if not path.name.startswith("."))
    assert f"in all: 4 entries, {readable(size)}" in text


def test_cleaning_takes_what_was_asked_for_and_never_a_run(outputs, capsys):
    run = next(outputs.glob("*/*/manifest.json")).parent
    before = tree(run)
    assert "removed 1 of 1 entries" in listed(capsys, outputs, "--clean", "dense")
    assert not list(outputs.glob("cache/dense/*.json")) and len(entry_names(outputs)) == 2
    old = outputs / "cache" / "tokens" / entry_names(outputs)[0]
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    assert "removed 1 of 1 entries" in listed(capsys, outputs, "--clean", "--older", "2")
    assert not old.exists() and len(entry_names(outputs)) == 1
    assert "removed 2 of 2 entries" in listed(capsys, outputs, "--clean")
    assert not list(outputs.glob("cache/*/[!.]*/[!.]*")) and tree(run) == before
    assert "nothing" in listed(capsys, outputs)


def test_damaged_and_unfinished_entries_are_marked_and_can_be_removed_alone(outputs, capsys):
    assert "nothing of that kind" in listed(capsys, outputs, "--broken")
    short, altered = (outputs / "cache" / "tokens" / name for name in entry_names(outputs))
    short.write_bytes(short.read_bytes()[:-4])
    content = altered.read_bytes()
    altered.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    next(outputs.glob("cache/surveys/*/complete.json")).unlink()
    dense = next(outputs.glob("cache/dense/*.json"))
    dense.write_text(dense.read_text().replace("ppl", "PPL"))
    rows = {line.split()[1]: line for line in listed(capsys, outputs).splitlines() if "cache/" in line}
    assert [row.endswith(("unfinished", "written")) for row in rows.values()].count(True) == 2
    assert "SafetensorError" in rows[f"cache/tokens/{short.name}"].rpartition("  ")[2]
    assert "removed 4 of 4 entries" in listed(capsys, outputs, "--clean", "--broken")
    assert "nothing of that kind" in listed(capsys, outputs, "--broken")


def test_what_is_in_use_is_left_and_said(outputs, capsys):
    file = outputs / "cache" / "tokens" / entry_names(outputs)[0]
    with locked(file.with_name(f".{file.name}.lock"), wait=False, what="tokens"):
        text = listed(capsys, outputs, "--clean", "tokens")
    assert f"left: {file} is in use by process {os.getpid()}" in text and "removed 1 of 2" in text
    with locked(next(outputs.glob("*/*/manifest.json")).with_name(".lock"), wait=False, what="a run"):
        text = listed(capsys, outputs, "--clean", "surveys")
        assert "may be read by" in text and "removed 0 of 1" in text


WRITER = "import sys, time; from pathlib import Path; from experiments.files.disk import *\nfile = Path(sys.argv[1])\n"
WRITER += "with locked(file.with_name('.a.json.lock'), False, 'a'), replacing(file) as part:\n"
WRITER += "    part.write_text('half'); print('begun', flush=True); time.sleep(60)\n"


def test_what_a_killed_process_was_writing_is_found_and_removed(tmp_path, capsys):
    (tmp_path / "cache" / "dense").mkdir(parents=True)
    asked = [sys.executable, "-c", WRITER, str(tmp_path / "cache" / "dense" / "a.json")]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, cwd=ROOT, text=True) as writer:
        assert writer.stdout.readline() == "begun\n"
        assert f"in use by process {writer.pid}" in listed(capsys, tmp_path, "--clean")
        assert list(tmp_path.rglob("*.part"))
        writer.send_signal(signal.SIGKILL)
    assert "half-written" in listed(capsys, tmp_path)
    assert "removed 1 of 1" in listed(capsys, tmp_path, "--clean")
    assert not list(tmp_path.rglob("*.part"))


def test_a_mistake_in_the_command_line_is_one_line(tmp_path, capsys):
    assert cache.main([str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
    write_json(tmp_path / "cache" / "dense" / "x.json", [1, 2])
    assert "not as it was written" in listed(capsys, tmp_path)
