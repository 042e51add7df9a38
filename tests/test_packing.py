"""Quantised models: grids survive a stop, and codes are saved so that transformers gives the same answers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from experiments.models import packing, saving
from experiments.models.certificate import measure
from experiments.models.location import packed
from experiments.runs.results import tabulate_block
from experiments.runs.stores import BlockStore
from prune.method import Quantizer
from prune.quantizers.minmax import MinMax
from tests.faults import ask, settings, workplace
from tests.quantised import needed, quantised, solve, stored
from tests.tiny import network, sparsegpt, tokens


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(tokens()).logits, model


@needed
@pytest.mark.parametrize(
    ("family", "dtype", "bits", "group"),
    [
        ("llama", torch.float32, 4, None),
        ("llama", torch.bfloat16, 3, 16),
        ("llama", torch.float16, 8, 32),  # the width of some matrices, half that of others
        ("opt", torch.float16, 2, None),
        ("gpt_neox", torch.bfloat16, 5, 8),
    ],
)
def test_a_packed_model_answers_as_the_dense_one_bit_for_bit(tmp_path, family, dtype, bits, group):
    store = BlockStore(tmp_path / "run")
    model, solved = solve(stored(tmp_path / "base", family, dtype), store, quantised(bits, group))
    saving.save(model, tmp_path / "dense")
    saving.save(model, tmp_path / "packed", store)
    (plain, before), (codes, after) = logits(tmp_path / "dense"), logits(tmp_path / "packed")
    assert torch.equal(plain, codes)
    weights, found = before.state_dict(), after.state_dict()
    for name, p in ((name, p) for block in solved for name, p in block.linears.items()):
        assert torch.equal(weights[f"{name}.weight"], found[f"{name}.weight"])
        assert not found[f"{name}.weight"][~p.mask].any()
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    assert "sparsity_config" not in str(config) and config["quantization_config"]["format"] == "pack-quantized"
    sizes = [sum(f.stat().st_size for f in (tmp_path / kind).glob("*.safetensors")) for kind in ("dense", "packed")]
    assert sizes[1] < sizes[0]


@needed
def test_what_is_not_solved_stays_as_it_is(tmp_path):
    store = BlockStore(tmp_path / "run")
    model, _ = solve(stored(tmp_path / "base"), store)
    lost = "model.layers.1.mlp.up_proj"
    block = store.load("model.layers.1")
    del block.linears[lost]
    store.save(block)
    model.unheard = {lost: "not heard"}
    saving.save(model, tmp_path / "dense")
    saving.save(model, tmp_path / "packed", store)
    assert torch.equal(logits(tmp_path / "dense")[0], logits(tmp_path / "packed")[0])
    ignored = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]["ignore"]
    assert ignored == ["lm_head", lost]


@needed
def test_a_run_that_is_stopped_goes_on_with_its_grids_and_packs_the_same_bits(tmp_path):
    base, method = stored(tmp_path / "base", dtype=torch.bfloat16), quantised(group=16)
    whole, again = BlockStore(tmp_path / "whole"), BlockStore(tmp_path / "again")
    model, solved = solve(base, whole, method)
    solve(base, again, method, blocks=2)
    resumed, found = solve(base, again, method)
    rows = [[tabulate_block(block)["layers"] for block in each] for each in (solved, found)]
    assert rows[0] == rows[1] and all({"bits", "grids", "zeros"} <= row.keys() for block in rows[1] for row in block)
    saving.save(model, tmp_path / "one", whole)
    saving.save(resumed, tmp_path / "two", again)
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]


def test_an_asymmetric_grid_is_kept_with_its_block(tmp_path):
    store = BlockStore(tmp_path / "run")
    _, solved = solve(stored(tmp_path / "base"), store, quantised(3, 8, symmetric=False))
    for block in solved:
        for name, answer in store.load(block.block).linears.items():
            grid = block.linears[name].grid
            assert torch.equal(answer.grid.scale, grid.scale) and torch.equal(answer.grid.zero, grid.zero)
            assert answer.grid.bits == 3 and torch.equal(answer.grid.nearest(answer.weight), answer.weight)


def test_a_block_without_grids_is_read_as_ever(tmp_path):
    store = BlockStore(tmp_path / "run")
    solve(stored(tmp_path / "base"), store, sparsegpt(), blocks=1)
    assert all(answer.grid is None for answer in store.load("model.layers.0").linears.values())


@needed
def test_a_weight_off_its_grid_is_not_packed(tmp_path):
    store = BlockStore(tmp_path / "run")
    model, _ = solve(stored(tmp_path / "base"), store)
    block = store.load("model.layers.2")
    block.linears["model.layers.2.mlp.up_proj"].weight[0, 0] += 0.01
    store.save(block)
    with pytest.raises(ValueError, match=r"layers\.2\.mlp\.up_proj\.weight does not lie on its symmetric grid"):
        saving.save(model, tmp_path / "packed", store)
    assert not (tmp_path / "packed").exists()


@needed
def test_matrices_on_grids_of_several_kinds_are_packed_each_by_its_own_settings(tmp_path):
    store = BlockStore(tmp_path / "run")
    model, _ = solve(stored(tmp_path / "base"), store)
    for kind, part in (((3, 8), "self_attn.q_proj"), ((8, None), "mlp.down_proj"), ((4, 16), "mlp.up_proj")):
        bits, group = kind
        block = store.load("model.layers.1")
        p = block.linears[f"model.layers.1.{part}"]
        p.grid = MinMax(bits=bits, group=group, symmetric=True).fit(p.weight, torch.float32)
        p.weight = p.grid.nearest(p.weight)
        store.save(block)
    model.solved = store
    saving.save(model, tmp_path / "dense")
    saving.save(model, tmp_path / "packed", store)
    assert torch.equal(logits(tmp_path / "dense")[0], logits(tmp_path / "packed")[0])
    found = measure(tmp_path / "packed")
    assert not found.faults and found.packed["bits"] == [3, 4, 8] and {8, 16} < set(found.packed["group"])


@needed
def test_a_run_whose_codes_cannot_be_packed_is_evaluated_and_keeps_its_blocks_for_a_plain_model(tmp_path, monkeypatch):
    words = "quantizer=minmax quantizer.symmetric=true quantizer.sweep=false eval=[audit]"
    command = lambda more: ask(*settings(f"{words} {more}", tmp_path, workplace()), f"outputs={tmp_path}")

    def refuse(name, *_):
        raise ValueError(f"save_model=packed: {name} does not lie on its symmetric grid; set save_model=true")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "parts", refuse)
        told = command("save_model=packed")
    (run,) = tmp_path.glob("model/*")
    (line,) = [line for line in told.out.splitlines() if "no model was saved" in line]
    assert told.code == 1 and "set save_model=true, which finds the solved blocks in" in line
    assert not (run / "model").exists() and "audit/zeros" in (run / "results.json").read_text()
    before = {file: file.stat().st_mtime_ns for file in (run / "blocks").iterdir()}
    told = command("save_model=true")
    assert told.code == 0 and packed(run / "model") is False and "no model" not in told.out
    assert {file: file.stat().st_mtime_ns for file in (run / "blocks").iterdir()} == before, "nothing is pruned again"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gpt2", r"transformer\.h\.0\.\S+ is stored as \[in, out\], which cannot be packed; set save_model=true"),
        ("gpt_oss", r"\S+\.experts\.\S+ is one of a stack of experts, which cannot be packed"),
    ],
)
def test_models_whose_matrices_cannot_be_packed_are_refused(family, words):
    with pytest.raises(ValueError, match=words):
        packing.suits(network(family))


def test_what_a_quantizer_makes_is_packed_only_where_it_loads(monkeypatch):
    with pytest.raises(ValueError, match="quantizer=none leaves nothing to pack; choose quantizer=minmax"):
        packing.check(Quantizer())
    with pytest.raises(ValueError, match="only symmetric grids load"):
        packing.check(MinMax())
    monkeypatch.setattr(packing, "installed", lambda: False)
    with pytest.raises(ValueError, match="compressed-tensors is not installed; pip install"):
        packing.check(MinMax(symmetric=True))


@needed
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("experiment=wanda", "save_model=packed: quantizer=none leaves nothing to pack"),
        ("experiment=sparsegpt_joint", "save_model=packed: only symmetric grids load"),
        ("quantizer=minmax quantizer.symmetric=true quantizer.group=7", "quantizer.group=7 does not divide"),
        ("quantizer=minmax quantizer.symmetric=true model={gpt2}", "is stored as [in, out], which cannot be packed"),
    ],
)
def test_what_cannot_be_packed_is_one_line_before_the_model_is_read(tmp_path, words, said):
    words = words.format(gpt2=tmp_path / "gpt2")
    if "gpt2" in words:
        stored(tmp_path / "gpt2", "gpt2")
    answer = ask(*words.split(), "save_model=packed", f"outputs={tmp_path / 'out'}")
    assert answer.code == 2 and answer.err.count("\n") == 1 and said in answer.err
    assert not (tmp_path / "out").exists()


def test_files_of_the_folder_are_sealed_as_those_of_any_saved_model(tmp_path):
    store = BlockStore(tmp_path / "run")
    if not packing.installed():
        pytest.skip("compressed-tensors is not installed")
    model, _ = solve(stored(tmp_path / "base"), store)
    saving.save(model, tmp_path / "packed", store)
    written = json.loads((tmp_path / "packed" / "pruning_manifest.json").read_text())["sha256_by_file"]
    assert "config.json" in written and len(load_file(tmp_path / "packed" / "model-00001-of-00004.safetensors")) > 7
