"""Who may import whom: the library knows torch, each outside package has one door, components know no siblings."""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("prune/**/*.py"), *ROOT.glob("experiments/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
DOORS = {  # package -> the only modules that may import it
    "transformers": {
        "experiments/models/load.py",
        "experiments/models/skeleton.py",
        "experiments/models/vision.py",
        "experiments/models/gguf.py",
        "experiments/demo/train.py",
        "experiments/demo/train_vision.py",
    },
    "gguf": {"experiments/models/gguf.py"},
    "compressed_tensors": {"experiments/models/packed.py", "experiments/models/packing.py"},
    "tokenizers": {"experiments/demo/train.py"},
    "lm_eval": {
        "experiments/evals/zeroshot.py",
        "experiments/evals/scorer.py",
        "experiments/evals/task_files.py",
    },
    "filelock": {"experiments/files/disk.py"},
    "wandb": {"experiments/trackers/wandb.py", "experiments/trackers/upload.py"},
    "matplotlib": {"experiments/figures/canvas.py"},
    "jinja2": {"experiments/reporting/page.py"},
    "tabulate": {"experiments/console/grid.py"},
    "prodigyopt": {"prune/allocators/besa.py"},
}
AVOIDED = {"os", "pathlib", "logging", "random", "sys"}
LIBRARY = {"torch", "jaxtyping", "prodigyopt", "prune", *sys.stdlib_module_names} - AVOIDED
FOUNDATION = {
    f"prune.{name}"
    for name in ("statistic", "method", "pattern", "survey", "budget", "lowest", "grid", "sweep", "rounding")
}
OURS = ("prune", "experiments", "tests")
PARTS = ("patterns", "metrics", "allocators", "updates")
# The floors of experiments/, lowest first: an import, late ones included, points to a lower floor or stays in its room.
FLOORS = (
    ("console",),
    ("files",),
    ("models",),
    ("runs",),
    ("composing", "data", "trackers", "summary"),
    ("figures", "reporting", "evals"),
    ("running", "comparing"),
    ("planning",),
    ("reproduction", "benchmarking"),
    ("",),  # what a user types
)
# What is imported where it is used, and not at the top of its file: (file, package or room).
LATE = {
    ("experiments/run.py", "experiments.running"),  # a typing mistake need not wait for torch
    ("experiments/plan.py", "experiments.planning"),
    ("experiments/table.py", "experiments.reproduction"),
    ("experiments/bench.py", "experiments.benchmarking"),
    ("experiments/verify.py", "experiments.models"),
    ("experiments/verify.py", "experiments.runs.stores"),
    ("experiments/prune_lm.py", "experiments.composing.completion"),  # Hydra, where a shell completes
    ("experiments/composing/command.py", "experiments.composing.method"),
    ("experiments/report.py", "experiments.trackers.upload"),  # wandb, where a report goes there
    ("experiments/upload.py", "experiments.trackers.upload"),
    ("experiments/running/multirun.py", "submitit"),  # of an extra that need not be installed
    ("experiments/models/packing.py", "compressed_tensors.compressors"),  # of another one
    ("experiments/models/packed.py", "compressed_tensors.compressors"),
    ("experiments/running/process.py", "torch"),  # under torchrun alone
    ("experiments/runs/machine.py", "torch"),  # on a GPU alone
    ("prune/ranks.py", "torch"),  # commands that need no torch ask for the rank
    ("prune/ranks.py", "torch.distributed.nn"),  # for several ranks alone
}
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LOOP = {f"prune/{stem}.py" for stem in ("statistic", "method", "block", "network", "prune")}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(path)):
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
    for node in ast.walk(tree(place.with_suffix(".py"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def check(look: Callable[[Path], Iterator[str]], files: list[Path]) -> None:
    """Nothing is said of any of these files."""
    said = [f"{name(path)}: {fault}" for path in files for fault in look(path)]
    assert not said, "\n".join(said)


def test_what_is_imported_is_there_even_where_it_is_imported_late():
    def missing(path):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
                absent = {alias.name for alias in node.names} - bound(ROOT.joinpath(*node.module.split(".")))
                yield from (f"line {node.lineno}: {node.module} has no {each}" for each in absent)

    check(missing, FILES + TESTS)


def test_imports_follow_the_rules():
    def forbidden(path):
        tops = {module.partition(".")[0] for module in imports(path)}
        ours = {module for module in imports(path) if module.startswith("prune.")}
        if name(path).startswith("prune/"):
            yield from (f"the library imports {top}" for top in tops - LIBRARY)
        if path.parent.name in PARTS:
            modules = {m for m in ours if (ROOT / (m.replace(".", "/") + ".py")).exists()}
            allowed = FOUNDATION | {m for m in modules if m.startswith("prune.statistics.")}
            yield from (f"a component imports {module}" for module in modules - allowed)
        if name(path) in LOOP:
            yield from (f"the loop imports {module}" for module in ours if module.split(".")[1] in PARTS)
        yield from (f"imports {package}" for package in tops & DOORS.keys() if name(path) not in DOORS[package])

    check(forbidden, FILES)


def room(module: str) -> str:
    """The room of experiments/ in which a module lies; empty for a command."""
    first = module.split(".")[1] if "." in module else ""
    return first if (ROOT / "experiments" / first).is_dir() else ""


def test_a_room_imports_only_what_lies_below_it_and_nobody_imports_a_command():
    def climbs(path):
        own = room(name(path).removesuffix(".py").replace("/", "."))
        found = {room(module) for module in imports(path) if module.startswith("experiments.")} - {own, "demo"}
        yield from (f"imports {other or 'a command'}" for other in found if FLOOR[other] >= FLOOR[own])

    check(climbs, [path for path in FILES if name(path).startswith("experiments/") and path.parent.name != "demo"])


def test_files_do_not_import_one_another_in_a_circle():
    modules = {name(path).removesuffix(".py").replace("/", "."): path for path in FILES if path.name != "__init__.py"}
    graph = {module: imports(path) & modules.keys() for module, path in modules.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the modules


def test_imports_stand_at_the_top_of_a_file_but_for_those_that_have_a_reason():
    late = {
        (name(path), getattr(node, "module", None) or node.names[0].name)
        for path in FILES
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert late == LATE


def test_no_condition_is_a_factor():
    def faulty(path):
        for node in ast.walk(tree(path)):
            factors = [node.left, node.right] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else []
            if any(map(is_condition, factors)):
                yield f"line {node.lineno}: {ast.unparse(node)}; an `if` reads better"

    check(faulty, FILES)


def is_condition(node: ast.expr) -> bool:
    """Whether an expression is a truth value, as far as its form shows."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return isinstance(node, ast.Compare) or (called and node.func.id in ("bool", "isinstance", "any", "all"))


def test_init_files_are_empty():
    assert not [path for path in FILES if path.name == "__init__.py" and path.read_text()]


def test_files_are_short_and_open_with_a_sentence():
    def faulty(path):
        if len(path.read_text().splitlines()) > (400 if name(path).startswith("experiments/") else 250):
            yield "is too long"
        if path.name != "__init__.py" and not ast.get_docstring(tree(path)):
            yield "does not open with what it is"

    check(faulty, FILES + TESTS)


def test_public_things_say_what_they_do_and_functions_are_short():
    def faulty(path):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and node.end_lineno - body[0].lineno >= 25:
                    yield f"{node.name} is longer than 25 lines"
        for node in tree(path).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                yield f"{node.name} has no docstring"

    check(faulty, FILES)


def test_only_one_module_instantiates():
    assert [name(path) for path in FILES if "hydra.utils" in imports(path)] == ["experiments/composing/method.py"]
