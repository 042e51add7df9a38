"""Verifying a checkpoint: its architecture, a pattern and a sparsity are held against what its files store."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from experiments.models import certificate, stored
from experiments.models.certificate import Count, measure
from prune.patterns.n_m import NM
from prune.prune import prune
from tests import checkpoints
from tests.checkpoints import EMBED, HEAD, Q, answer, configure, edit, shard, write_index
from tests.tiny import FAMILIES, magnitude, network

HALF = ("--pattern", "2of4", "--sparsity", "0.5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return checkpoints.pruned(tmp_path_factory.mktemp("checkpoints") / "pruned")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (HALF, 0, "holds: complete, finite, 2of4, sparsity 0.5"),
        (("--pattern", "2:4"), 0, "holds: complete, finite, 2:4"),
        (("--pattern", "1of4"), 1, "groups with more than 1 non-zeros"),
        (("--sparsity", "0.51"), 1, "a share of 0.500000; promised are"),
        (("--pattern", "4of8"), 0, "4of8"),
        (("--pattern", "3of5"), 1, "needs a width that 5 divides, found 32"),
        (("--pattern", "half"), 2, "expected unstructured or n kept of every m"),
        (("--pattern", "4of2"), 2, "expected 0 < n < m"),
        (("--sparsity", "1.5"), 2, "expected a share, 0 to 1, found 1.5"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, tuple) else None,
)
def test_a_pattern_and_a_sparsity_are_held_against_the_weights(folder, capsys, options, code, words):
    (folder / "pruning_manifest.json").unlink()
    assert words in answer(folder, capsys, *options, code=code)


def test_negative_zeros_break_a_promise_and_are_allowed_without_one(folder, capsys):
    edit(folder, lambda tensors: tensors[Q].copy_(torch.where(tensors[Q] == 0, -0.0, tensors[Q])))
    assert f"{Q}: 512 negative zeros" in answer(folder, capsys, code=1)
    (folder / "pruning_manifest.json").unlink()
    answer(folder, capsys, code=0)


@pytest.mark.parametrize("name", [Q, EMBED, "model.norm.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_found_wherever_they_are(folder, capsys, name, value):
    (folder / "pruning_manifest.json").unlink()
    edit(folder, lambda tensors: tensors[name].view(-1)[-1].fill_(value))
    assert f"{name}: 1 NaN or infinite values" in answer(folder, capsys, code=1)


def test_compressed_weights_are_refused(folder, capsys):
    names = [f"{Q.removesuffix('weight')}{part}" for part in ("compressed", "bitmask", "shape", "row_offsets")]

    def compress(tensors):
        tensors.pop(Q)
        tensors.update({name: torch.ones(3, dtype=torch.int64) for name in names})

    edit(folder, compress)
    configure(folder, quantization_config={"quant_method": "compressed-tensors", "format": "sparse-24-bitmask"})
    assert "quantised (compressed-tensors): dequantise it first" in answer(folder, capsys, code=2)


def test_a_tensor_of_another_shape_or_of_whole_numbers_is_named(folder, capsys):
    (folder / "pruning_manifest.json").unlink()
    edit(folder, lambda tensors: tensors.update({Q: torch.ones(4, 4, dtype=torch.int64)}))
    told = answer(folder, capsys, code=1)
    assert f"1 tensors of another shape: {Q}" in told and f"1 tensors of whole numbers: {Q}" in told


def test_tied_weights_may_be_stored_once_or_twice(folder, capsys):
    configure(folder, tie_word_embeddings=True)
    answer(folder, capsys, code=0)
    edit(folder, lambda tensors: tensors.pop(HEAD))
    answer(folder, capsys, code=0)
    configure(folder, tie_word_embeddings=False)
    assert "missing, which would be random: lm_head.weight" in answer(folder, capsys, code=1)


def test_shards_are_read_as_one_model(folder, capsys):
    shard(folder, [Q], [EMBED, HEAD])
    answer(folder, capsys, *HALF, code=0)


def test_a_tensor_in_two_shards_is_refused(folder, capsys):
    places = shard(folder, [Q], [EMBED])
    shutil.copy(folder / "model-0.safetensors", folder / "model-9.safetensors")
    answer(folder, capsys, code=0)
    write_index(folder, places | {"model.extra": "model-9.safetensors"})
    assert f"{Q} is in model-0.safetensors and again in model-9.safetensors" in answer(folder, capsys, code=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_that_is_pruned_is_found_in_the_saved_model_of_a_family(family, tmp_path):
    model = network(family)
    for _ in prune(model, None, magnitude()):
        pass
    model.model.save_pretrained(tmp_path)
    weights = model.weights()
    found = measure(tmp_path, Count(("2of4",)))
    assert not found.faults and not found.notes
    assert sum(matrix.weights for matrix in found.matrices) == sum(weight.numel() for weight in weights.values())
    assert sum(m.zeros for m in found.matrices) == sum(int((weight == 0).sum()) for weight in weights.values())
    rule = NM(2, 4)
    assert sum(m.violations["2of4"] for m in found.matrices) == sum(rule.violations(w != 0) for w in weights.values())


def test_an_expert_that_is_missing_is_named(tmp_path, capsys):
    network("mixtral").model.save_pretrained(tmp_path)
    edit(tmp_path, lambda tensors: tensors.pop("model.layers.0.block_sparse_moe.experts.1.w2.weight"))
    assert "of another shape: model.layers.0.mlp.experts.down_proj" in answer(tmp_path, capsys, code=1)


def test_a_model_without_linears_is_checked_for_the_rest_and_refused_a_pattern(tmp_path, capsys):
    from transformers import XLMConfig, XLMWithLMHeadModel  # noqa: PLC0415

    XLMWithLMHeadModel(XLMConfig(n_words=96, emb_dim=32, n_layers=2, n_heads=4)).save_pretrained(tmp_path)
    norms = ("--blocks", "transformer.layer_norm1")
    assert "no linears in the blocks of XLMWithLMHeadModel" in answer(tmp_path, capsys, *norms, code=0)
    assert "nothing to hold against a pattern" in answer(tmp_path, capsys, *HALF, *norms, code=2)


def test_a_tensor_that_loading_turns_around_is_not_counted_as_rows(saved, monkeypatch):
    monkeypatch.setattr(certificate, "_keeps_rows", lambda model, tensor, *_: tensor.name != Q)
    found = measure(saved)
    assert Q not in {matrix.name for matrix in found.matrices} and any("not checked" in note for note in found.notes)


def test_a_hub_id_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "outgoing traffic has been disabled" in answer("owner/name", capsys, code=2)
    assert "no such folder" in answer("./nowhere", capsys, code=2)


def test_reading_goes_tensor_by_tensor_and_maps_one_shard_at_a_time(folder, monkeypatch):
    shard(folder, [Q], [EMBED])
    now = []
    opened = stored.opened.__wrapped__

    def watched(file):
        assert not now, "another shard is open"
        now.append(file)
        yield from opened(file)
        now.remove(file)

    monkeypatch.setattr(stored, "opened", contextmanager(watched))
    assert len(measure(folder).matrices) == 21
