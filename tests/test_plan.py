"""A plan tells what a run will prune, compute and need, from shapes alone; its counts are held against formulas."""

import pytest
import torch
import transformers
from torch._subclasses import fake_tensor

from experiments import plan
from experiments.composing import command
from experiments.composing.job import Job
from experiments.composing.method import make
from experiments.planning import describe, memory
from experiments.planning.anatomy import dissect
from experiments.planning.counting import count, statistic_size, summing
from experiments.planning.gauge import gauge
from experiments.planning.outlook import operations, outlook, total_operations
from experiments.runs.folder import Names
from prune.method import Method
from prune.network import Network
from prune.statistics.inputs import Gram, Squares
from tests import tiny
from tests.small import config_of


def method(*overrides) -> Method:
    config = command.jobs(list(overrides))[0].config
    return Method(*(make(config[part]) for part in ("pattern", "metric", "allocator", "update")))


def work(*overrides):
    config = command.jobs([*overrides, "device=cpu"])[0].config
    return outlook(config)


def test_operations_bytes_and_what_is_alive_are_counted():
    a = torch.randn(100, 100)
    left, counts = count(lambda: (a @ a + 1) * 2)
    assert counts.operations == 2 * 100**3
    assert counts.peak == 2 * left.numel() * 4 and counts.left == left.numel() * 4


@pytest.mark.parametrize("family", ["llama", "opt", "mixtral", "bloom"])
def test_a_model_without_numbers_shows_its_matrices_bytes_and_operations(family):
    real = tiny.network(family)
    whole = sum(tensor.numel() * tensor.element_size() for tensor in {*real.model.parameters(), *real.model.buffers()})
    sizes = {name: tuple(matrix.shape) for name, matrix in real.weights().items()}
    network = tiny.network(family)
    network.model.to("meta").tie_weights()  # which moving it undoes
    body = dissect(network, 16)
    assert {layer.name: layer.shape for block in body.blocks for layer in block.layers} == sizes
    assert body.size == whole
    for block in body.blocks:
        products = sum(2 * 16 * layer.tokens * layer.shape[0] * layer.shape[1] for layer in block.layers)
        assert products <= block.forward.operations <= 2 * products  # attention's own products come on top


def test_linears_that_share_an_input_are_found_without_running_the_model():
    network = tiny.network("llama")
    network.model.to("meta")
    leaders = {
        layer.name.rpartition(".")[2]: layer.leader.rpartition(".")[2] for layer in dissect(network, 8).blocks[0].layers
    }
    assert leaders["v_proj"] == leaders["k_proj"] == "q_proj" and leaders["up_proj"] == "gate_proj"
    assert leaders["down_proj"] == "down_proj"


@pytest.mark.parametrize("kind", ["gpt2", "deepseek_v4"])  # matrices in no nn.Linear, looked for by trying
def test_a_plan_lets_torch_log_no_faults_of_tensors_without_numbers(kind, monkeypatch):
    logged = []
    monkeypatch.setattr(fake_tensor.log, "exception", lambda *said: logged.append(said))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of(kind))
    assert dissect(Network(model), 8).blocks and not logged


def test_a_model_whose_code_asks_for_numbers_is_refused_in_one_line():
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of("jetmoe"))
    with pytest.raises(ValueError, match=r"^JetMoeForCausalLM decides by numbers what it computes .*; a plan has none"):
        dissect(Network(model), 8)


def test_sparsegpt_costs_what_its_algorithm_says():
    costs = gauge(method("experiment=sparsegpt"), given=False)
    o, i = 4096, 11008
    assert costs.operations(o, i) == pytest.approx(o * i**2, rel=0.05)  # every weight meets the later columns
    assert costs.deriving(o, i) == pytest.approx(i**3, rel=0.03)  # a Cholesky factor and its inverse
    assert costs.derived(o, i) == pytest.approx(4 * i**2, rel=0.01)  # U, float32
    assert costs.kept(o, i) == pytest.approx(5 * o * i, rel=0.01)  # a weight and its mask


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ("magnitude", (0, 0)),
        ("wanda", (2, 0)),
        ("besa", (3, 1)),
        ("besa_layer", (4, 1)),
        ("barber", (5, 1)),
    ],
)
def test_passes_are_those_that_the_methods_table_of_the_readme_names(asked, passes):
    assert work(f"experiment={asked}").passes == passes


def test_a_survey_is_paid_by_the_first_run_that_needs_it():
    known = set()
    configs = [command.jobs(["experiment=gblm", f"sparsity={s}", "device=cpu"])[0].config for s in (0.5, 0.6)]
    first, second = (outlook(config, known) for config in configs)
    assert first.surveys == [("LossGradient", 256, 128)] and second.surveys == []
    assert first.windows[0].dense in (True, False) and not second.windows[0].dense


def test_activations_leave_the_device_and_then_the_host():
    found = work("experiment=wanda")
    peaks = [memory.peak(found, place, "cuda") for place in memory.PLACES]
    assert peaks[0][0] > peaks[1][0] == peaks[2][0] and peaks[1][1] > peaks[2][1]
    states = 128 * 256 * 192 * 4  # n t h float32
    assert peaks[1][1] - peaks[2][1] == pytest.approx(2 * states)


def test_operations_are_those_of_passes_sums_and_the_method():
    found = work("experiment=sparsegpt")
    layers = [layer for block in found.body.blocks for layer in block.layers]
    parts, weights = operations(found), sum(o * i for o, i in (layer.shape for layer in layers))
    tokens, widths = 128 * 256, [layer.shape[1] for layer in layers if layer.leader == layer.name]
    attention = 4 * 256 * 192 * 6  # of a token, in two products of each block
    assert parts["calibration"]["rate"] == 2 * tokens * (2 * weights + attention), "two passes"
    assert 1 < parts["calibration"]["summing"] / (tokens * sum(i**2 for i in widths)) < 1.4, "half a Gram matrix"
    once = sum(o * i**2 for o, i in (layer.shape for layer in layers)) + sum(i**3 for i in widths)
    assert parts["solving"]["wide"] == pytest.approx(once, rel=0.3)
    assert total_operations(found) == sum(sum(rates.values()) for rates in parts.values())


@pytest.mark.parametrize("width", [7, 192, 11008])
def test_what_a_statistic_costs_is_told_by_its_shape(width):
    assert statistic_size(Squares(), width) == 4 * width and summing(Squares(), width) == 0
    assert statistic_size(Gram(), width) == 4 * width**2
    assert width**2 <= summing(Gram(), width) <= 2 * width**2, "half of it, in panels"


def test_a_plan_names_what_is_pruned_and_what_it_takes(capsys):
    assert plan.main(["experiment=sparsegpt", "device=cpu", "model=demo"]) == 0
    said = capsys.readouterr().out
    assert "42 matrices" in said and "model.layers.*.mlp.down_proj [192, 512] x 6" in said
    assert "2 forward + 0 backward over 128 x 256 tokens" in said and "floating-point operations: calibration" in said
    assert "activations=disk" in said and "assumed" in said


def test_a_multirun_has_a_line_for_each_run_and_a_total(capsys):
    assert plan.main(["-m", "experiment=magnitude,wanda", "device=cpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said[2:4]] == ["magnitude", "wanda"]
    assert said[4].startswith("2 of 2 runs to do: ") and " operations, " in said[4]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("update.dampin=1", "did you mean"),
        ("model=local model.path=/nowhere", "no such folder"),
        ("pattern=2of4 sparsity=0.6", "removes exactly 0.5"),
    ],
)
def test_what_the_runner_refuses_the_plan_refuses_in_one_line(capsys, asked, said):
    assert plan.main([*asked.split(), "device=cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and said in error


def test_the_lines_of_a_multirun_are_told_apart_by_what_is_not_the_same():
    config = {"allocator": {"sparsity": 0.5}}
    names = Names("demo", "wanda", "unstructured", "")
    words = [("experiment=wanda", "data.sequences=8", f"seed={seed}") for seed in (0, 1)]
    jobs = [Job(config, names, overrides) for overrides in words]
    assert describe.named(jobs) == ["demo wanda unstructured 0.5 seed=0", "demo wanda unstructured 0.5 seed=1"]
    assert describe.named(jobs[:1]) == ["demo wanda unstructured 0.5"]
