"""What two runs have in common: masks counted weight by weight, settings and code as far as they differ."""

from itertools import combinations

import pytest
import torch

from experiments.comparing.comparison import compare, render
from experiments.comparing.differences import changes, origins, settings
from experiments.comparing.layers import counts, grouped, layers, total
from experiments.reporting.details import facts
from experiments.runs.record import load
from experiments.runs.stores import load_masks, pack
from experiments.summary.rows import single
from tests.answers import write
from tests.pairs import config, put


@pytest.fixture
def pair(tmp_path):
    """Two runs of one model that differ in the seed and so in their masks."""
    return put(tmp_path, "wanda", 0), put(tmp_path, "wanda", 1)


def test_masks_in_common_are_what_counting_weight_by_weight_gives(pair):
    found, remarks = layers(*map(load, pair))
    assert remarks == [] and len(found) == 6
    for layer in found:
        first, second = (load_masks(run / "masks" / f"{layer.block}.safetensors") for run in pair)
        name = layer.name.removeprefix(f"{layer.block}.")
        kept = list(zip(first[name].flatten().tolist(), second[name].flatten().tolist(), strict=True))
        each = [kept.count(which) / len(kept) for which in ((True, True), (True, False), (False, True), (False, False))]
        assert layer.shares == pytest.approx(each[:3])
        assert layer.common == pytest.approx(each[3] / (1 - each[0]))
        assert layer.sparsities == pytest.approx((each[2] + each[3], each[1] + each[3]))


def test_random_masks_of_the_same_sparsity_have_on_average_what_is_said_in_common():
    places = [set(kept) for count in (4,) for kept in combinations(range(6), count)]
    others = [set(kept) for kept in combinations(range(6), 3)]
    mean = sum(6 - len(one | other) for one in places for other in others) / (len(places) * len(others))
    mask = lambda kept: pack(torch.tensor([[place in kept for place in range(6)]])).numpy()
    found = counts(mask(places[0]), mask(others[0]), 6)
    assert found["removed"] == (2, 3) and found["chance"] == pytest.approx(mean)


def test_experts_and_blocks_are_added_up_weight_by_weight(pair):
    found, _ = layers(*map(load, pair))
    kinds = grouped(found, lambda layer: layer.kind)
    assert list(kinds) == ["attn.q", "mlp.experts.*.up"]
    assert kinds["mlp.experts.*.up"].weights == 2 * 2 * 45
    assert kinds["attn.q"].both == sum(layer.both for layer in found if layer.name.endswith("q"))
    whole = total("all", found)
    assert whole.common == sum(layer.both for layer in found) / sum(sum(x.removed) - x.both for x in found)
    assert list(grouped(found, lambda layer: layer.block)) == ["h.0", "h.1"]


def test_what_both_models_wrote_is_named_beside_each_other(pair, tmp_path):
    assert "WRITTEN" not in render(compare(*map(load, pair)))
    write(pair[0] / "answers" / "gsm8k@3shot.jsonl", "")
    lines = render(compare(*map(load, pair))).partition("WRITTEN ANSWERS")[2].splitlines()
    assert ["gsm8k@3shot", "answers/gsm8k@3shot.jsonl", "-"] in [line.split() for line in lines]
    assert f"what it wrote: {pair[0] / 'answers' / 'gsm8k@3shot.jsonl'}" in single(pair[0])
    assert ("written answers", "answers/gsm8k@3shot.jsonl") in facts(load(pair[0]))
    assert "written answers" not in dict(facts(load(pair[1])))


def test_settings_are_told_once_and_only_where_they_differ(pair):
    first, second = map(load, pair)
    assert settings(first, second) == {"seed, data.seed": (0, 1)}
    update = {"_target_": "prune.updates.sparsegpt.SparseGPT", "damping": 0.1, "block_size": 128}
    obs = {"_target_": "prune.metrics.obs.OBS", "damping": 0.01}
    others = {
        "metric": (config(metric=obs), ("Wanda", "OBS(damping=0.01)")),
        "update.damping": ((config(update=update), config(update=update | {"damping": 0.2})), (0.1, 0.2)),
        "allocator.sparsity": (config(allocator=config()["allocator"] | {"sparsity": 0.7}), (0.5, 0.7)),
        "given": (config(given={"config": config(), "names": {"method": "wanda"}}), (None, "wanda")),
    }
    for name, (asked, values) in others.items():
        one, other = asked if isinstance(asked, tuple) else (config(), asked)
        first.manifest["config"], second.manifest["config"] = one, other
        assert settings(first, second) == {name: values}
    pairs = [{"config": config(seed=seed), "names": {"method": "wanda"}} for seed in (0, 1)]
    first.manifest["config"], second.manifest["config"] = (config(given=given) for given in pairs)
    assert settings(first, second) == {"given.seed": (0, 1)}
    first.manifest["config"], second.manifest["config"] = config(), config(outputs="/b", device="cuda", new_option=None)
    assert settings(first, second) == {}, "where a run lies changes no weight, nor does an option that is not used"


def test_a_path_counts_where_what_is_there_differs(pair):
    first, second = map(load, pair)
    first.manifest["config"] = config()
    second.manifest["config"] = config(model={"path": "/b/demo"}, data={"path": "/b/text", "seed": 0})
    assert settings(first, second) == {"data.path": ("/a/text", "/b/text")}, "the windows differ, the model does not"
    second.manifest.update(data=first.manifest["data"], model_content="e" * 20)
    assert settings(first, second) == {"model.path": ("/a/demo", "/b/demo")}
    assert list(origins(first, second)) == ["model"]


def test_what_is_null_is_what_is_not_there():
    assert changes({"a": {"b": None, "c": 1}}, {"a": {"c": 2}}) == {"a.c": (1, 2)}
    assert changes({"a": 1}, {"a": 1}) == {}


def test_code_and_machine_are_those_that_pruned(pair):
    first, second = map(load, pair)
    made = {"commit": "e" * 40, "diff": "f1", "versions": {"torch": "2.14"}, "also": [{"commit": "a" * 40}]}
    second.manifest.update(pruned=made, chip="H200")
    found = origins(first, second)
    assert found["commit"] == ("d" * 12, "e" * 12) and found["uncommitted changes"] == (None, "f1")
    assert found["torch"] == (None, "2.14") and found["chip"] == (None, "H200")
    assert found["went on with"] == (None, "a" * 12)
    assert "not the same machine: times do not compare" in render(compare(first, second))
