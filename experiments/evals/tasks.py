"""Zero-shot tasks from files: what each task's rows must hold, and the folder lm-eval reads instead of the hub.

lm-eval keeps a task's prompt, choices and metrics in a YAML of its own ("recipe"). Here a recipe is included as it is
and only its data source replaced, so that the numbers mean the same as from the hub.
"""

import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.console.errors import nearest
from experiments.data.documents import ROWS, entries, objects, stem
from experiments.demo import stdlib_task as demo


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


def locate(task: str, files: Path) -> Path:
    """The task's file in the folder: TASK.jsonl.gz, else TASK_sample.jsonl.gz, or another of `ROWS` (blimp: blimp.zip).

    Raises ValueError for a task whose file layout is not known, FileNotFoundError when the folder has no such file.
    """
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


def probe(task: str, path: Path) -> None:
    """Reads the first row of a task's file. Raises ValueError when the file cannot be read or the row is malformed."""
    if task != BLIMP:
        next(rows(path, LAYOUTS[task]))
    elif len(found := _paradigms(path)) != PARADIGMS:
        raise ValueError(f"{path} holds {len(found)} paradigms (*.jsonl), BLiMP has {PARADIGMS}")


def rows(path: Path, layout: Layout) -> Iterator[dict]:
    """The checked rows of a file. Raises ValueError, naming file and row, for what cannot be read or is no row."""
    return _checked(entries(path), layout, path.name)


def _checked(found: Iterable[tuple[str, Any]], layout: Layout, file: str) -> Iterator[dict]:
    where = None
    for where, raw in found:
        try:
            yield layout.row(raw)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if where is None:
        raise ValueError(f"{file} has no rows")


def _paradigms(path: Path) -> dict[str, str]:
    """Paradigm -> its member of the archive; the metadata files macOS adds (._name) are not data."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = map(PurePosixPath, archive.namelist())
            return {m.stem: str(m) for m in members if m.suffix == ".jsonl" and not m.name.startswith(".")}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable zip file: {error}") from error


def redirect(task: str, path: Path, folder: Path) -> str:
    """Writes into `folder` what lm-eval needs to read `task` from `path`; returns the name under which it is reported.

    A sample is reported under its own name: its numbers must never stand in the column of the whole task.
    """
    if task == BLIMP:
        _redirect_blimp(path, folder)
        return BLIMP
    name = stem(path)
    _write(folder, name, {"include": _recipe(LAYOUTS[task].recipe)}, rows(path, LAYOUTS[task]))
    return name


def _redirect_blimp(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for paradigm, member in _paradigms(path).items():
            layout = Layout(f"blimp/{paradigm}.yaml", {"sentence_good": PHRASE, "sentence_bad": PHRASE})
            with io.BufferedReader(archive.open(member)) as stream:
                content = _checked(objects(stream, member), layout, member)
                _write(folder, f"blimp_{paradigm}", {"include": _recipe(layout.recipe)}, content)
    (folder / "blimp.yaml").write_text(json.dumps({"include": _recipe("blimp/_blimp.yaml")}))


def invent(folder: Path) -> Path:
    """Writes the demo's own task into `folder`; returns the file of its questions."""
    return _write(folder, STDLIB, demo.RECIPE, demo.questions())


def _recipe(path: str) -> str:
    """Absolute path of a YAML inside lm-eval, found without importing it. Raises ValueError when there is none."""
    package = importlib.util.find_spec("lm_eval")
    recipe = Path(package.submodule_search_locations[0]) / "tasks" / path if package else None
    if recipe is None or not recipe.is_file():
        raise ValueError(f"lm-eval has no tasks/{path}; install lm-eval[hf]==0.4.13")
    return str(recipe)


def mentioned(task: str) -> bool:
    """Whether a recipe of lm-eval names this task or group; two seconds, where asking lm-eval itself takes twenty."""
    package = importlib.util.find_spec("lm_eval")
    recipes = Path(package.submodule_search_locations[0]) / "tasks" if package else Path("lm_eval")
    word = re.compile(rb"(?<![^\s\"',\[])" + re.escape(task.encode()) + rb"(?![^\s\"',\]])")
    return any(word.search(recipe.read_bytes()) for recipe in recipes.rglob("*yaml"))


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
