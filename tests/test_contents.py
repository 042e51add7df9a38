"""Files count with what they hold: whatever is overwritten, moved, linked or typed otherwise, numbers are their own."""

import json
import os
import shutil
from dataclasses import replace
from functools import cache

import pytest
from safetensors.torch import load_file, save_file

from experiments.composing import command
from experiments.evals.perplexity import Perplexity
from experiments.files import disk
from experiments.runs import identity, machine, sources
from experiments.runs.record import load
from tests.answers import answer, place, run, write
from tests.faults import workplace as made


@cache
def config(path, *more):
    """The configuration of a run on this model."""
    return command.jobs(["model=local", f"model.path={path}", "experiment=magnitude", *map(str, more)])[0].config


def who(path, *more):
    return identity.identity(config(path, *more))


@pytest.fixture
def model(tmp_path):
    shutil.copytree(made() / "model", tmp_path / "model")
    return tmp_path / "model"


def weights(model, factor):
    """Overwrites the weights in place: the same file, the same size."""
    file = model / "model.safetensors"
    tensors = {name: tensor * factor for name, tensor in load_file(file).items()}
    save_file(tensors, model / "new", metadata={"format": "pt"})
    with file.open("rb+") as opened:
        opened.write((model / "new").read_bytes())
    (model / "new").unlink()


READ = [
    "config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "adapter_config.json",
    "adapter_model.safetensors",
    "modeling_own.py",
    "anything.tiktoken",
]
UNREAD = ["README.md", "pytorch_model.bin", "model.gguf", "optimizer.pt", ".gitattributes", "pruning_manifest.json"]


def test_every_file_that_loading_could_read_counts_and_no_other(model):
    plain = who(model)
    for name in (*READ, *UNREAD):
        file, before = model / name, None
        if file.exists():
            before = file.read_bytes()
        file.write_bytes((before or b"") + b" ")
        assert (who(model) == plain) == (name in UNREAD), name
        file.unlink() if before is None else file.write_bytes(before)
    assert who(model) == plain


def test_a_sub_folder_counts_where_the_index_names_it_and_hides_nothing_else(model):
    plain = who(model)
    write(model / "tokenizer" / "tokenizer.json", "{}")
    write(model / "checkpoint-500" / "config.json", "{}")
    assert who(model) == plain
    write(model / "model.safetensors.index.json", json.dumps({"weight_map": {"a": "shards/one.safetensors"}}))
    write(model / "shards" / "one.safetensors", "1")
    first = who(model)
    write(model / "shards" / "one.safetensors", "2")
    assert len({plain, first, who(model)}) == 3


def test_a_model_is_the_same_under_another_path_a_link_and_after_a_move(model, tmp_path):
    plain = who(model)
    (tmp_path / "link").symlink_to(model)
    shutil.copytree(model, tmp_path / "copy")
    others = [tmp_path / "link", tmp_path / "copy", f"{model}/", f"{model}/.", model / ".." / "model"]
    assert {who(path) for path in others} == {plain}
    weights(tmp_path / "copy", 2)
    assert who(tmp_path / "copy") != plain


def test_a_model_with_a_file_that_may_not_be_read_has_no_name(model, monkeypatch):
    read = disk.hashed
    refuse = lambda file: read(file) if file.name != "odd.json" else (_ for _ in ()).throw(PermissionError("no"))
    write(model / "odd.json", "{}")
    monkeypatch.setattr(disk, "hashed", refuse)
    with pytest.raises(PermissionError):
        identity.model(config(model))


@pytest.mark.parametrize("whole", [0, 2**30])
def test_a_large_file_replaced_with_the_same_size_and_time_is_another_and_is_read_once(
    model, tmp_path, monkeypatch, whole
):
    monkeypatch.setattr(disk, "WHOLE", whole)
    monkeypatch.setattr(disk, "FRESH", -60.0)  # as if every file were old
    out, file, reads = tmp_path / "out", model / "model.safetensors", []
    read = disk.hashed
    monkeypatch.setattr(disk, "hashed", lambda file: reads.append(file.name) or read(file))
    names = []
    for step in range(4):
        if step == 2:
            before = file.stat()
            weights(model, 2)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        disk.known.clear()  # as a new process
        names.append(who(model, f"outputs={out}"))
    assert names[0] == names[1] != names[2] == names[3]
    assert reads.count("model.safetensors") == (4 if whole else 2)


def test_a_file_written_a_moment_ago_is_read_again(tmp_path):
    file = write(tmp_path / "a.txt", "one")
    first = disk.digest(file)
    file.write_text("two")  # maybe in the same tick of the clock
    assert disk.digest(file) != first


def test_the_same_bytes_are_one_text_as_txt_and_others_as_jsonl(model, tmp_path):
    line = '{"text": "' + "the cat sat. " * 200 + '"}'
    paths = [write(tmp_path / name, line) for name in ("a.txt", "b.txt", "a.jsonl")]
    found = [who(model, "data=textfile", f"data.path={path}") for path in paths]
    assert found[0] == found[1] != found[2]


def test_one_model_under_two_names_is_one_run(model, tmp_path):
    (tmp_path / "link").symlink_to(model)
    shutil.copytree(model, tmp_path / "twin")
    shutil.copy(made() / "tokens.safetensors", tmp_path)
    first = answer(f"experiment=magnitude model.path={model}", tmp_path)[1]
    for other in ("link", "twin"):
        said = answer(f"experiment=magnitude model.path={tmp_path / other}", tmp_path)[1]
        assert "nothing to compute" in said and run(said) == run(first)


def test_a_checkpoint_overwritten_between_two_runs_gives_its_own_numbers(tmp_path):
    here = place(tmp_path)
    first, _ = answer("experiment=magnitude", here)
    weights(here / "model", 3)
    second, said = answer("experiment=magnitude", here)
    assert second["metrics"] == answer("experiment=magnitude", here, "fresh")[0]["metrics"] != first["metrics"]
    assert second["dense"] != first["dense"] and "model.path was" in said and "computed anew" in said


def test_a_saved_model_edited_beside_its_weights_is_made_again(tmp_path):
    here = place(tmp_path)
    words = "experiment=magnitude save_model=true"
    first, said = answer(words, here)
    saved = run(said) / "model" / "config.json"
    before = saved.read_text()
    saved.write_text(before.replace('"rms_norm_eps": ', '"rms_norm_eps": 1'))
    assert saved.read_text() != before
    second, said = answer(words, here)
    assert "config.json is not as it was written" in said and saved.read_text() == before
    assert second["metrics"] == first["metrics"] and "nothing to compute" in answer(words, here)[1]


def test_an_evaluation_that_was_edited_and_is_as_it_was_again_tells_its_first_number(tmp_path, monkeypatch):
    here, read, measure = place(tmp_path), sources.read, Perplexity.__call__
    first, _ = answer("experiment=magnitude", here)

    def other(name):
        found = read(name)
        return replace(found, digest="0" * 64) if name == Perplexity.__module__ else found

    def doubled(evaluator, network):
        found = measure(evaluator, network)
        return found | {"metrics": {key: 2 * value for key, value in found["metrics"].items()}}

    with monkeypatch.context() as edit:
        edit.setattr(sources, "read", other)
        edit.setattr(Perplexity, "__call__", doubled)
        second, _ = answer("experiment=magnitude", here)
    again, said = answer("experiment=magnitude", here)
    assert second["metrics"]["ppl/tokens@32"] == 2 * first["metrics"]["ppl/tokens@32"]
    assert again["metrics"] == first["metrics"] and again["dense"] == first["dense"]
    assert load(run(said)).results["metrics"] == first["metrics"]


def test_an_environment_that_changes_precision_is_another_run_and_one_that_changes_sums_is_noted(model, monkeypatch):
    plain = who(model)
    for name in identity.PRECISION:
        monkeypatch.setenv(name, "1")
        assert who(model) != plain, name
        monkeypatch.delenv(name)
    for name in machine.SUMS:
        monkeypatch.setenv(name, "3")
        assert who(model) == plain and machine.sums()[name] == "3"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_CBWR"])
def test_what_changes_the_order_of_sums_is_in_the_manifest_and_the_same_command_tells_what_it_is_now(
    tmp_path, monkeypatch, name
):
    here = place(tmp_path)
    monkeypatch.setenv(name, "1")
    first, said = answer("experiment=magnitude", here)
    told = json.loads((run(said) / "manifest.json").read_text())
    assert told["environment"][name] == told["pruned"]["environment"][name] == "1" and "computed with" not in said
    for now in ("2", None):
        monkeypatch.setenv(name, now) if now else monkeypatch.delenv(name)
        again, said = answer("experiment=magnitude", here)
        assert again == first and f"computed with {name} 1, now {now}; remove" in said
