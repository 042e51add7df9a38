"""What verify says of quantised models, as plain weights or packed, and of what was quantised after it was pruned."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments import verify
from experiments.models import saving
from experiments.models.certificate import Count, measure
from experiments.models.location import packed
from experiments.runs.stores import BlockStore
from prune.prune import prune
from prune.quantizers.minmax import MinMax
from tests.checkpoints import answer, edit
from tests.faults import ask, settings, workplace
from tests.quantised import needed, opened, quantised, solve, stored, vouched
from tests.tiny import magnitude, network, sparsegpt


@needed
def test_the_codes_of_a_packed_model_are_counted_as_its_weights(tmp_path):
    store = BlockStore(tmp_path / "run")
    model, _ = solve(stored(tmp_path / "base"), store, quantised(3, 16))
    saving.save(model, tmp_path / "dense")
    saving.save(model, tmp_path / "packed", store)
    plain, codes = (measure(tmp_path / kind, Count(("2of4",))) for kind in ("dense", "packed"))
    assert codes.packed == {"format": "pack-quantized", "bits": [3], "group": [16], "symmetric": [True]}
    assert not codes.faults and not plain.packed and codes.matrices == plain.matrices


@pytest.mark.parametrize("kind", ["dense", pytest.param("packed", marks=needed)])
def test_a_quantised_model_is_verified_by_its_values_its_zeros_and_its_masks(tmp_path, capsys, kind):
    folder, store = vouched(tmp_path, kind)
    told = answer(folder, capsys, "--masks", str(store.folder), code=0)
    assert "holds: complete, finite, sparsity 0.5, 16 values a row, masks of" in told
    if kind == "packed":
        assert ", the share of zero codes (packed: 4 bits, grids of 32, 64 columns, symmetric)" in told


def test_weights_that_left_their_grid_are_found(tmp_path, capsys):
    folder, _ = vouched(tmp_path, "dense")
    file, name = next((f, n) for f in sorted(folder.glob("*.safetensors")) for n in load_file(f) if "q_proj" in n)
    tensors = load_file(file)
    tensors[name][1] *= torch.linspace(1, 1.5, 32)
    save_file(tensors, file, {"format": "pt"})
    assert f"{name}: 1 rows with more than 16 values" in answer(folder, capsys, code=1)


@needed
def test_zeros_that_a_later_quantiser_destroyed_are_found_and_those_that_it_made_are_not(tmp_path, capsys):
    """Rounding another run's pruned weights without its mask, after which there are more zeros than before."""
    plain, store = vouched(tmp_path, "dense", quantizer=False, method=sparsegpt())
    folder, changed = tmp_path / "later", BlockStore(tmp_path / "changed")
    model = opened(plain)
    for number in range(3):
        block = store.load(f"model.layers.{number}")
        for p in block.linears.values():
            grid = MinMax(bits=2, group=None, symmetric=True).fit(p.weight, torch.float32)
            p.weight, p.grid = grid.nearest(p.weight), grid
        changed.save(block)
    model.solved = changed
    saving.save(model, folder, changed)
    manifest = json.loads((plain / "pruning_manifest.json").read_text())
    (folder / "pruning_manifest.json").write_text(json.dumps(manifest))
    told = answer(folder, capsys, code=0)
    assert "21 matrices have more zeros than their run left" in told and "at least the zeros of" in told
    assert "note:" not in answer(folder, capsys, "--masks", str(store.folder), code=0)
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(file)
    name = next(n for n in tensors if n.endswith("q_proj.weight_packed"))
    tensors[name][:, 0] = 0  # the least of all codes
    save_file(tensors, file, {"format": "pt"})
    told = answer(folder, capsys, "--masks", str(store.folder), code=1)
    assert "q_proj.weight:" in told and "weights that its run removed" in told
    tensors[name].fill_(0)
    save_file(tensors, file, {"format": "pt"})
    assert "sparsity 0.500000 became 0.000000" in answer(folder, capsys, code=1)


def masked(folder, family):
    """A pruned model of a family in a folder, and the run that has its masks."""
    model, store = network(family), BlockStore(folder.parent / f"{family}-run")
    for _ in prune(model, None, magnitude(), done=store):
        pass
    model.model.save_pretrained(folder)
    return store.folder


def test_masks_of_stacked_experts_are_held_against_each_expert(tmp_path, capsys):
    folder = tmp_path / "model"
    run = masked(folder, "gpt_oss")
    told = answer(folder, capsys, "--masks", str(run), code=0)
    assert "holds: complete, finite, every mask of the run" in told and "note: masks" not in told
    name = "model.layers.1.mlp.experts.down_proj"
    (at,) = (load_file(folder / "model.safetensors")[name][3] == 0).nonzero()[:1]  # of the last expert
    edit(folder, lambda tensors: tensors[name][3].__setitem__(tuple(at), 1.0))
    assert f"{name}: 1 weights that its run removed" in answer(folder, capsys, "--masks", str(run), code=1)


def test_matrices_that_no_mask_was_held_against_are_told(tmp_path, capsys):
    run = masked(tmp_path / "mixtral", "mixtral")
    told = answer(tmp_path / "mixtral", capsys, "--masks", str(run), code=0)  # saved expert by expert, fused on loading
    assert "masks of the run in 12 matrices" in told and "masks are not held against 36 matrices" in told
    (tmp_path / "mixtral-run/masks/model.layers.2.safetensors").unlink()
    assert "masks of the run in 8 matrices" in answer(tmp_path / "mixtral", capsys, "--masks", str(run), code=0)
    network(intermediate_size=32).model.save_pretrained(tmp_path / "other")
    assert "give the run of this model" in answer(
        tmp_path / "other", capsys, "--masks", str(masked(tmp_path / "llama", "llama")), code=2
    )


@needed
@pytest.mark.parametrize("group", [None, 8])
def test_anybodys_packed_model_is_counted_asymmetric_ones_too(tmp_path, capsys, group):
    """Packed by the package's own compressor."""
    from compressed_tensors.compressors import PackedQuantizationCompressor  # noqa: PLC0415
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: PLC0415

    kind = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=4, symmetric=False, **kind))
    folder, zeros = stored(tmp_path / "theirs"), {}

    def compress(tensors):
        for name in [name for name in tensors if "_proj.weight" in name]:
            weight = tensors.pop(name)
            weight.view(-1, 4)[:, :2] = 0.0
            grid = MinMax(bits=4, group=group).fit(weight, torch.float32)
            zeros[name] = int((grid.nearest(weight) == 0).sum())
            state = {"weight": weight, "weight_scale": grid.scale, "weight_zero_point": (grid.zero - 8).to(torch.int8)}
            made = PackedQuantizationCompressor.compress(state, scheme)
            tensors |= {f"{name.removesuffix('weight')}{part}": tensor for part, tensor in made.items()}

    edit(folder, compress)
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme.weights.model_dump(mode="json")}}
    config = json.loads((folder / "config.json").read_text())
    asked = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": asked}))
    found = measure(folder)
    assert {m.name: m.zeros for m in found.matrices} == zeros
    assert found.bytes < (folder / "model.safetensors").stat().st_size
    capsys.readouterr()  # what the package said of itself
    told = answer(folder, capsys, "--pattern", "2of4", "--sparsity", "0.5", code=0)
    assert "holds: complete, finite, 2of4, sparsity 0.5" in told and "asymmetric" in told
    answer(folder, capsys, "--pattern", "1of4", code=1)


@needed
def test_a_model_that_is_packed_already_is_not_quantised_again(tmp_path):
    folder, _ = vouched(tmp_path, "packed")
    with pytest.raises(ValueError, match=r"quantised \(compressed-tensors\): dequantise it first, or give the model"):
        opened(folder)


@needed
def test_a_run_keeps_the_form_that_is_asked_for_and_vouches_for_it(tmp_path, capsys):
    """Packed, saved as plain weights, and packed again with one more evaluation."""
    words = "quantizer=minmax quantizer.symmetric=true quantizer.bits=3 quantizer.group=16"
    command = lambda more: ask(*settings(f"{words} {more}", tmp_path, workplace()), f"outputs={tmp_path}")
    found = []
    for asked in (
        "save_model=packed eval=[audit]",
        "save_model=true eval=[audit]",
        "save_model=packed eval=[audit,perplexity] eval.perplexity.path={tokens}",
    ):
        told = command(asked)
        assert told.code == 0, told.err
        (run,) = tmp_path.glob("model/*")
        found.append({file.name: file.read_bytes() for file in (run / "model").glob("*.safetensors")})
        assert packed(run / "model") == ("packed" in asked)
        assert verify.main([str(run)]) == 0
        assert "8 values a group, masks of" in capsys.readouterr().out
    assert found[0] == found[2] != found[1]
    assert "nothing to compute" in command("save_model=packed eval=[audit]").err
