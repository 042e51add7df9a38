"""Who may import whom: the library knows torch, each outside package has one door, components know no siblings."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("prune/**/*.py"), *ROOT.glob("experiments/**/*.py")])
DOORS = {  # package -> the only modules that may import it
    "transformers": {
        "experiments/models.py",
        "experiments/checkpoints/library.py",
        "experiments/checkpoints/architecture.py",
        "experiments/checkpoints/skeleton.py",
        "experiments/demo/train.py",
    },
    "tokenizers": {"experiments/demo/train.py"},
    "lm_eval": {"experiments/evals/zeroshot.py", "experiments/evals/tasks.py"},
    "filelock": {"experiments/disk.py"},
    "wandb": {"experiments/trackers/wandb.py", "experiments/trackers/mirror.py", "experiments/trackers/upload.py"},
    "matplotlib": {"experiments/figures/canvas.py"},
    "jinja2": {"experiments/reporting/page.py"},
    "tabulate": {"experiments/overview.py", "experiments/verify.py"},
    "prodigyopt": {"prune/allocators/besa.py"},
}
AVOIDED = {"os", "pathlib", "logging", "random", "sys"}
LIBRARY = {"torch", "jaxtyping", "prodigyopt", "prune", *sys.stdlib_module_names} - AVOIDED
FOUNDATION = {"prune.statistic", "prune.method", "prune.budget", "prune.lowest"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def bound(place: Path) -> set[str]:
    """What can be imported from a folder, or from a module: names that it defines, sets or imports, anywhere in it."""
    if place.is_dir():
        return {path.stem for path in place.iterdir()}
    found = set()
    for node in ast.walk(ast.parse(place.with_suffix(".py").read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("tests/*.py"))], ids=name)
def test_what_is_imported_is_there_even_where_it_is_imported_late(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in (
            "prune",
            "experiments",
            "tests",
        ):
            missing = {alias.name for alias in node.names} - bound(ROOT.joinpath(*node.module.split(".")))
            assert not missing, f"line {node.lineno}: {node.module} has no {missing}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_follow_the_rules(path):
    here, found = name(path), imports(path)
    tops = {module.partition(".")[0] for module in found}
    if here.startswith("prune/"):
        assert tops <= LIBRARY, f"the library imports {tops - LIBRARY}"
    folder = path.parent.name
    ours = {module for module in found if module.startswith("prune.") and module.count(".") >= 1}
    modules = {module for module in ours if (ROOT / (module.replace(".", "/") + ".py")).exists()}
    if folder in ("patterns", "metrics", "allocators", "updates"):
        allowed = FOUNDATION | {m for m in modules if m.startswith("prune.statistics.")}
        assert modules <= allowed, f"a component imports {modules - allowed}"
    if here in ("prune/statistic.py", "prune/method.py", "prune/block.py", "prune/decoder.py", "prune/prune.py"):
        assert not any(
            m.startswith(("prune.metrics", "prune.updates", "prune.allocators", "prune.patterns")) for m in ours
        )
    for package, doors in DOORS.items():
        assert package not in tops or here in doors, f"{package} is imported outside {doors}"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=name)
def test_init_files_are_empty(path):
    assert path.read_text() == ""


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("tests/*.py"))], ids=name)
def test_files_are_short_and_open_with_a_sentence(path):
    text = path.read_text()
    assert len(text.splitlines()) <= (400 if name(path).startswith("experiments/") else 250)
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(text)), "a file opens with what it is"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_public_things_say_what_they_do_and_functions_are_short(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body and isinstance(node, ast.FunctionDef) else 0
            assert lines <= 25, f"{name(path)}: {node.name} has {lines} lines"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name(path)}: {node.name} has no docstring"


def test_only_one_module_instantiates():
    for path in FILES:
        assert "hydra.utils" not in imports(path) or name(path) == "experiments/parts.py"
