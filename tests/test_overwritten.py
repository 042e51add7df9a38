"""A file overwritten while a run reads it, whenever: the run says so in a line, and keeps nothing it made of it."""

import json
import re
from pathlib import Path

import pytest

from experiments.data import files
from experiments.files import disk
from tests.answers import answer, place, write
from tests.faults import ask, settings
from tests.test_contents import weights

TEXT = "the cat sat on a mat. " * 60


@pytest.fixture(scope="module")
def overwritten_model(tmp_path_factory):
    """The numbers of a run on the weights that a checkpoint is overwritten with."""
    here = place(tmp_path_factory.mktemp("model"))
    weights(here / "model", 3)
    return answer("experiment=magnitude", here)[0]["metrics"]


@pytest.mark.parametrize("moment", ["dense", "prune", "pruned"])
def test_a_checkpoint_overwritten_while_a_run_reads_it_is_told_in_one_line_and_nothing_of_it_is_kept(
    tmp_path, monkeypatch, moment, overwritten_model
):
    from experiments.running import pipeline  # noqa: PLC0415 - torch

    here = place(tmp_path)
    owner, name = (pipeline, "tabulate_block") if moment == "prune" else (pipeline.Pipeline, "measure")
    real, calls = getattr(owner, name), []

    def overwritten(*arguments):
        found = real(*arguments)
        calls.append(arguments[-1])
        if len(calls) == (2 if moment == "pruned" else 1):
            weights(here / "model", 3)
        return found

    monkeypatch.setattr(owner, name, overwritten)
    found = ask(*settings("experiment=magnitude", here))
    lines = [line for line in found.err.splitlines() if line.startswith("failed: ")]
    assert found.code == 1 and len(lines) == 1 and "model.path" in lines[0] and "while" in lines[0], found.err
    (folder,) = (here / "out" / "model").glob("*")
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"
    kept = [path.name for path in folder.iterdir()]
    assert not {"masks", "blocks", "steps", "results.json"} & set(kept), kept
    assert len(list((here / "out" / "cache" / "dense").glob("*.json"))) == (moment != "dense")
    monkeypatch.undo()
    assert answer("experiment=magnitude", here)[0]["metrics"] == overwritten_model


def texts(here):
    """Two texts in a folder, and the words of a run that calibrates on one and is evaluated on the other."""
    for name in ("calib.txt", "test.txt"):
        write(here / name, TEXT)
    words = f"experiment=wanda data=textfile data.path={here}/calib.txt data.sequences=2 data.length=16"
    return words + f" eval=[perplexity] eval.perplexity.length=16 eval.perplexity.path={here}/test.txt"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The numbers of that run where nobody overwrites a text."""
    here = place(tmp_path_factory.mktemp("texts"))
    return answer(texts(here), here)[0]["metrics"]


@pytest.mark.parametrize("moment", ["while it waits", "while it reads"])
@pytest.mark.parametrize("text", ["calib.txt", "test.txt"])
def test_a_text_overwritten_between_its_hash_and_its_tokens_is_told_and_nothing_of_it_is_kept(
    tmp_path, monkeypatch, text, moment, undisturbed
):
    here = place(tmp_path)
    words = texts(here)
    owner, name = {"while it waits": (disk, "locked"), "while it reads": (files, "read")}[moment]
    real = getattr(owner, name)

    def overwritten(*arguments, **named):
        if re.search(f"/{Path(text).stem}[.-]", f"{arguments}{named}"):
            write(here / text, "a dog barks at 7 trees! " * 60)
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, overwritten)
    found = ask(*settings(f"{words} outputs={here}/out", here))
    lines = [line for line in found.err.splitlines() if line.startswith("failed: ")]
    assert found.code == 1 and len(lines) == 1 and "changed while" in lines[0], found.err
    monkeypatch.undo()
    write(here / text, TEXT)
    assert answer(words, here)[0]["metrics"] == undisturbed
