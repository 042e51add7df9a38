"""Zero-shot tasks from files: what each task's rows must hold, and the folder that lm-eval reads instead of the hub.

lm-eval keeps a task's prompt, choices and metrics in a YAML of its own ("recipe"). Here a recipe is included as it is
and only its data source replaced, so that the numbers mean the same as from the hub.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import lm_eval

from experiments.console.errors import nearest
from experiments.data.documents import ROWS, entries, stem
from experiments.demo import stdlib_task as demo
from experiments.files.disk import digest

RECIPES = Path(lm_eval.__file__).parent / "tasks"


@dataclass(frozen=True)
class Kind:
    """What one field of a row may hold: `holds(value, row)`, and the same in words for the error message."""

    meaning: str
    holds: Callable[[Any, dict], bool]


def _phrase(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _phrases(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_phrase, value))


def _choices(value: Any) -> bool:
    texts, labels = (value.get("text"), value.get("label")) if isinstance(value, dict) else (None, None)
    return _phrases(texts) and _phrases(labels) and len(texts) == len(labels)


TEXT = Kind("text", lambda value, row: isinstance(value, str))  # may be empty
PHRASE = Kind("text that is not empty", lambda value, row: _phrase(value))
BLANK = Kind("a sentence with a _", lambda value, row: _phrase(value) and "_" in value)
ENDINGS = Kind("a list of texts", lambda value, row: _phrases(value))
CHOICES = Kind('{"text": [...], "label": [...]}', lambda value, row: _choices(value))
BINARY = Kind("0 or 1", lambda value, row: value in (0, 1))
OPTION = Kind('"1" or "2"', lambda value, row: value in ("1", "2"))
ENDING = Kind("the number of one of the endings", lambda value, row: str(value) in map(str, range(len(row["endings"]))))
LABEL = Kind("one of the choices' labels", lambda value, row: value in row["choices"]["label"])


@dataclass(frozen=True)
class Layout:
    """A task's recipe (path inside lm_eval/tasks) and the fields its rows must have, those others refer to first.

    renamed: other names under which data sets carry the same field (RTE is distributed by GLUE and by SuperGLUE).
    """

    recipe: str
    fields: dict[str, Kind]
    renamed: dict[str, str] = field(default_factory=dict)

    def row(self, raw: Any) -> dict:
        """The fields the recipe needs, under its names. Raises ValueError naming the field that is missing or wrong."""
        if not isinstance(raw, dict):
            raise ValueError(f"expected an object with the fields {', '.join(self.fields)}, found {raw!r:.60}")
        known = {self.renamed.get(name, name): value for name, value in raw.items()}
        for name, kind in self.fields.items():
            if name not in known:
                raise ValueError(f"has no field '{name}' (its fields: {', '.join(known)})")
            if not kind.holds(known[name], known):
                raise ValueError(f"field '{name}' should be {kind.meaning}, found {known[name]!r:.60}")
        return {name: known[name] for name in self.fields}


_ARC = {"question": PHRASE, "choices": CHOICES, "answerKey": LABEL}
LAYOUTS = {
    "boolq": Layout("super_glue/boolq/default.yaml", {"question": PHRASE, "passage": PHRASE, "label": BINARY}),
    "rte": Layout(
        "glue/rte/default.yaml",
        {"sentence1": PHRASE, "sentence2": PHRASE, "label": BINARY},
        renamed={"premise": "sentence1", "hypothesis": "sentence2"},
    ),
    "hellaswag": Layout(
        "hellaswag/hellaswag.yaml",
        {"activity_label": TEXT, "ctx_a": PHRASE, "ctx_b": TEXT, "endings": ENDINGS, "label": ENDING},
    ),
    "winogrande": Layout(
        "winogrande/default.yaml", {"sentence": BLANK, "option1": PHRASE, "option2": PHRASE, "answer": OPTION}
    ),
    "arc_easy": Layout("arc/arc_easy.yaml", _ARC),
    "arc_challenge": Layout("arc/arc_challenge.yaml", _ARC),
    "openbookqa": Layout(
        "openbookqa/openbookqa.yaml", {"question_stem": PHRASE, "choices": CHOICES, "answerKey": LABEL}
    ),
    "piqa": Layout("piqa/piqa.yaml", {"goal": PHRASE, "sol1": PHRASE, "sol2": PHRASE, "label": BINARY}),
}
BLIMP, STDLIB = "blimp", "stdlib"
PARADIGMS = 67  # of BLiMP
NAMES = (*LAYOUTS, BLIMP, STDLIB)


def check(task: str, files: Path | None) -> None:
    """ValueError or FileNotFoundError for a task that is not known or not in the folder; reads its first row."""
    if files and task != STDLIB:
        path = locate(task, files)
        if task != BLIMP:
            next(rows(path, LAYOUTS[task]))
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

    Raises ValueError for a task whose file layout is not known, FileNotFoundError when the folder has no such file.
    """
    if not files.is_dir():
        raise FileNotFoundError(f"eval.zeroshot.files={files} is not a folder")
    if task not in NAMES:
        raise ValueError(f"no file layout is known for task {task!r}{nearest(task, NAMES)}; known: {', '.join(NAMES)}")
    names = ["blimp.zip"] if task == BLIMP else [f"{name}{end}" for name in (task, f"{task}_sample") for end in ROWS]
    for name in names:
        if (files / name).is_file():
            return files / name
    present = sorted(path.name for path in files.iterdir())
    raise FileNotFoundError(
        f"task {task}: {files} has no {' or '.join(names[:: len(ROWS)])}{nearest(names[0], present)}; it has "
        f"{', '.join(present) or 'nothing'}"
    )


def rows(path: Path, layout: Layout) -> Iterator[dict]:
    """The checked rows of a file. Raises ValueError, naming file and row, for what cannot be read or is no row."""
    where = None
    for where, entry in entries(path):
        try:
            yield layout.row(entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
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
    if task == BLIMP:
        name = BLIMP
        _write_blimp(path, folder)
    else:
        name = stem(path)
        _write(folder, name, _include(LAYOUTS[task].recipe), rows(path, LAYOUTS[task]))
    return name, {"file": path.name, "sha256": digest(path), "sample": name != task}


def _write_blimp(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for paradigm, member in _paradigms(path).items():
            layout = Layout(f"blimp/{paradigm}.yaml", {"sentence_good": PHRASE, "sentence_bad": PHRASE})
            file = Path(archive.extract(member, folder / "unpacked"))
            _write(folder, f"blimp_{paradigm}", _include(layout.recipe), rows(file, layout))
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
