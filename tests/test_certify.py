"""Certificates: what is counted in stored weights, what a manifest keeps of it, and what has changed since."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from experiments.models import certificate
from experiments.models.certificate import certify
from experiments.runs.stores import pack
from tests import checkpoints
from tests.checkpoints import MANIFEST, Q, answer, configure, edit
from tests.tiny import random


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return checkpoints.pruned(tmp_path_factory.mktemp("checkpoints") / "pruned")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(5, 24), (3, 4, 8), (7, 12)])
def test_counts_are_those_of_plain_arithmetic_on_the_weights(dtype, shape, monkeypatch):
    monkeypatch.setattr(certificate, "CHUNK", 32)
    weight = random(*shape).to(dtype)
    weight[random(*shape, seed=1) > 0] = 0.0
    weight[random(*shape, seed=2) > 1] = -0.0
    weight.view(-1)[[0, 50]] = torch.tensor([float("nan"), float("-inf")], dtype=dtype)
    found = certificate.count("w", weight, ["2of4", "1of4", "4of8", "3of6"])
    zeros = [value == 0 for value in weight.view(-1).tolist()]
    assert (found.weights, found.zeros, found.nonfinite) == (weight.numel(), sum(zeros), 2)
    assert found.negative_zeros == int(((weight == 0) & weight.signbit()).sum())
    assert found.mask_sha256 == hashlib.sha256(pack((weight != 0).reshape(-1, shape[-1])).numpy()).hexdigest()
    for name, violations in found.violations.items():
        n, m = map(int, name.split("of"))
        groups = [zeros[start : start + m] for start in range(0, len(zeros), m)]
        assert violations == sum(m - sum(group) > n for group in groups)
    assert set(found.violations) == {p for p in ("2of4", "1of4", "4of8", "3of6") if shape[-1] % int(p[-1]) == 0}


def test_whole_numbers_and_empty_tensors_can_be_counted():
    assert certificate.count("w", torch.tensor([[0, 3, 0, 0]]), ["2of4"]).zeros == 3
    assert certificate.count("w", torch.zeros(0, 4), ["2of4"]).weights == certificate.nonfinite(torch.zeros(0)) == 0


def test_a_certified_model_holds_and_says_what_was_checked(saved, capsys):
    told = answer(saved, capsys, code=0)
    assert told.splitlines()[-1].startswith("holds: complete, finite, 2of4, sparsity 0.5, masks of pruning_manifest")
    assert "21 matrices, sparsity 0.500000" in told
    written = json.loads((saved / "pruning_manifest.json").read_text())
    weight = load_file(saved / "model.safetensors")[Q]
    bits = numpy.packbits((weight != 0).numpy().reshape(-1))
    assert written["mask_sha256_by_matrix"][Q] == hashlib.sha256(bits).hexdigest()
    assert written["sparsity_by_matrix"][Q] == 0.5 and written["metrics"] == {"ppl/text": 7.0}


def test_noise_of_a_fine_tune_is_found_in_the_matrices_it_touched(folder, capsys, tmp_path):
    tune = lambda tensors: [tensors[name].add_(0.01 * torch.ones(1)) for name in (Q, Q.replace("q_", "k_"))]
    edit(folder, tune)
    told = answer(folder, capsys, "--json", str(tmp_path / "found.json"), code=1)
    assert "broken: 2 matrices at fault" in told and f"{Q}: sparsity 0.500000 became 0.0000" in told
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["status"] == "broken"
    faulty = {m["name"]: m["zeros"] for m in found["matrices"] if m["faults"]}
    weights = load_file(folder / "model.safetensors")
    assert faulty == {name: int((weights[name] == 0).sum()) for name in (Q, Q.replace("q_", "k_"))}


def test_as_many_zeros_elsewhere_are_found(folder, capsys):
    edit(folder, lambda tensors: tensors.update({Q: tensors[Q].view(-1, 4).roll(1, 1).reshape(32, 32).contiguous()}))
    assert f"{Q}: other weights are zero than were" in answer(folder, capsys, code=1)


def test_weights_may_change_where_they_are_not_zero(folder, capsys):
    edit(folder, lambda tensors: tensors[Q].mul_(2))
    answer(folder, capsys, code=0)


def test_a_kept_weight_that_is_stored_as_zero_is_no_fault(folder, capsys):
    (folder / "pruning_manifest.json").unlink()
    edit(folder, lambda tensors: tensors[Q].view(-1)[tensors[Q].view(-1).nonzero()[0]].zero_())
    edit(folder, lambda tensors: tensors[Q].view(-1).index_fill_(0, torch.tensor([0, 1, 2, 3]), 0.0))
    certify(folder, MANIFEST, {"metrics": {}})
    answer(folder, capsys, "--manifest", code=0)


def test_a_later_command_does_not_certify_what_was_changed(folder, capsys):
    edit(folder, lambda tensors: tensors[Q].view(-1)[:4].zero_())
    certify(folder, MANIFEST, {"metrics": {"ppl/text": 8.0}})
    assert json.loads((folder / "pruning_manifest.json").read_text())["metrics"] == {"ppl/text": 8.0}
    assert Q in answer(folder, capsys, code=1)


def test_a_manifest_that_was_altered_or_cannot_be_checked_is_not_believed(folder, capsys):
    place = folder / "pruning_manifest.json"
    manifest = json.loads(place.read_text())
    manifest["mask_sha256_by_matrix"].pop(Q)
    place.write_text(json.dumps(manifest))
    assert "not as they were written" in answer(folder, capsys, code=2)
    place.write_text("{")
    assert "is not JSON" in answer(folder, capsys, code=2)
    for other in ([], {"sparsity_by_matrix": 3} | {"mask_sha256_by_matrix": {Q: "0"}}, {"sparsity": "half"}):
        place.write_text(json.dumps(other))
        assert "not as this project writes it" in answer(folder, capsys, code=2)
    place.write_text(json.dumps(MANIFEST | {"pattern": "mine"}))
    told = answer(folder, capsys, code=0)
    assert "masks are not checked" in told and "pattern mine is not n kept of every m" in told
    place.unlink()
    assert "no pruning_manifest.json" in answer(folder, capsys, "--manifest", code=2)


def test_a_matrix_that_the_manifest_does_not_know_is_named(folder, capsys):
    configure(folder, num_hidden_layers=4)
    extra = lambda tensors: {n.replace("layers.2", "layers.3"): t.clone() for n, t in tensors.items() if "rs.2" in n}
    edit(folder, lambda tensors: tensors.update(extra(tensors)))
    assert "model.layers.3.mlp.down_proj.weight is not in the manifest" in answer(folder, capsys, code=1)
