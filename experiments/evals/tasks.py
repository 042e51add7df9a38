"""Zero-shot tasks from files: the folder that lm-eval reads instead of the hub.

lm-eval keeps a task's prompt, choices and metrics in a YAML of its own ("recipe"). Here a recipe is included as it is
and only its data source replaced, so that the numbers mean the same as from the hub.
"""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import lm_eval

from experiments.console.errors import nearest, one_line
from experiments.data.files import ROWS, entries, stem
from experiments.demo import stdlib_task as demo
from experiments.files.disk import digest

RECIPES = Path(lm_eval.__file__).parent / "tasks"
RECIPE = {  # of the tasks that are read from files
    "boolq": "super_glue/boolq/default.yaml",
    "rte": "glue/rte/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
}
BLIMP, STDLIB = "blimp", "stdlib"
PARADIGMS = 67  # of BLiMP
NAMES = (*RECIPE, BLIMP, STDLIB)
RENAMED = {"premise": "sentence1", "hypothesis": "sentence2"}  # RTE as SuperGLUE has it, and as its recipe reads it


def check(task: str, files: Path | None) -> None:
    """ValueError or FileNotFoundError for a task that is not known or not in the folder; reads its first row."""
    if files and task != STDLIB:
        path = locate(task, files)
        if task != BLIMP:
            next(rows(path))
        elif len(paradigms := _paradigms(path)) != PARADIGMS:
            raise ValueError(f"{path} holds {len(paradigms)} paradigms (*.jsonl), BLiMP has {PARADIGMS}")
    elif task not in NAMES and not _mentioned(task):
        raise ValueError(f"lm-eval has no task or group {task!r}{nearest(task, NAMES)}")


def _mentioned(task: str) -> bool:
    """Whether a recipe of lm-eval names this task or group; two seconds, where its own index takes ten."""
    word = re.compile(rb"(?<![^\s\"',\[])" + re.escape(task.encode()) + rb"(?![^\s\"',\]])")
    return any(word.search(recipe.read_bytes()) for recipe in RECIPES.rglob("*yaml"))


def locate(task: str, files: Path) -> Path:
    """The task's file in the folder: TASK.jsonl.gz, else TASK_sample.jsonl.gz, or another of `ROWS` (blimp: blimp.zip).

    Raises ValueError for a task that is not read from files, FileNotFoundError when the folder has no such file.
    """
    if not files.is_dir():
        raise FileNotFoundError(f"eval.zeroshot.files={files} is not a folder")
    if task not in NAMES:
        raise ValueError(f"task {task!r} is not read from files{nearest(task, NAMES)}; these are: {', '.join(NAMES)}")
    names = ["blimp.zip"] if task == BLIMP else [f"{name}{end}" for name in (task, f"{task}_sample") for end in ROWS]
    for name in names:
        if (files / name).is_file():
            return files / name
    present = sorted(path.name for path in files.iterdir())
    raise FileNotFoundError(
        f"task {task}: {files} has no {' or '.join(names[:: len(ROWS)])}{nearest(names[0], present)}; it has "
        f"{', '.join(present) or 'nothing'}"
    )


def rows(path: Path) -> Iterator[dict]:
    """The rows of a file under the names that recipes read. ValueError, naming the place, for what is no row."""
    where = None
    for where, row in entries(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, found {row!r:.60}")
        yield {RENAMED.get(name, name): value for name, value in row.items()}
    if where is None:
        raise ValueError(f"{path.name} has no rows")


def _paradigms(path: Path) -> dict[str, str]:
    """Paradigm -> its member of the archive; the metadata files macOS adds (._name) are not data."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = map(PurePosixPath, archive.namelist())
            return {m.stem: str(m) for m in members if m.suffix == ".jsonl" and not m.name.startswith(".")}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable zip file: {error}") from error


def prepare(task: str, files: Path | None, folder: Path) -> tuple[str, dict[str, Any]]:
    """Writes into `folder` what lm-eval needs to read a task from elsewhere than the hub.

    Returns the name under which the task is reported, and where its data comes from. A sample has a name of its own:
    its numbers must never stand in the column of the whole task.
    """
    if task == STDLIB:
        questions = _write(folder, STDLIB, demo.RECIPE, demo.questions())
        return STDLIB, {"file": None, "sha256": digest(questions), "sample": False}
    if files is None:
        return task, {"file": None, "sha256": None, "sample": False}
    path = locate(task, files)
    name = BLIMP if task == BLIMP else stem(path)
    if task == BLIMP:
        _write_blimp(path, folder)
    else:
        _write(folder, name, _include(RECIPE[task]), rows(path))
    return name, {"file": path.name, "sha256": digest(path), "sample": name != task}


def _write_blimp(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for paradigm, member in _paradigms(path).items():
            file = Path(archive.extract(member, folder / "unpacked"))
            _write(folder, f"blimp_{paradigm}", _include(f"blimp/{paradigm}.yaml"), rows(file))
    (folder / "blimp.yaml").write_text(json.dumps(_include("blimp/_blimp.yaml")))


def _include(recipe: str) -> dict[str, str]:
    return {"include": str(RECIPES / recipe)}


def _write(folder: Path, name: str, recipe: dict, content: Iterable[dict]) -> Path:
    """The data, and the recipe that reads it. JSON is YAML; `tag: null` keeps the task out of lm-eval's own lists."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    source = {
        "task": name,
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(data)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": "validation",
        "test_split": None,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe | source))
    return data


def refuse_unanswerable(name: str, task: Any, limit: int | None) -> None:
    """ValueError for a row of a loaded task whose answer is none of its choices: lm-eval would count it as wrong."""
    for number, row in enumerate(islice(task.eval_docs, limit), 1):
        try:
            prompt, choices = task.doc_to_text(row), task.doc_to_choice(row)
            answer = prompt if task.multiple_input else task.doc_to_target(row)  # Winogrande's prompts are its choices
        except Exception as error:  # whatever a recipe raises where a field is missing or of another kind
            raise ValueError(f"task {name}, row {number}: {one_line(error)}") from error
        if answer not in (choices if isinstance(answer, str) else range(len(choices))):
            raise ValueError(f"task {name}, row {number}: {answer!r} is none of the choices {choices}")
