"""What answers at once loads no more than it needs: imports are most of a small command's time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import command, parts, plan
from experiments.data import stdlib
from experiments.planning import bodies, gauge
from experiments.planning.counting import count
from experiments.planning.summing import PROBED, statistic_size, summing
from prune.statistics.inputs import Gram, Squares

ROOT = Path(__file__).parents[1]
HEAVY = ("transformers", "accelerate", "sympy", "torch._dynamo", "matplotlib", "datasets", "wandb")


def loaded(code: str, *asked: str) -> set[str]:
    """The modules of a new process after this code; `sys.argv` has what is asked."""
    line = [sys.executable, "-c", f"import sys\n{code}\nprint('loaded:', *sys.modules)", *asked]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_the_library_loads_torch_and_nothing_else():
    every = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("prune/**/*.py")]
    own = loaded(
        f"import torch\nbefore = set(sys.modules)\nimport {', '.join(every)}\nfor m in before: del sys.modules[m]"
    )
    tops = {module.partition(".")[0] for module in own} - sys.stdlib_module_names
    assert tops <= {"prune", "torch", "jaxtyping", "numpy"}, "the shapes in signatures, and what torch works with"
    assert not own & set(HEAVY)


@pytest.mark.parametrize("asked", ["--help", "experiment=wnda", "spars=0.5", "sparsity=half"])
def test_help_and_typing_mistakes_do_without_torch(asked):
    run = "from experiments import run\ntry: run.main()\nexcept SystemExit: pass"
    assert not loaded(run, asked) & {"torch", *HEAVY}


@pytest.mark.parametrize("experiment", ["sparsegpt", "besa"])  # besa's optimizer loads torch's compiler
def test_a_second_plan_says_the_same_without_transformers(tmp_path, capsys, experiment):
    asked = [f"experiment={experiment}", "device=cpu", f"outputs={tmp_path}"]
    said = []
    for _ in range(2):
        bodies.body.cache_clear()
        assert plan.main(asked) == 0
        said.append([line for line in capsys.readouterr().out.splitlines() if "free" not in line])
    times = [k for k, line in enumerate(said[0]) if line.startswith("time")]
    assert said[0][: times[0]] == said[1][: times[0]]
    assert len(list(tmp_path.glob("cache/bodies/*.json"))) == len(list(tmp_path.glob("cache/gauges/*.json"))) == 1
    assert not loaded("from experiments import plan\nplan.main()", *asked) & set(HEAVY)


def test_the_counts_of_a_method_are_read_as_they_were_found(tmp_path):
    method = parts.method(command.jobs(["experiment=sparsegpt"])[0].config)
    found, again = (gauge.kept(method, False, "cpu", str(tmp_path)) for _ in range(2))
    other = parts.method(command.jobs(["experiment=sparsegpt", "update.damping=0.1"])[0].config)
    gauge.kept(other, False, "cpu", str(tmp_path))
    assert found == again and len(list(tmp_path.glob("cache/gauges/*.json"))) == 2


def test_a_body_is_read_as_it_was_found_and_found_where_nothing_can_be_written(tmp_path):
    options = ("demo", None, "bfloat16", False)
    find = bodies.body.__wrapped__
    found = find(options, None, 64, str(tmp_path))
    assert find(options, None, 64, str(tmp_path)) == found and found.dtype == "bfloat16"
    assert find(options, None, 32, str(tmp_path)).length == 32
    (tmp_path / "file").touch()
    assert find(options, None, 64, str(tmp_path / "file")) == found


@pytest.mark.parametrize("width", [7, 192, 11008])
@pytest.mark.parametrize("statistic", [Gram(), Squares()])
def test_few_features_tell_what_a_statistic_of_many_costs(statistic, width):
    x = torch.empty(PROBED, width, device="meta")
    value, counts = count(lambda: statistic.of(x))
    assert statistic_size(statistic, width) == value.numel() * value.element_size()
    fixed = statistic_size(statistic, width)
    assert summing(statistic, width) == (counts.operations, max(counts.traffic - fixed, 0) + 12 * x.numel())


def test_checking_the_text_of_the_standard_library_reads_little_of_it(monkeypatch):
    read = []
    monkeypatch.setattr(stdlib, "_docstrings", lambda module: read.append(module) or ["a docstring"])
    stdlib.Stdlib(sequences=1, length=8, seed=0).check()
    assert len(read) < 100
