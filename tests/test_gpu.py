"""What a device that is not the CPU shows: the same answers as on the CPU, and no more than one block there.

Each test runs on a GPU where there is one, and everywhere on the emulated device (tests/emulated.py), where the answers
have to have the bits of the CPU; on a GPU sums in another order decide near ties.
"""

import gc
from contextlib import contextmanager
from functools import partial
from itertools import product

import pytest
import torch

from experiments.benchmarking import latency
from prune.precision import as_fine_as
from prune.prune import prune
from prune.states import Place, States
from prune.statistics.inputs import Gram
from tests import emulated
from tests.test_contracts import composed, fitting, options, solve
from tests.tiny import FAMILIES, Memory, magnitude, network, random, sparsegpt, tokens, wanda

slow_there = lambda *values: pytest.param(*values, marks=pytest.mark.slow)
CASES = [("llama", sparsegpt), ("mixtral", wanda)]
SOON = [f"experiment={name}" for name in ("admm", "barber", "besa", "dsnot", "mixed")]
PATTERNS = ("unstructured", "2of4", "4of8")
BEYOND = [("falcon", wanda), ("falcon", sparsegpt)]  # what the emulation cannot run
MORE = [(family, method) for family in FAMILIES for method in (magnitude, wanda, sparsegpt)]


def made_for(device):
    """A maker of tiny models that are pruned on this device."""

    def make(family="llama", **changes):
        subject = network(family, **changes)
        subject.device = torch.device(device)
        return subject

    return make


@contextmanager
def measured(device):
    """Tells the bytes on the device at most, as long as this lasts."""
    gc.collect()
    if device.type == emulated.NAME:
        emulated.memory.peak = emulated.memory.held
        yield lambda: emulated.memory.peak
    else:
        torch.cuda.reset_peak_memory_stats()
        yield torch.cuda.max_memory_allocated


@pytest.mark.parametrize(("family", "method"), [*CASES, *(slow_there(*case) for case in MORE if case not in CASES)])
def test_masks_and_perplexity_are_those_of_the_cpu(family, method, far):
    if (family, method) in BEYOND and far.type == emulated.NAME:
        pytest.skip("Falcon indexes by a list: under a dispatch mode torch's spare backend fails at that by itself")
    masks, losses = {}, {}
    for device in ("cpu", far):
        subject = made_for(device)(family)
        found = [p.mask.cpu().flatten() for s in prune(subject, tokens(), method()) for p in s.linears.values()]
        masks[device], losses[device] = torch.cat(found), subject.losses(tokens(seed=1))
    if far.type == emulated.NAME:
        assert torch.equal(masks["cpu"], masks[far]) and torch.equal(losses["cpu"], losses[far])
    assert (masks["cpu"] != masks[far]).float().mean() < 5e-3
    torch.testing.assert_close(losses["cpu"], losses[far], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("family", "pattern"),
    [("llama", "unstructured"), *(slow_there(*case) for case in [*product(("llama", "mixtral"), PATTERNS)][1:])],
)
@pytest.mark.parametrize("experiment", [o if o in SOON else slow_there(o) for o in options("experiment")])
def test_every_experiment_meets_its_budget_and_finds_the_masks_of_the_cpu(experiment, pattern, family, far):
    def on(device):
        make = partial(made_for(device), num_hidden_layers=2)
        config, subject, solved = solve(*fitting(f"pattern={pattern}"), experiment, family=family, make=make)
        weights = torch.cat([weight.flatten() for weight in subject.weights().values()])
        return config.allocator.sparsity, torch.cat([p.mask.flatten() for p in solved.values()]), weights

    if pattern != "unstructured" and not composed(experiment).allocator._target_.endswith("Uniform"):
        with pytest.raises(ValueError, match="varies the sparsity"):  # nothing else may be refused there
            on(far)
        return
    sparsity, there, weights = on(far)
    _, here, expected = on("cpu")
    assert int((~there).sum()) == int(sparsity * there.numel() + 0.5)
    if far.type == emulated.NAME:
        assert torch.equal(there, here) and torch.equal(weights, expected)
    assert (there != here).float().mean() < 0.02, "sums in another order decide near ties"


def test_a_resumed_run_takes_its_blocks_from_the_host(far):
    store, weights = Memory(), []
    for _ in range(2):
        subject = made_for(far)()
        for _ in prune(subject, tokens(), sparsegpt(), done=store):
            pass
        weights.append(torch.cat([w.flatten() for w in subject.weights().values()]))
        del store["model.layers.2"]
    assert torch.equal(*weights)


def test_the_model_goes_back_to_the_host_block_by_block(far):
    subject = made_for(far)(num_hidden_layers=4)
    for solved in prune(subject, tokens(), wanda()):
        resident = {p.device.type for name, p in subject.model.named_parameters() if solved.block not in name}
        assert resident == {"cpu"}
    assert {p.device.type for p in subject.model.parameters()} == {"cpu"}


def test_the_device_holds_one_block_its_statistics_and_one_layer_of_activations(far):
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 4}
    subject, data = made_for(far)(num_hidden_layers=3, **sizes), tokens(8, 64)
    with measured(far) as peak:
        for _ in prune(subject, data, sparsegpt()):
            pass
    block = 4 * sum(p.numel() for p in subject.blocks[0].parameters())
    grams = 4 * (3 * 64**2 + 176**2)
    states = 4 * 8 * 64 * 64
    workspace = 4 * 4 * 64 * (176 * 4 + 64 * 8)  # temporaries of one batch in attention and MLP
    assert block + grams + states < peak() < 2 * block + 4 * grams + states + workspace


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gram_matrix_of_half_precision_inputs_is_as_exact_as_one_of_float32(dtype, far):
    x = (random(5000, 700, seed=1) + 0.5).to(dtype)
    exact = x.double().T @ x.double()
    for value in (Gram().of(x.to(far)), Gram().add(Gram().of(x[:2000].to(far)), x[2000:].to(far)), Gram().of(x)):
        assert value.dtype == torch.float32
        assert (value.cpu().double() - exact).norm() / exact.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_matrix_units_round_the_inputs_of_half_precision_models_only(dtype, far):
    one, other = (random(300, 300, seed=k).to(far) for k in (1, 2))
    exact = one.double() @ other.double()
    error = lambda: ((one @ other).double() - exact).norm() / exact.norm()
    with as_fine_as([one.to(dtype)], one.device):
        assert (error() > 1e-5) == (dtype != torch.float32)
    assert error() < 1e-5, "what comes after it is exact again"


@pytest.mark.parametrize("activations", ["host", "disk"])
def test_hidden_states_come_back_from_the_host_as_they_were(tmp_path, activations, far):
    kept = States(Place(far, activations, str(tmp_path)))
    sent = [torch.randn(2, 512, 1024, device=far) for _ in range(20)]
    for state in sent:
        kept.append(state.clone())
    for k, state in enumerate(sent):
        kept[k] = kept[k] + 1  # read and written while others are on their way
        assert torch.equal(kept[k], state + 1) and kept[k].device.type == far.type


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_2of4_layers_compute_what_the_dense_ones_do(dtype):
    try:
        rows = latency.timed((512, 1024, dtype))
    except RuntimeError as error:  # an old GPU, or a torch without the kernels: then it says so
        assert "cuSPARSELt:" in str(error) and "CUTLASS:" in str(error)
        pytest.skip(str(error))
    assert [(row[0], row[3]) for row in rows] == [(dtype, str(tokens)) for tokens in latency.TOKENS]
    for row in rows:
        dense, packed, _, error = map(float, row[4:])
        assert dense > 0 and packed > 0 and error < 2e-2 and len(row) == len(latency.HEADER)
