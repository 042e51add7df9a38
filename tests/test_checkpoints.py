"""Damaged and odd checkpoints, one by one: what verify says of each, and what loading it for a run says."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.models import location
from experiments.models.load import load
from tests.checkpoints import EMBED, HEAD, Q, answer, configure, edit, shard, write_index
from tests.tiny import network

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
K = Q.replace("q_proj", "k_proj")
FINE = None  # loads as it is


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "dense"
    network().model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a sound one to spoil: a Llama, untied, in one file, without a tokenizer."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def write(name, content):
    """Puts this content in place of a file."""
    return lambda folder: (folder / name).write_bytes(content)


def change(function):
    """Changes the stored tensors."""
    return lambda folder: edit(folder, function)


def setting(**changes):
    """Changes the configuration."""
    return lambda folder: configure(folder, **changes)


def cut(name, size):
    """Leaves the first bytes of a file: a copy that broke off."""
    return lambda folder: os.truncate(folder / name, size)


def both(*steps):
    """One after another."""
    return lambda folder: [step(folder) for step in steps]


def indexed(content):
    """One shard, and this for its index."""

    def spoil(folder):
        shard(folder)
        (folder / INDEX).write_text(json.dumps(content))

    return spoil


def shard_lost(folder):
    shard(folder, [Q], [EMBED])
    (folder / "model-1.safetensors").unlink()


def shard_cut(folder):
    shard(folder, [Q], [EMBED])
    os.truncate(folder / "model-2.safetensors", 20000)


def shard_without_tensor(folder):
    places = shard(folder, [Q, K], [EMBED])
    shutil.move(folder / "model-0.safetensors", folder / SINGLE)
    edit(folder, lambda tensors: tensors.pop(Q))
    shutil.move(folder / SINGLE, folder / "model-0.safetensors")
    write_index(folder, places)


def pickled(folder):
    torch.save(load_file(folder / SINGLE), folder / "pytorch_model.bin")
    (folder / SINGLE).unlink()


def tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(location.located("demo") / name, folder / name)


def compressed(tensors):
    tensors.pop(Q)
    parts = ("compressed", "bitmask", "shape", "row_offsets")
    tensors.update({Q.removesuffix("weight") + part: torch.ones(3, dtype=torch.int64) for part in parts})


def fill(name, value):
    """One value of a tensor."""
    return change(lambda tensors: tensors[name].view(-1)[0].fill_(value))


QUANTIZED = {"quantization_config": {"quant_method": "compressed-tensors", "format": "sparse-24-bitmask"}}
HUGE = (2**62).to_bytes(8, "little")
# what was done -> (how, exit code of verify, words in what it says, words of the refusal to load; None: it loads)
CASES = {
    "sound": (lambda folder: None, 0, "holds", FINE),
    "an empty folder": (lambda folder: [file.unlink() for file in folder.iterdir()], 2, "no config.json", "no config"),
    "the folder is gone": (shutil.rmtree, 2, "no such folder", "no such folder"),
    "a file instead of a folder": (lambda f: (shutil.rmtree(f), f.write_text("")), 2, "no such folder", "no such"),
    "no weights": (lambda folder: (folder / SINGLE).unlink(), 2, "expected model.safetensors", "expected model.saf"),
    "config.json is empty": (write("config.json", b""), 2, "broken config.json", "broken config.json"),
    "config.json breaks off": (cut("config.json", 100), 2, "broken config.json", "broken config.json"),
    "config.json is no object": (write("config.json", b"[]"), 2, "config.json", "config.json"),
    "config.json is nested too deep": (write("config.json", b"[" * 100000), 2, "broken config.json", "broken config"),
    "config.json is not UTF-8": (write("config.json", b'{"a": "\xff"}'), 2, "broken config.json", "broken config"),
    "config.json without a type": (write("config.json", b"{}"), 2, "model_type", "model_type"),
    "a type that is not known": (setting(model_type="not-a-model"), 2, "not-a-model", "not-a-model"),
    "an encoder": (setting(model_type="bert", architectures=None), 1, "missing", "missing"),
    "an encoder and decoder": (setting(model_type="t5"), 2, "T5Config", "T5Config"),
    "a word for a size": (setting(hidden_size="large"), 2, "hidden_size", "hidden_size"),
    "no heads": (setting(num_attention_heads=0), 2, "ZeroDivisionError", "ZeroDivisionError"),
    "another width": (setting(intermediate_size=48), 1, "of another shape", "of another shape"),
    "another vocabulary": (setting(vocab_size=100), 1, f"of another shape: {HEAD}", HEAD),
    "a block too many": (setting(num_hidden_layers=4), 1, "9 tensors missing", "9 tensors missing"),
    "blocks without end": (setting(num_hidden_layers=2**40), 2, "asks for 1099511627776 blocks", "1099511627776"),
    "a block too few": (setting(num_hidden_layers=2), 1, "9 tensors unexpected", "9 tensors unexpected"),
    "weights of no bytes": (write(SINGLE, b""), 2, f"{SINGLE}: not a whole safetensors", "header"),
    "weights break off": (cut(SINGLE, 30000), 2, f"{SINGLE}: not a whole safetensors file", "incomplete"),
    "weights break off in their header": (cut(SINGLE, 100), 2, f"{SINGLE}: not a whole safetensors file", "header"),
    "a header longer than the file": (write(SINGLE, HUGE), 2, f"{SINGLE}: not a whole safetensors file", "header"),
    "a header that is no JSON": (write(SINGLE, b"\4" + bytes(7) + b"abcd"), 2, "not a whole safetensors", "header"),
    "a text named safetensors": (write(SINGLE, b"<html>404 Not Found</html>"), 2, "not a whole safetensors", "header"),
    "a Git LFS pointer": (write(SINGLE, b"version https://git-lfs.github.com/spec/v1\n"), 2, "not a whole", "header"),
    "a shard is gone": (shard_lost, 2, "expected model-1.safetensors", "expected model-1.safetensors"),
    "a shard breaks off": (shard_cut, 2, "model-2.safetensors: not a whole", "incomplete"),
    "a shard without one of its tensors": (shard_without_tensor, 1, f"random: {Q}", f"random: {Q}"),
    "an index of nothing": (indexed({}), 2, "broken", "broken"),
    "an index that is a list": (indexed([]), 2, "broken", "broken"),
    "an index without a map": (indexed({"weight_map": ["a"]}), 2, "broken", "broken"),
    "an index that is empty": (indexed({"weight_map": {}}), 2, "expected model.safetensors", "model.safetensors"),
    "an index that breaks off": (both(indexed({}), cut(INDEX, 1)), 2, f"broken {INDEX}", "broken"),
    "a tensor is missing": (
        change(lambda tensors: tensors.pop(Q)),
        1,
        f"would be random: {Q}",
        f"would be random: {Q}",
    ),
    "a norm is missing": (change(lambda t: t.pop("model.norm.weight")), 1, "model.norm.weight", "model.norm.weight"),
    "a tensor too many": (change(lambda t: t.update(more=torch.ones(2))), 1, "unexpected: more", "unexpected: more"),
    "a tensor of another shape": (change(lambda t: t.update({Q: torch.ones(4, 4)})), 1, f"shape: {Q}", f"shape: {Q}"),
    "a tensor of whole numbers": (change(lambda t: t.update({Q: t[Q].long()})), 1, f"whole numbers: {Q}", "whole"),
    "a tensor of no axes": (change(lambda t: t.update({Q: torch.tensor(1.0)})), 1, f"shape: {Q}", f"shape: {Q}"),
    "half of it in another precision": (change(lambda t: t.update({Q: t[Q].half()})), 0, "holds", FINE),
    "NaN in a matrix": (fill(Q, float("nan")), 1, f"{Q}: 1 NaN or infinite", FINE),  # pruning it says so
    "infinity in a norm": (fill("model.norm.weight", float("inf")), 1, "model.norm.weight: 1 NaN or infinite", FINE),
    "a tokenizer larger than the embedding": (tokenizer, 0, "holds", "1952 of the tokenizer's ids, up to 2047"),
    "a tokenizer that breaks off": (both(tokenizer, cut("tokenizer.json", 999)), 0, "holds", "model.path="),
    "pickled weights alone": (pickled, 2, "pytorch_model.bin, which is pickled", "pytorch_model.bin, which is pickled"),
    "pickled weights too": (write("pytorch_model.bin", b"?"), 0, "holds", FINE),
    "2:4 compressed": (change(compressed), 2, "dequantise it first", "dequantise it first"),
    "2:4 compressed, and said": (both(change(compressed), setting(**QUANTIZED)), 2, "(compressed-tensors)", "compress"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_spoiled_checkpoint_gets_one_line_and_its_exit_code(folder, capsys, name):
    spoil, code, words, _ = CASES[name]
    spoil(folder)
    start = time.process_time()
    told = answer(folder, capsys, code=code)
    assert words in told, told
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", CASES)
def test_a_spoiled_checkpoint_is_refused_in_one_line_when_it_is_loaded(folder, name):
    spoil, _, _, words = CASES[name]
    spoil(folder)
    start = time.process_time()
    try:
        load(str(folder), None, "auto", False, None, 4, "cpu")
        said = FINE
    except (ValueError, OSError) as error:
        said = str(error)
    assert time.process_time() - start < 5
    assert said is FINE if words is FINE else said and "\n" not in said and words in said, said


@pytest.mark.parametrize("locked", ["", SINGLE, "config.json"])
def test_what_may_not_be_read_is_said_in_one_line(folder, capsys, locked):
    me = os.geteuid()
    for place in (folder.parent, *folder.parent.parents[:3]):
        if place.stat().st_uid == me and place != Path("/"):
            place.chmod(0o755)
    (folder / locked).chmod(0)
    if me == 0:
        os.seteuid(65534)  # root may read everything
    try:
        told = answer(folder, capsys, code=2)
        with pytest.raises((ValueError, OSError)) as refused:
            load(str(folder), None, "auto", False, None, 4, "cpu")
    finally:
        os.seteuid(me)
        (folder / locked).chmod(0o755)
    assert "Permission denied" in told and str(folder / locked) in told
    assert "\n" not in str(refused.value) and str(folder / locked) in str(refused.value)


def test_checkpoints_of_the_catalogue_are_many():
    assert len(CASES) >= 45
