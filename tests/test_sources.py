"""Code counts by its content where it decides a number, and nowhere else; whoever edits it gets the number of now."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.composing import command
from experiments.runs import identity, sources
from tests.answers import place, run, write
from tests.faults import settings

ROOT = Path(__file__).parents[1]
# What the runs of four methods, an evaluation, a dense number, windows and a gradient are named by, before any edit
# and after each one: files are edited one at a time, by adding what is typed behind their first docstring. A text that
# was read before is not taken apart again.
ASK = """
import json, sys
from functools import cache
from pathlib import Path
from experiments.composing import command
from experiments.runs import identity, sources
edits, files = map(json.loads, sys.argv[1:])
jobs = {name: command.jobs([f"experiment={name}", "eval=[perplexity,audit]"])[0].config for name in METHODS}
anew = sources.read.__wrapped__
read = cache(lambda name, text: anew(name))
sources.read = lambda name: read(name, sources._file(name) and sources._bytes(sources._file(name)))

def names():
    sources._bytes.cache_clear()
    found = {name: identity.identity(config) for name, config in jobs.items()}
    config = jobs["wanda"]
    found["perplexity"] = identity.fingerprint(identity.by_content(config["eval"]["perplexity"]))
    found["dense"] = identity.dense(config, "perplexity")
    found["windows"] = sources.code("experiments.data.stdlib.Stdlib", "experiments.data.token_cache.cached_windows")
    found["gradient"] = sources.code("prune.statistics.gradient.Gradient", *identity.LIBRARY)
    return found

before, changed = names(), {edit: {} for edit in edits}
for edit in edits:
    for file in map(Path, files):
        text = file.read_text()
        doc, _, rest = text.partition('\"\"\"\\n')
        file.write_text(f'{doc} Otherwise.\"\"\"\\n# a comment\\n\\n\\n{rest}{edit}')
        changed[edit][str(file)] = sorted(name for name, now in names().items() if before[name] != now)
        file.write_text(text)
print(json.dumps(changed))
"""
CODE, COMMENT = "\n\ndef _new():\n    return 1\n", "\n# another comment\n"
METHODS = ("wanda", "magnitude", "besa", "gblm")
RUNS = set(METHODS)
CACHED = {"perplexity", "dense", "windows", "gradient"}
# file: what an edit of its code changes
EDITS = {
    "prune/metrics/wanda.py": {"wanda", "besa"},  # besa's default metric
    "prune/metrics/gblm.py": {"gblm"},
    "prune/allocators/besa.py": {"besa"},
    "prune/patterns/n_m.py": set(),
    "prune/statistics/gradient.py": {"gblm", "gradient"},
    "prune/lowest.py": {"wanda", "magnitude", "besa", "gblm"},
    "prune/prune.py": RUNS | {"gradient"},
    "prune/network.py": RUNS | CACHED - {"windows"},
    "experiments/models/load.py": RUNS | {"dense"},
    "experiments/models/checkpoint.py": RUNS | {"dense"},
    "experiments/models/saving.py": set(),
    "experiments/data/stdlib.py": RUNS | {"dense", "windows", "perplexity"},
    "experiments/evals/perplexity.py": {"perplexity", "dense"},
    "experiments/evals/zeroshot.py": set(),
    "experiments/evals/audit.py": set(),
    "experiments/trackers/jsonl.py": set(),
    "experiments/figures/depth.py": set(),
    "experiments/summary/rows.py": set(),
    "experiments/running/printing.py": set(),
    "experiments/console/errors.py": set(),
    "experiments/runs/record.py": set(),
    "experiments/running/pipeline.py": set(),
    "experiments/planning/outlook.py": set(),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project that can be edited."""
    top = tmp_path_factory.mktemp("project")
    for name in ("prune", "experiments", "conf"):
        shutil.copytree(ROOT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    return top


def start(project, *line):
    """A command of the copied project."""
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, *line], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found


@pytest.fixture(scope="module")
def changed(project):
    """What changes its name by an edit of each file."""
    answer = start(
        project, "-c", ASK.replace("METHODS", repr(METHODS)), json.dumps([CODE, COMMENT]), json.dumps([*EDITS])
    )
    return {
        edit: {file: set(names) for file, names in files.items()} for edit, files in json.loads(answer.stdout).items()
    }


def test_an_edit_changes_the_names_of_what_it_decides_and_of_nothing_else(changed):
    assert changed[CODE] == EDITS


def test_comments_docstrings_and_line_breaks_are_no_code(changed):
    assert changed[COMMENT] == {file: set() for file in EDITS}


def test_a_module_that_is_moved_is_the_same_code_and_a_function_of_another_one_is_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_tools.py").write_text("def choose(a): return a\ndef other(a): return -a\n")
    (tmp_path / "mine_others.py").write_text("def choose(a): return -a\n")
    body = (
        "from {} import choose\nimport mine_others\nclass Mine:\n    def __call__(self, a):\n        return choose(a)\n"
    )
    for name, origin in {"mine_one": "mine_tools", "mine_two": "mine_moved", "mine_three": "mine_others"}.items():
        (tmp_path / f"{name}.py").write_text(body.format(origin))
    shutil.copy(tmp_path / "mine_tools.py", tmp_path / "mine_moved.py")
    found = [sources.code(f"mine_{number}.Mine") for number in ("one", "two", "three")]
    assert found[0] == found[1] != found[2] and None not in found
    assert sources.code("mine_nowhere.Mine") is None


def test_a_run_is_the_same_whichever_module_its_class_lies_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    config = command.jobs(["experiment=besa"])[0].config
    shutil.copy(ROOT / "prune" / "allocators" / "besa.py", tmp_path / "mine_besa.py")
    moved = config | {"allocator": config["allocator"] | {"_target_": "mine_besa.BESA"}}
    before = identity.content(config)
    assert identity.content(moved) == before and before["allocator"]["version"], "its optimizer's version is kept"
    with (tmp_path / "mine_besa.py").open("a") as file:
        file.write("\nSTEPS = 1\n")
    sources.read.cache_clear()
    sources._bytes.cache_clear()
    assert identity.identity(moved) != identity.identity(config)


def test_what_a_package_of_ones_own_imports_late_relatively_and_in_its_init_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "method_of_mine" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("SHARP = 2\n")
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("import torch\nimport json\n")
    (package / "late.py").write_text("from prune import lowest\n")
    (package / "metric.py").write_text(
        "from . import tools\ndef score():\n    from .late import lowest\n    return lowest\n"
    )
    read = set(sources.modules("method_of_mine.inner.metric.score"))
    own = {"method_of_mine", *(f"method_of_mine.inner.{name}" for name in ("metric", "tools", "late"))}
    assert own | {"prune.lowest"} <= read
    assert not {name.partition(".")[0] for name in read} - {"method_of_mine", "prune"}, "nothing that is installed"


def test_an_edit_while_a_command_runs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "mine_edited.py"
    file.write_text("def score(a): return a\n")
    first = sources.code("mine_edited.score")
    assert sources.edited("mine_edited.score") == []
    file.write_text("def score(a): return -a\n")
    assert sources.edited("mine_edited.score") == ["mine_edited"] and sources.code("mine_edited.score") == first


TOKENS = "experiment=wanda data.sequences=4"
GBLM = TOKENS.replace("wanda", "gblm")
TEXTS = "experiment=wanda data=textfile data.path={here}/calib.txt data.sequences=4 data.length=16"
TEXTS += " eval=[perplexity] eval.perplexity.path={here}/test.txt eval.perplexity.length=16"
# What is edited -> how, in a run of which words, and whether its numbers, pruned and dense, are others then.
EDITED = [
    ("prune/metrics/wanda.py", "return weight", "return -weight", TOKENS, [True, False]),
    ("prune/statistics/gradient.py", "gradient.abs_() if", "gradient.abs_().sub_(1).neg_() if", GBLM, [True, False]),
    ("experiments/data/files.py", "self._read()[: self.seq", "self._read().flip(1)[: self.seq", TOKENS, [True, False]),
    ("experiments/data/files.py", 'text.replace("\\r\\n", "\\n")', 'text.replace("a", "e")', TEXTS, [True, True]),
    ("experiments/evals/perplexity.py", "mean.exp().item()", "(2 * mean).exp().item()", TOKENS, [True, True]),
]


@pytest.mark.slow  # four commands
@pytest.mark.parametrize(("file", "old", "new", "words", "changes"), EDITED)
def test_whoever_edits_code_gets_the_numbers_of_now_and_the_old_ones_when_it_is_undone(
    project, tmp_path, file, old, new, words, changes
):
    here = place(tmp_path)
    write(here / "calib.txt", "a cat barks at 7 trees! " * 60)
    write(here / "test.txt", "the cat sat on the mat. " * 60)

    def numbers(outputs):
        found = start(project, "-m", "experiments.run", *settings(f"{words} outputs={here / outputs}", here))
        results = json.loads((run(found.stdout) / "results.json").read_text())
        (key,) = (key for key in results["dense"] if key.startswith("ppl/"))
        return [results[part][key] for part in ("metrics", "dense")], found.stdout + found.stderr

    first, _ = numbers("out")
    kept = (project / file).read_text()
    assert kept.count(old) == 1
    (project / file).write_text(kept.replace(old, new))
    try:
        second, said = numbers("out")
        assert second == numbers("fresh")[0]
    finally:
        (project / file).write_text(kept)
    assert [now != before for now, before in zip(second, first, strict=True)] == changes
    module = file.removesuffix(".py").replace("/", ".")
    assert ".evals." in module or ("the code has changed since" in said and module in said)
    assert numbers("out")[0] == first
