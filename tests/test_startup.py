"""What answers at once loads no more than it needs: imports are most of a small command's time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import command, parts, plan, provenance, results
from experiments.data import stdlib
from experiments.disk import seal
from experiments.planning import bodies, gauge, outlook, prospect
from experiments.planning.counting import count
from experiments.planning.summing import PROBED, statistic_size, summing
from prune.statistics.inputs import Gram, Squares
from tests.faults import settings, workplace

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
    assert tops <= {"prune", "torch", "jaxtyping", "numpy", "prodigyopt"}, "and what these work with"
    assert not own & set(HEAVY)


@pytest.mark.parametrize("asked", ["--help", "experiment=wnda", "spars=0.5", "sparsity=half"])
def test_help_and_typing_mistakes_do_without_torch(asked):
    run = "from experiments import run\ntry: run.main()\nexcept SystemExit: pass"
    assert not loaded(run, asked) & {"torch", *HEAVY}


@pytest.mark.parametrize("experiment", ["sparsegpt", "besa"])  # besa's optimizer loads torch's compiler
def test_a_plan_asked_for_again_is_the_same_without_torch_and_a_like_one_without_transformers(
    tmp_path, capsys, experiment
):
    asked = [f"experiment={experiment}", "device=cpu", f"outputs={tmp_path}"]
    said = []
    for _ in range(2):
        bodies.body.cache_clear()
        assert plan.main(asked) == 0
        said.append([line for line in capsys.readouterr().out.splitlines() if "free" not in line])
    assert said[0] == said[1]
    assert all(len(list(tmp_path.glob(f"cache/{kind}/*.json"))) == 1 for kind in ("bodies", "gauges", "plans"))
    assert not loaded("from experiments import plan\nplan.main()", *asked) & {"torch", *HEAVY}
    assert not loaded("from experiments import plan\nplan.main()", *asked, "data.seed=1") & set(HEAVY)


@pytest.mark.parametrize("change", ["nothing", "settings", "dense", "code", "packages", "damage"])
def test_a_plan_is_made_anew_where_what_it_depends_on_is_another(tmp_path, capsys, monkeypatch, change):
    asked, made, look = ["experiment=magnitude", "device=cpu", f"outputs={tmp_path}"], [], outlook.Outlook.prospect
    monkeypatch.setattr(outlook.Outlook, "prospect", lambda self, config: made.append(config) or look(self, config))
    assert plan.main(asked) == 0
    if change == "settings":
        asked.append("save_model=true")
    elif change == "dense":  # the first run of a model evaluates it dense, too
        config = command.jobs(asked)[0].config
        seal(results.dense_step(config, "perplexity"), {})
    elif change == "code":
        monkeypatch.setattr(prospect, "ROOT", tmp_path)
    elif change == "packages":
        monkeypatch.setattr(provenance, "versions", lambda: {"torch": "another"})
    elif change == "damage":
        (kept,) = tmp_path.glob("cache/plans/*.json")
        kept.write_text(kept.read_text().replace('"blocks": 6', '"blocks": 7'))
    assert plan.main(asked) == 0 and len(made) == (1 if change == "nothing" else 2)
    assert capsys.readouterr().out.count("6 blocks") == 2


def test_a_finished_run_is_told_without_torch():
    folder = workplace()
    asked = settings("experiment=magnitude save_model=true", folder)
    code = "from experiments import run\nassert run.main() == 0"
    assert not loaded(code, *asked) & {"torch", *HEAVY}


def test_the_counts_of_a_method_are_read_as_they_were_found(tmp_path):
    method = parts.method(command.jobs(["experiment=sparsegpt"])[0].config)
    found, again = (gauge.kept(method, False, "cpu", str(tmp_path)) for _ in range(2))
    other = parts.method(command.jobs(["experiment=sparsegpt", "update.damping=0.1"])[0].config)
    gauge.kept(other, False, "cpu", str(tmp_path))
    assert found == again and len(list(tmp_path.glob("cache/gauges/*.json"))) == 2


def test_a_body_is_read_as_it_was_found_and_found_where_nothing_can_be_written(tmp_path):
    options = ("demo", None, "bfloat16", False)
    find = bodies.body.__wrapped__
    found = find(options, None, False, 64, str(tmp_path))
    assert find(options, None, False, 64, str(tmp_path)) == found and found.dtype == "bfloat16"
    assert find(options, None, False, 32, str(tmp_path)).length == 32
    (tmp_path / "file").touch()
    assert find(options, None, False, 64, str(tmp_path / "file")) == found


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
