"""Sizes are those of torch's own tensors; latency is of the shapes of 2:4 runs, or says why it is not measured."""

import json
import math
from pathlib import Path

import numpy
import pytest
import torch
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from experiments import bench
from experiments.benchmarking import latency
from experiments.reporting import sizes
from experiments.runs.record import Record, load, read
from experiments.summary.rows import arrange
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured

SHAPES = [(32, 128), (64, 192)]


def pruned(kind: torch.dtype, pattern, sparsity: float) -> list[torch.Tensor]:
    """Matrices of SHAPES without zeros but those that the pattern makes."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.rand(shape, generator=draw) + 0.5 for shape in SHAPES]
    masks = [pattern.select(weight, torch.tensor([sparsity])) for weight in weights]
    return [(weight * mask).to(kind) for weight, mask in zip(weights, masks, strict=True)]


def put(folder: Path, matrices: list[torch.Tensor], pattern: dict, asked="auto", audited=True, **layer) -> Record:
    """A run that made these matrices with model.dtype=`asked`; `layer` is what its results say of each besides."""
    layers = [
        {"name": f"h.{k}.q", "block": f"h.{k}", "shape": list(matrix.shape), "target": 0.5, "notes": {}, **layer}
        | {"sparsity": 1 - (matrix != 0).double().mean().item()}
        for k, matrix in enumerate(matrices)
    ]
    names = {"model": "demo", "method": "wanda", "pattern": "some", "sparsity": 0.5, "identity": folder.name}
    config = {"model": {"path": "demo", "dtype": asked}, "pattern": pattern}
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(names | {"status": "done", "config": config}))
    metrics = {"ppl/text@128": 20.0} | ({"audit/violations": 0.0} if audited else {})
    (folder / "results.json").write_text(json.dumps({"metrics": metrics, "dense": {}, "layers": layers}))
    return load(folder)


def bytes_of(*tensors: torch.Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(torch.float32, "float32"), (torch.float16, "float16"), (torch.bfloat16, "bfloat16")]
)
@pytest.mark.parametrize("sparsity", [0.3, 0.71])
def test_dense_bitmask_and_csr_are_as_large_as_the_tensors_that_torch_and_numpy_make(tmp_path, kind, dtype, sparsity):
    matrices = pruned(kind, Unstructured(), sparsity)
    found = sizes.size(put(tmp_path / "a", matrices, {"scope": "row"}, dtype))
    rows = [matrix.to_sparse_csr() for matrix in matrices]
    assert found == {
        "dense": bytes_of(*matrices),
        "bitmask": sum(numpy.packbits((m != 0).numpy()).nbytes + m[m != 0].nbytes for m in matrices),
        "csr": sum(bytes_of(r.values(), r.col_indices().int(), r.crow_indices().int()) for r in rows),
    }


@pytest.mark.parametrize(("kind", "dtype"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_two_of_four_is_as_large_as_what_torch_packs_it_into(tmp_path, kind, dtype):
    matrices = pruned(kind, NM(2, 4), 0.5)
    found = sizes.size(put(tmp_path / "a", matrices, {"n": 2, "m": 4}, dtype))
    assert found["n:m"] == sum(bytes_of(*sparse_semi_structured_from_dense_cutlass(matrix)) for matrix in matrices)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 8), (3, 5)])
def test_any_n_of_m_needs_the_bits_that_tell_m_places_apart(tmp_path, n, m):
    matrix = torch.tensor([[1.0] * n + [0.0] * (m - n)] * 7)
    found = sizes.size(put(tmp_path / "a", [matrix], {"n": n, "m": m}, "float32"))
    bits = len(f"{m - 1:b}")  # the highest place, written down
    assert found["n:m"] == 4 * 7 * n + math.ceil(7 * n * bits / 8)


def test_nothing_is_packed_that_was_not_audited_or_has_too_many_weights(tmp_path):
    half, dense = pruned(torch.float32, NM(2, 4), 0.5), torch.ones(4, 8)
    assert "n:m" in sizes.size(put(tmp_path / "a", half, {"n": 2, "m": 4}, "float32"))
    assert "n:m" not in sizes.size(put(tmp_path / "b", half, {"n": 2, "m": 4}, "float32", audited=False))
    assert "n:m" not in sizes.size(put(tmp_path / "c", [*half, dense], {"n": 2, "m": 4}, "float32"))
    assert sizes.size(put(tmp_path / "d", [dense], {"n": 2, "m": 4}, "float32")) is None, "nothing was removed"


def test_the_dtype_that_the_results_name_counts_and_an_unknown_one_has_no_size(tmp_path):
    matrices = pruned(torch.float16, Unstructured(), 0.5)
    put(tmp_path / "a", matrices, {}, "auto", dtype="float16")
    put(tmp_path / "b", matrices, {}, "auto")
    known, unknown = read([tmp_path])
    assert (sizes.dtype(known), sizes.dtype(unknown)) == ("float16", None)
    assert (sizes.size(known)["dense"], sizes.size(unknown)) == (bytes_of(*matrices), None)


def test_runs_of_one_size_share_a_row(tmp_path):
    for name, sparsity in (("a", 0.5), ("b", 0.5), ("c", 0.75)):
        put(tmp_path / name, pruned(torch.float32, Unstructured(), sparsity), {"scope": "row"}, "float32")
    cells = sizes.rows(arrange(read([tmp_path])))
    assert [dict(list(zip(sizes.HEADER, row, strict=True))[:8]) for row in cells] == [
        {"model": "demo", "pattern": "some", "sparsity": "0.5000", "dtype": "float32", "runs": "2"}
        | {"dense bytes": "65,536", "bitmask bytes": "34,816", "of dense": "0.531"},
        {"model": "demo", "pattern": "some", "sparsity": "0.7500", "dtype": "float32", "runs": "1"}
        | {"dense bytes": "65,536", "bitmask bytes": "18,432", "of dense": "0.281"},
    ]


@pytest.fixture
def runs(tmp_path):
    """A 2:4 run whose results name bfloat16, one in float32 that shares no shape with it, and an unstructured one."""
    put(tmp_path / "a", pruned(torch.bfloat16, NM(2, 4), 0.5), {"n": 2, "m": 4}, dtype="bfloat16")
    put(tmp_path / "b", [torch.ones(16, 16)], {"n": 2, "m": 4}, "float32")
    put(tmp_path / "c", [torch.ones(48, 16)], {"scope": "row"}, "float32")
    return read([tmp_path])


def test_what_no_latency_can_be_told_of_is_said_in_one_line(tmp_path, runs, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for folder, reason in ((tmp_path / "c", "has the pattern 2:4: nothing to time"), (tmp_path, "no CUDA device")):
        assert bench.main(["latency", str(folder), "--to", str(tmp_path / "bench")]) == 2
        said = capsys.readouterr().err
        assert reason in said and len(said.splitlines()) == 1
    assert not (tmp_path / "bench").exists()


def test_each_shape_is_timed_once_and_one_that_no_kernel_takes_is_named(tmp_path, runs, monkeypatch):
    shapes = []

    def timed(shape):  # stands for the GPU
        shapes.append(shape)
        if shape[0] == 64:
            raise RuntimeError("cuSPARSELt: no\nnever")
        return [[shape[2], f"{shape[0]} x {shape[1]}", "CUTLASS", "1", "10.0", "8.0", "1.25", "1.0e-03"]]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200 (a/b)")
    monkeypatch.setattr(latency, "timed", timed)
    text = latency.measure([tmp_path], tmp_path)
    assert shapes == [(16, 16, "float16"), (32, 128, "bfloat16"), (64, 192, "bfloat16")], (
        "torch has no 2:4 kernel for float32: float16 stands for it"
    )
    assert [line.split("|")[2].strip() for line in text.splitlines() if "CUTLASS" in line] == ["16 x 16", "32 x 128"]
    assert "not measured: 64 x 192 bfloat16: cuSPARSELt: no\n" in text
    assert text.startswith((tmp_path / "latency-NVIDIA-H200-a-b.md").read_text().rstrip())


def test_two_of_every_four_weights_stay_and_they_are_the_larger_ones():
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(latency.two_of_four(weight), weight * NM(2, 4).select(weight.abs(), torch.tensor([0.5])))
