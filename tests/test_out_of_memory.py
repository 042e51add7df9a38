"""A run that is short of memory goes on with less of it, tells so, and ends with the same numbers."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from experiments.composing import command
from experiments.running import pipeline
from experiments.running.out_of_memory import Tier
from experiments.runs import folder as folder_of_run
from experiments.runs.stores import BlockStore, load_masks
from prune.network import Network
from tests.faults import settings, workplace


def run(outputs, *overrides):
    """The folder of a SparseGPT run on a tiny model, and what its manifest and results say."""
    words = "experiment=sparsegpt batch=8 eval=[perplexity] eval.perplexity.path={tokens}"
    asked = settings(words, outputs, workplace())
    (each,) = command.jobs([*asked, f"outputs={outputs}", *overrides])
    folder = pipeline.run(each.run).folder
    return folder, *(json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "results"))


def short_above(monkeypatch, enough):
    """Every walk over the blocks runs out of memory unless the network is `enough`."""
    walk = Network.walk

    def narrow(self, *arguments, **settings):
        if not enough(self):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return walk(self, *arguments, **settings)

    monkeypatch.setattr(Network, "walk", narrow)


def test_what_changes_no_bit_is_tried_before_smaller_batches():
    assert [(tier.activations, tier.batch) for tier in Tier("device", 5).lower] == [
        ("host", 5),
        ("disk", 5),
        ("disk", 2),
        ("disk", 1),
    ]
    assert list(Tier("disk", 1).lower) == []


@pytest.mark.parametrize(
    ("enough", "tiers"),
    [
        (lambda network: network.activations == "disk", [("host", 8), ("disk", 8)]),
        (lambda network: network.batch <= 4, [("host", 8), ("disk", 8), ("disk", 4)]),
    ],
)
def test_a_run_goes_on_at_the_next_tier_and_says_so(tmp_path, monkeypatch, caplog, enough, tiers):
    plain, _, expected = run(tmp_path / "plain")
    short_above(monkeypatch, enough)
    with caplog.at_level("WARNING", "experiments"):
        folder, manifest, results = run(tmp_path / "short")
    assert folder.name == plain.name, "the identity is what was asked for"
    assert [(retry["activations"], retry["batch"]) for retry in manifest["retries"]] == tiers
    assert all("CUDA out of memory" in retry["error"] for retry in manifest["retries"])
    assert len([line for line in caplog.messages if line.startswith("out of memory")]) == len(tiers)
    for file in (plain / "masks").iterdir():
        theirs = load_masks(folder / "masks" / file.name)
        assert all(torch.equal(mask, theirs[name]) for name, mask in load_masks(file).items())
    exact = len(tiers) == 2
    for key, value in expected["metrics"].items():
        assert results["metrics"][key] == value if exact else results["metrics"][key] == pytest.approx(value, rel=1e-5)


def test_what_an_attempt_took_that_ran_out_of_memory_is_no_cost_of_the_method(tmp_path, monkeypatch):
    walk, save, lost = Network.walk, BlockStore.save, [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + lost[0])

    def narrow(self, *arguments, **settings):
        for block in walk(self, *arguments, **settings):
            pruning = len(arguments) > 1  # an evaluation hands over tokens alone
            if pruning and self.activations == "device" and not block.path.endswith(".0"):
                lost[0] += 9000.0
                raise torch.OutOfMemoryError("CUDA out of memory.")
            yield block

    def solved_slowly(self, solved):
        save(self, replace(solved, seconds=500.0) if solved.block.endswith(".0") else solved)

    monkeypatch.setattr(folder_of_run, "time", clock)
    monkeypatch.setattr(Network, "walk", narrow)
    monkeypatch.setattr(BlockStore, "save", solved_slowly)
    _, manifest, results = run(tmp_path)
    assert len(manifest["retries"]) == 1
    assert 9000 <= results["seconds"]["out of memory"] < 9060
    assert 440 < results["saved"]["prune"] <= 500 and 440 < results["seconds"]["prune"] < 560


def test_without_a_lower_tier_the_run_fails_in_one_line(tmp_path, monkeypatch):
    short_above(monkeypatch, lambda network: False)
    with pytest.raises(ValueError, match=r"out of memory at the lowest tier: .*2.00 GiB.*; use a larger device"):
        run(tmp_path, "batch=1", "activations=host")
    manifest = json.loads(next(tmp_path.glob("*/*/manifest.json")).read_text())
    assert manifest["status"] == "failed" and len(manifest["retries"]) == 1


def test_other_errors_are_no_shortage(tmp_path, monkeypatch):
    monkeypatch.setattr(Network, "walk", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
