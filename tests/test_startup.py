"""What answers at once loads no more than it needs: imports are most of a small command's time."""

import subprocess
import sys
from pathlib import Path

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


def test_help_and_typing_mistakes_do_without_torch():
    helps = [f"{command} --help" for command in ("run", "verify", "bench", "table", "plan")]
    wrong = ["run experiment=wnda", "run spars=0.5", "run sparsity=half", "plan spars=0.5"]
    code = """
from importlib import import_module
for line in sys.argv[1:]:
    command, *sys.argv[1:] = line.split()
    try:
        import_module(f"experiments.{command}").main()
    except SystemExit:
        pass
    assert "torch" not in sys.modules, line
"""
    assert not loaded(code, *helps, *wrong) & set(HEAVY)


def test_a_finished_run_is_told_without_torch():
    folder = workplace()
    asked = settings("experiment=magnitude save_model=true", folder)
    code = "from experiments import run\nassert run.main() == 0"
    assert not loaded(code, *asked) & {"torch", *HEAVY}
