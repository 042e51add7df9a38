"""A finished run says what it vouches for, and `verify RUN` finds each thing that is another now, by its name."""

import json
import shutil

import pytest

from experiments import verify
from experiments.files import disk
from experiments.runs import provenance, sources
from tests.answers import answer, place, run, write

LINES = ("run", "model", "data", "code", "versions", "settings", "results", "ppl/test@16", "masks", "saved model")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose text is a file, with its model kept, and what its command said."""
    here = place(tmp_path_factory.mktemp("run"))
    write(here / "test.txt", "the cat sat on the mat. " * 60)
    write(here / "calib.txt", "a dog barks at 7 trees! " * 60)
    words = f"experiment=wanda save_model=true data=textfile data.path={here}/calib.txt data.sequences=2 data.length=16"
    words += f" eval=[perplexity] eval.perplexity.length=16 eval.perplexity.path={here}/test.txt"
    _, said = answer(words, here)
    return here, run(said), said, words


def ask(folder, capsys):
    code = verify.main([str(folder)])
    return code, capsys.readouterr().out


def test_a_finished_run_says_at_its_head_what_it_vouches_for(finished):
    here, folder, said, words = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    head = next(line for line in said.splitlines() if line.startswith("made of "))
    assert f"model {manifest['model_content'][:12]}" in head and manifest["data"]["sha256"][:12] in head
    assert f"torch {manifest['content']['libraries']['torch']}" in head and "code " in head
    assert "  ppl/test@16: windows " in said
    again = answer(words, here)[1]
    assert "nothing to compute" in again and head in again


def test_verify_checks_all_of_it(finished, capsys):
    code, out = ask(finished[1], capsys)
    lines = {line.name: line for line in provenance.check(finished[1])}
    assert set(LINES) <= set(lines) and not any(line.wrong for line in lines.values())
    assert code == 0 and "holds: all" in out and all(name in out for name in LINES)


def test_a_promise_is_held_to_the_model_of_a_run_and_refused_where_it_saved_none(finished, tmp_path, capsys):
    folder = finished[1]
    assert verify.main([str(folder), "--sparsity", "0.6"]) == 1 and "first its weights" in capsys.readouterr().out
    assert verify.main([str(folder), "--sparsity", "0.5"]) == 0
    bare = shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("model"))
    assert verify.main([str(bare), "--sparsity", "0.6"]) == 2
    assert "saved no model to hold to a promise" in capsys.readouterr().err


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


EDITS = {
    "model": lambda here, folder: edit(
        here / "model" / "config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'
    ),
    "data": lambda here, folder: edit(here / "calib.txt", "dog", "cat"),
    "ppl/test@16": lambda here, folder: edit(here / "test.txt", "cat", "dog"),
    "results": lambda here, folder: edit(folder / "results.json", '"ppl/test@16": ', '"ppl/test@16": 1'),
    "run": lambda here, folder: edit(folder / "manifest.json", '"granularity": "block"', '"granularity": "submodule"'),
    "masks": lambda here, folder: next(iter((folder / "masks").iterdir())).write_bytes(b"cut"),
    "saved model": lambda here, folder: edit(folder / "model" / "config.json", "true", "false"),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_thing_that_is_another_now_is_named(finished, tmp_path, capsys, name):
    here, folder = tmp_path / "here", tmp_path / "here" / finished[1].relative_to(finished[0])
    shutil.copytree(finished[0], here)
    assert "/test.txt" in (folder / "results.json").read_text()
    for file in (folder / "manifest.json", folder / "results.json"):
        disk.seal(file, json.loads(json.dumps(disk.sealed(file)).replace(str(finished[0]), str(here))))
    assert not [line for line in provenance.check(folder) if line.wrong]
    EDITS[name](here, folder)
    code, out = ask(folder, capsys)
    wrong = [line.name for line in provenance.check(folder) if line.wrong]
    assert code == 1 and name in wrong and f"first {wrong[0]}" in out.splitlines()[-1]
    assert wrong == [name] or name in ("run", "saved model", "results")


def test_other_code_and_other_versions_are_named(finished, monkeypatch):
    read = sources.read

    def other(name):
        found = read(name)
        return sources.Source("0" * 64, found.imports) if name == "prune.metrics.wanda" else found

    monkeypatch.setattr(sources, "read", other)
    wrong = {line.name: line.wrong for line in provenance.check(finished[1]) if line.wrong}
    assert wrong == {"code": "prune.metrics.wanda"}


def test_what_has_changed_is_told_in_words():
    content = {
        "metric": {"code": "1"},
        "model": {"path": "a", "trust_remote_code": False},
        "libraries": {"torch": "2.13"},
    }
    before = {"content": content, "sources": {"mine": "1", "same": "2"}}
    now = json.loads(json.dumps(before))
    assert provenance.since(before, now) == []
    now["content"]["metric"]["code"], now["sources"]["mine"] = "2", "2"
    assert provenance.since(before, now) == ["the code has changed since (mine)"]
    now["content"]["model"]["trust_remote_code"] = True
    assert "model.trust_remote_code was False, now True" in provenance.since(before, now)
    assert provenance.since({}, now) == ["it does not tell which code made it"]


def test_a_run_of_an_earlier_version_is_read_and_not_vouched_for(finished, tmp_path, capsys):
    shutil.copytree(finished[1], tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "content"}))
    assert verify.main([str(tmp_path / "old")]) == 2
    assert "an earlier version wrote it" in capsys.readouterr().err
    assert provenance.vouched_for({}, {}) == []


def test_a_version_bears_the_name_of_the_package_whose_it_is():
    content = {"model": {"path": "a" * 20}, "data": {"_target_": "Stdlib", "version": "3.11.7"}}
    manifest = {"content": content | {"libraries": {"torch": "2.13.0"}}, "sources": {}}
    told = {
        line.name: line.value for line in provenance.vouched_for(manifest, {"metrics": {}, "protocol": {}, "step": {}})
    }
    assert told["versions"] == "python 3.11.7, torch 2.13.0"
