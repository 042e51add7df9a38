"""What only a GPU shows: the same answers as on the CPU, and no more than one block on the device."""

import gc
import json

import pytest
import torch

from experiments.archive import Record
from experiments.reporting import latency
from prune.precision import as_fine_as
from prune.prune import prune
from prune.states import Place, States
from prune.statistics.inputs import Gram
from tests.test_contracts import composed, options, solve
from tests.tiny import Memory, decoder, magnitude, random, sparsegpt, tokens, wanda

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3", "mixtral"])
@pytest.mark.parametrize("method", [magnitude, wanda, sparsegpt])
def test_masks_and_perplexity_are_those_of_the_cpu(family, method):
    answers = {}
    for device in ("cpu", "cuda"):
        subject = decoder(family)
        subject.device = torch.device(device)
        masks = [p.mask.cpu().flatten() for s in prune(subject, tokens(), method()) for p in s.linears.values()]
        answers[device] = torch.cat(masks), subject.losses(tokens(seed=1))
    assert (answers["cpu"][0] != answers["cuda"][0]).float().mean() < 5e-3
    torch.testing.assert_close(answers["cpu"][1], answers["cuda"][1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("pattern", ["unstructured", "2of4"])
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_meets_its_budget_and_finds_nearly_the_masks_of_the_cpu(experiment, pattern, family):
    def on(device):
        def make(family):
            subject = decoder(family)
            subject.device = torch.device(device)
            return subject

        config, _, solved = solve(experiment, f"pattern={pattern}", family=family, make=make)
        return config.allocator.sparsity, torch.cat([p.mask.cpu().flatten() for p in solved.values()])

    if pattern == "2of4" and not composed(experiment).allocator._target_.endswith("Uniform"):
        with pytest.raises(ValueError, match="varies the sparsity"):  # nothing else may be refused on a GPU
            on("cuda")
        return
    sparsity, there = on("cuda")
    assert int((~there).sum()) == int(sparsity * there.numel() + 0.5)
    assert (there != on("cpu")[1]).float().mean() < 0.02, "sums in another order decide near ties"


def test_a_resumed_run_takes_its_blocks_from_the_host():

    store, weights = Memory(), []
    for _ in range(2):
        subject = decoder()
        subject.device = torch.device("cuda")
        for _ in prune(subject, tokens(), sparsegpt(), done=store):
            pass
        weights.append(torch.cat([w.flatten() for w in subject.weights().values()]))
        del store["model.layers.2"]
    assert torch.equal(*weights)


def test_the_model_goes_back_to_the_host_block_by_block():
    subject = decoder(num_hidden_layers=4)
    subject.device = torch.device("cuda")
    for solved in prune(subject, tokens(), wanda()):
        resident = {p.device.type for name, p in subject.model.named_parameters() if solved.block not in name}
        assert resident == {"cpu"}
    assert {p.device.type for p in subject.model.parameters()} == {"cpu"}


def test_the_device_holds_one_block_its_statistics_and_one_layer_of_activations():
    sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 8}
    subject, data = decoder(num_hidden_layers=8, max_position_embeddings=512, **sizes), tokens(32, 512)
    subject.device = torch.device("cuda")
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    for _ in prune(subject, data, sparsegpt()):
        pass
    block = 4 * sum(p.numel() for p in subject.blocks[0].parameters())
    grams = 4 * (3 * 512**2 + 1408**2)
    states = 4 * 32 * 512 * 512
    workspace = 4 * 4 * 512 * (1408 * 4 + 512 * 8)  # temporaries of one batch in attention and MLP
    assert torch.cuda.max_memory_allocated() < 2 * block + 4 * grams + states + workspace


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gram_matrix_of_half_precision_inputs_is_as_exact_as_one_of_float32(dtype):
    x = (random(5000, 700, seed=1) + 0.5).to(dtype)
    exact = x.double().T @ x.double()
    for value in (Gram().of(x.cuda()), Gram().add(Gram().of(x[:2000].cuda()), x[2000:].cuda()), Gram().of(x)):
        assert value.dtype == torch.float32
        assert (value.cpu().double() - exact).norm() / exact.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_matrix_units_round_the_inputs_of_half_precision_models_only(dtype):
    one, other = (random(300, 300, seed=k).cuda() for k in (1, 2))
    exact = one.double() @ other.double()
    error = lambda: ((one @ other).double() - exact).norm() / exact.norm()
    with as_fine_as([one.to(dtype)], one.device):
        assert (error() > 1e-5) == (dtype != torch.float32)
    assert error() < 1e-5, "what comes after it is exact again"


@pytest.mark.parametrize("activations", ["host", "disk"])
def test_hidden_states_come_back_from_the_host_as_they_were(tmp_path, activations):
    kept = States(Place(torch.device("cuda"), activations, str(tmp_path)))
    sent = [torch.randn(2, 512, 1024, device="cuda") for _ in range(20)]
    for state in sent:
        kept.append(state.clone())
    for k, state in enumerate(sent):
        kept[k] = kept[k] + 1  # read and written while others are on their way
        assert torch.equal(kept[k], state + 1) and kept[k].is_cuda


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_layers_of_2of4_runs_are_measured_once_and_compute_what_the_dense_ones_do(tmp_path, dtype):
    layers = [{"name": "h.0.q", "block": "h.0", "shape": [512, 1024], "sparsity": 0.5, "dtype": dtype}]
    run = Record(tmp_path, {"config": {"pattern": {"n": 2, "m": 4}}}, {"layers": layers}, "done")
    found = latency.measure([run], tmp_path)
    if found.reason:  # an old GPU, or a torch without the kernels: then it says so
        assert "cuSPARSELt:" in found.reason and "CUTLASS:" in found.reason and not found.rows
        pytest.skip(found.reason)
    (file,) = tmp_path.glob("latency-*.json")
    entries = json.loads(file.read_text())["layers"]
    assert [(entry["tokens"], entry["dtype"]) for entry in entries] == [(tokens, dtype) for tokens in latency.TOKENS]
    assert all(entry["dense"] > 0 and entry["packed"] > 0 and entry["error"] < 2e-2 for entry in entries)
    assert len(found.rows) == len(latency.TOKENS) and {len(row) for row in found.rows} == {len(latency.HEADER)}
    before = file.read_bytes()
    assert latency.measure([run], tmp_path) == found
    assert file.read_bytes() == before
