"""Bits per weight are those of the formula and of packed tensors; runs of other bits are no equals, nor of one name."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from experiments.comparing.comparison import compare, render
from experiments.figures import histograms, pareto
from experiments.models import saving
from experiments.models.load import load
from experiments.reporting import sizes
from experiments.reporting.findings import Findings
from experiments.reporting.formats import paper
from experiments.runs import bits
from experiments.runs.record import Record
from experiments.runs.results import stored, tabulate_block
from experiments.runs.stores import BlockStore
from experiments.summary.rows import arrange
from experiments.summary.rows import render as table
from experiments.trackers.wandb import configuration
from tests import tiny
from tests.figures import MATRICES, PPL, groups, record, with_histograms
from tests.quantised import needed, solve
from tests.quantised import quantised as packable
from tests.quantised import stored as stored_model

STORED = {"weights": 20000, "bytes": 40000, "linears": 4 * 3200 * 2}  # in float16, all that is not pruned too
ROW = 4096


def counted(sparsity, columns=ROW, width=16, pattern=None, **layer):
    """The count of one matrix of 64 rows in a model of this width."""
    layers = [{"shape": [64, columns], "sparsity": sparsity, "dtype": {16: "bfloat16", 32: "float32"}[width], **layer}]
    quantizer = {"symmetric": layer.pop("symmetric", False)}
    return bits.count({"layers": layers}, {"pattern": pattern, "quantizer": quantizer}).linears


@pytest.mark.parametrize(
    ("codes", "mask", "found"),
    [
        (2 + 20 / ROW, 1, counted(0.5, bits=4, grids=1)),  # 50 % + 4 bit a row: 3 + 20/4096
        (2 + 16 / ROW, 1, counted(0.5, bits=4, grids=1, symmetric=True)),
        (1.5 + 19 / ROW, 1, counted(0.5, bits=3, grids=1)),
        (3 + 19 / 128, 0, counted(0.0, bits=3, grids=ROW // 128)),  # nothing is removed: no mask
        (2 + 20 / ROW, math.log2(6) / 4, counted(0.5, pattern={"n": 2, "m": 4}, bits=4, grids=1)),
        (2.4 + 20 / ROW, 1, counted(0.4, pattern={"n": 2, "m": 4}, bits=4, grids=1)),  # not two of every four
        (2 + 36 / ROW, 1, counted(0.5, width=32, bits=4, grids=1)),  # a float32 model has float32 scales
        (8, 1, counted(0.5)),
        (32, 0, counted(0.0, width=32)),
    ],
)
def test_bits_per_weight_are_those_of_the_formula(codes, mask, found):
    assert found.codes == pytest.approx(codes, abs=1e-5)
    assert found.masked == pytest.approx(codes + mask, abs=1e-5)


@pytest.mark.parametrize(("width", "columns"), [(3, 100), (4, 96), (8, 33)])
def test_on_disk_are_whole_words_scales_and_the_shape_if_grids_are_symmetric_else_the_dtype(width, columns):
    words, scales = 64 * math.ceil(columns * width / 32) * 32, 64 * 16
    found = counted(0.5, columns, bits=width, grids=1, symmetric=True).disk
    assert found == pytest.approx((words + scales + 2 * 64) / (64 * columns))
    assert counted(0.5, columns, bits=width, grids=1).disk == counted(0.5, columns).disk == 16


def quantised(method, value, width, sparsity=0.5, grids=1, stored=STORED, **changed) -> Record:
    """A run whose matrices have codes of so many bits; one weight in fifty is 0 beside the removed ones."""
    quantizer = {"_target_": "prune.quantizers.minmax.MinMax", "bits": width, "group": None if grids == 1 else 40}
    found = record(
        method, value, sparsity=sparsity, settings={"quantizer": quantizer | {"symmetric": False}}, **changed
    )
    for layer in found.results["layers"]:
        layer |= {
            "dtype": "float16",
            "bits": width,
            "grids": grids if layer["shape"][1] == 80 else 1,
            "zeros": sparsity + 0.02,
        }
    found.results["stored"] = stored
    found.results["metrics"]["audit/zeros"] = sparsity + 0.02
    return found


def plain(method, value, **changed) -> Record:
    found = record(method, value, **changed)
    found.results["stored"] = STORED
    return found


def runs() -> list[Record]:
    joint = [quantised("sparsegpt_joint", 20.0 + (4 - width), width) for width in (3, 4)]
    low = [quantised("gptq", 12.0 + (4 - width), width, sparsity=0.0) for width in (3, 4)]
    return [*joint, *low, quantised("rtn", 13.0, 4, sparsity=0.0), plain("sparsegpt", 15.0), plain("wanda", 16.0)]


def test_the_whole_model_counts_what_is_not_pruned_as_it_is():
    found = quantised("gptq", 12.0, 4, sparsity=0.0).bits
    rest = STORED["bytes"] - STORED["linears"]
    assert found.size == pytest.approx(rest + found.linears.masked * 4 * 3200 / 8)
    assert found.model.masked == pytest.approx(8 * found.size / STORED["weights"])
    assert quantised("gptq", 12.0, 4, stored=None).bits.model is None, "earlier versions did not tell its size"


def test_sparsity_is_that_of_masks_and_zeros_have_a_column_of_their_own_where_runs_are_quantised():
    lines = {
        " ".join(line.split()[1:4]): line.split() for line in table(arrange(runs())).splitlines() if "demo" in line
    }
    assert lines["sparsegpt_joint (3 bit)"][5:7] == ["0.5000", "0.5200"]
    assert lines["gptq (4 bit)"][5:7] == ["0.0000", "0.0200"]
    assert lines["dense 0.0000 16.000"], "the dense row has bits and no zeros"
    assert "zeros" not in table(arrange([plain("wanda", 16.0)])), "other tables stay as they are"


def test_runs_of_other_bits_or_groups_have_other_names_and_dense_low_bit_runs_are_not_the_dense_one():
    several = [*runs(), quantised("sparsegpt_joint", 19.0, 4, grids=2)]
    names = [group.method for group in groups(several)]
    assert len(names) == len(set(names)) == 1 + len(several)
    assert {"gptq (3 bit)", "gptq (4 bit)", "sparsegpt_joint (4 bit g40)", "sparsegpt_joint (4 bit)"} <= set(names)
    assert [group.method for group in groups(several) if group.dense] == ["dense"]


def test_no_run_is_better_than_one_of_fewer_bits_for_its_bits():
    best = {(c.pattern, round(c.sparsity, 1)): c for c in Findings(runs()).contests if c.metric == PPL}
    assert {place: contest.best.method for place, contest in best.items()} == {
        ("unstructured", 0.5): "sparsegpt",
        ("unstructured, 3 bit", 0.5): "sparsegpt_joint (3 bit)",
        ("unstructured, 4 bit", 0.5): "sparsegpt_joint (4 bit)",
        ("unstructured, 3 bit", 0.0): "gptq (3 bit)",
        ("unstructured, 4 bit", 0.0): "gptq (4 bit)",
    }
    assert [one.method for one, *_ in best["unstructured, 4 bit", 0.0].rivals] == ["rtn"]


def on(method, value, **settings) -> Record:
    """A run with 4 bit codes whose quantizer has these settings."""
    found = quantised(method, value, 4, sparsity=0.0)
    config = found.manifest["config"]
    config["quantizer"] = config["quantizer"] | settings
    return replace(found, folder=found.folder / str(settings))


def test_runs_whose_grids_have_zero_elsewhere_are_no_draws_of_one_thing_and_no_equals():
    several = [on("gptq", 12.0), on("gptq", 12.5, symmetric=True), on("rtn", 13.0, symmetric=True)]
    assert [group.method for group in groups(several)] == ["dense", "gptq (asym)", "gptq (sym)", "rtn"]
    best = {c.pattern: [c.best.method, *(one.method for one, *_ in c.rivals)] for c in Findings(several).contests}
    assert best == {"unstructured, 4 bit": ["gptq (asym)"], "unstructured, 4 bit sym": ["gptq (sym)", "rtn"]}
    assert compare(several[0], several[2]).names == ("A: gptq unstructured 0 4 bit", "B: rtn unstructured 0 4 bit sym")


@pytest.mark.parametrize(
    ("setting", "values"),
    [("symmetric", (False, True)), ("group", (None, 40)), ("act_order", (False, True)), ("damping", (0.01, 0.1))],
)
def test_a_setting_of_grids_that_two_methods_have_otherwise_is_named_under_their_table(setting, values):
    runs = [on(method, 12.0, **{setting: value}) for method, value in zip(("gptq", "rtn"), values, strict=True)]
    (told,) = [note for note in arrange(runs).notes if f"quantizer.{setting} is " in note]
    assert f"{values[1]} (rtn)" in told
    assert f"{'null' if values[0] is None else values[0]} (gptq)" in told
    assert not [note for note in arrange(runs[:1]).notes if "quantizer" in note]


def test_quality_is_set_against_the_bytes_of_the_whole_model():
    ((title, panel),) = pareto.sized(groups(runs())).items()
    assert title == "demo, dense 0.04 MB"
    found = {point.method: point for point in panel.points}
    assert found["wanda"].cost == pytest.approx((STORED["bytes"] - STORED["linears"] / 2 + 4 * 3200 / 8) / 1e6)
    assert found["sparsegpt_joint (3 bit)"].cost < found["gptq (3 bit)"].cost < found["gptq (4 bit)"].cost
    assert [point.method for point in panel.front][-1] == "gptq (4 bit)"
    assert pareto.sized(groups([plain("wanda", 16.0), plain("sparsegpt", 15.0)])) == {}, "nothing is quantised"


def test_what_removed_nothing_has_no_histogram_of_removed_weights(tmp_path):
    found, _ = histograms.chosen(groups([with_histograms(run, tmp_path) for run in runs()]))
    assert {group.method.split()[0] for group in found} == {"sparsegpt_joint", "sparsegpt", "wanda"}


def test_codes_are_not_counted_as_weights_of_the_dtype_by_formats_of_zeros():
    found = arrange(runs())
    assert {cells[0] for cells in sizes.rows(found)} <= {"demo"}
    assert sizes.size(runs()[0]) is None
    (cells,) = [cells for cells in sizes.bits(found) if cells[1] == "sparsegpt_joint (4 bit)"]
    assert cells[3:5] == ["0.5000", "0.5200"]
    assert len(cells) == len(sizes.BITS)


def test_trackers_latex_and_compare_have_the_two_shares_and_bits():
    joint, other = runs()[0], runs()[5]
    flat = bits.flat(joint.results, joint.manifest["config"])
    assert flat["sparsity/mask"] == 0.5
    assert flat["sparsity/zeros"] == pytest.approx(0.52)
    assert {f"bits/{of}/{how}" for of in ("linears", "model") for how in ("codes", "masked", "disk")} <= set(flat)
    assert "bits/linears/masked" in render(compare(joint, other))
    assert "bits/linears/masked" not in render(compare(other, other))
    facts = configuration(joint)
    assert (facts["bits"], "group" in facts, "bits" in configuration(other)) == (3, False, False)
    assert "Zeros & Bits" in paper(Findings(runs()))
    assert len(MATRICES) * 2 == len(joint.results["layers"])


@pytest.mark.parametrize(("tied", "compute"), [(True, None), (False, "float32")])
def test_the_size_of_the_model_is_that_of_the_tensors_it_is_saved_as_whatever_it_computes_in(tmp_path, tied, compute):
    tiny.network(tie_word_embeddings=tied).model.to(torch.bfloat16).save_pretrained(tmp_path)
    subject = load(str(tmp_path), None, None, False, None, 1, "cpu", compute=compute)
    tensors = load_file(tmp_path / "model.safetensors")
    sizes_of = [(tensor.numel(), tensor.nbytes) for tensor in tensors.values()]
    linears = sum(tensor.nbytes for name, tensor in tensors.items() if name.endswith("proj.weight"))
    weights, size = map(sum, zip(*sizes_of, strict=True))
    assert stored(subject, subject.weights()) == {"weights": weights, "bytes": size, "linears": linears}


@needed
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("width", "group"), [(3, 16), (4, None)])
def test_bits_on_disk_are_those_of_the_tensors_of_a_packed_model(tmp_path, dtype, width, group):
    store = BlockStore(tmp_path / "run")
    model, blocks = solve(stored_model(tmp_path / "base", dtype=dtype), store, packable(width, group))
    saving.save(model, tmp_path / "packed", store)
    layers = [layer for block in blocks for layer in tabulate_block(block)["layers"]]
    results = {"layers": layers, "stored": stored(model, {layer["name"] for layer in layers})}
    found = bits.count(results, {"quantizer": {"symmetric": True}})
    files = (tmp_path / "packed").glob("*.safetensors")
    size = sum(tensor.nbytes for file in files for tensor in load_file(file).values())
    assert found.model.disk * found.weights / 8 == pytest.approx(size, abs=1e-6)
    scales = sum(map(grids, layers)) * 8 * dtype.itemsize / sum(map(weights, layers))
    assert found.linears.masked == pytest.approx(width / 2 + 1 + scales)


def weights(layer):
    return math.prod(layer["shape"])


def grids(layer):
    return layer["shape"][0] * layer["grids"]
