"""Tasks of lm-eval that are read from local files, and which of its tasks cannot be run here.

lm-eval keeps a task's prompt, choices and metrics in a YAML of its own ("recipe"). For a task that is read from a file,
its recipe is included as it is and only the data source replaced, so that the numbers mean the same as from the hub.
"""

import importlib.util
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import lm_eval
import yaml
from lm_eval.api.instance import Instance

from experiments.console.errors import nearest, one_line
from experiments.data.files import ROWS, entries, stem
from experiments.demo import stdlib_task as demo
from experiments.files.disk import digest
from experiments.runs.tasks import COMPLETE, QUESTIONS_OF, STDLIB, gives_examples

TASKS_FOLDER = Path(lm_eval.__file__).parent / "tasks"
CHOSEN = {  # recipes of the tasks that are read from files; of these an answer is chosen,
    "boolq": "super_glue/boolq/default.yaml",
    "rte": "glue/rte/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
}
WRITTEN = {  # and of these one is written
    "gsm8k": "gsm8k/gsm8k.yaml",
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "gsm8k_cot_zeroshot": "gsm8k/gsm8k-cot-zeroshot.yaml",
}
RECIPES = CHOSEN | WRITTEN
BLIMP = "blimp"
PARADIGMS = 67  # of BLiMP
MADE = {STDLIB: (demo.RECIPE, demo.questions), COMPLETE: (demo.COMPLETE, demo.beginnings)}  # without a file
NAMES = (*RECIPES, BLIMP, *MADE)
RENAMED = {"premise": "sentence1", "hypothesis": "sentence2"}  # RTE as SuperGLUE has it, and as its recipe reads it
NEEDS = {"ifeval": ("langdetect", "immutabledict", "nltk")}  # what lm-eval's extra of the same name installs
NEEDS["leaderboard_ifeval"] = NEEDS["leaderboard_instruction_following"] = NEEDS["ifeval"]
# They need antlr4-python3-runtime 4.11, and Hydra needs 4.9; some would run with that one and count all as wrong.
MATHS = re.compile(
    r"(minerva_math|putnam_axiom|(non_greedy|prompt)_robustness_math|leaderboard_math)\w*"
    "|score_((non_greedy|prompt)_)?robustness_math|score_robustness|leaderboard|math_word_problems"
)


def check_task(task: str, files: Path | None, shots: int | None) -> None:
    """ValueError or FileNotFoundError for a task that is not known, not in the folder or not for here; reads a row.

    shots: few-shot examples in each prompt; None is what the task's recipe says, and 0 where an answer is chosen.
    """
    refuse_elsewhere(task)
    if shots and (task in MADE or (files and task == BLIMP)):
        raise ValueError(f"task {task} has no examples for its prompts; leave fewshot=null")
    if files and task not in MADE:
        path = locate(task, files)
        if task != BLIMP:
            next(rows(path))
            examples_of(task, files, shots)
        elif len(paradigms := _paradigms(path)) != PARADIGMS:
            raise ValueError(f"{path} holds {len(paradigms)} paradigms (*.jsonl), BLiMP has {PARADIGMS}")
    elif task not in NAMES and not _mentioned(task):
        raise ValueError(f"lm-eval has no task or group {task!r}{nearest(task, NAMES)}")


def refuse_elsewhere(task: str) -> None:
    """ValueError for a task whose packages are not installed, or cannot be beside Hydra's."""
    if MATHS.fullmatch(task):
        raise ValueError(
            f"task {task} needs antlr4-python3-runtime 4.11, Hydra 4.9; with save_model=true, in an environment with "
            f"lm-eval[hf,math]: lm_eval --model hf --model_args pretrained=<run>/model --tasks {task}"
        )
    if missing := [package for package in NEEDS.get(task, ()) if not importlib.util.find_spec(package)]:
        raise ValueError(f"task {task} needs {', '.join(missing)}: pip install {' '.join(missing)}")


def _mentioned(task: str) -> bool:
    """Whether a recipe of lm-eval names this task or group; two seconds, where its own index takes ten."""
    word = re.compile(rb"(?<![^\s\"',\[])" + re.escape(task.encode()) + rb"(?![^\s\"',\]])")
    return any(word.search(recipe.read_bytes()) for recipe in TASKS_FOLDER.rglob("*yaml"))


def locate(task: str, files: Path) -> Path:
    """The task's file in the folder: TASK.jsonl.gz, else TASK_sample.jsonl.gz, or another of `ROWS` (blimp: blimp.zip).

    Raises ValueError for a task that is not read from files, FileNotFoundError when the folder has no such file.
    """
    if task not in NAMES:
        raise ValueError(f"task {task!r} is not read from files{nearest(task, NAMES)}; these are: {', '.join(NAMES)}")
    own = QUESTIONS_OF.get(task, task)
    names = ["blimp.zip"] if task == BLIMP else [f"{name}{end}" for name in (own, f"{own}_sample") for end in ROWS]
    for name in names:
        if (files / name).is_file():
            return files / name
    present = sorted(path.name for path in files.iterdir())
    raise FileNotFoundError(
        f"task {task}: {files} has no {' or '.join(names[:: len(ROWS)])}{nearest(names[0], present)}; it has "
        f"{', '.join(present) or 'nothing'}"
    )


def examples_of(task: str, files: Path, shots: int | None) -> Path | None:
    """The file of a task's few-shot examples, TASK_train or TASK_train64; None where its prompts have none of a file.

    Raises FileNotFoundError where they need one and the folder has none, ValueError where it has several.
    """
    recipe = yaml.safe_load((TASKS_FOLDER / RECIPES[task]).read_text()) if task in WRITTEN else {}
    if "fewshot_config" in recipe or not (recipe.get("num_fewshot") if shots is None else shots):
        return None
    there = [path for path in sorted(files.iterdir()) if path.name.endswith(ROWS) and gives_examples(task, stem(path))]
    if len(there) > 1:
        raise ValueError(f"task {task}: {files} has {', '.join(path.name for path in there)}; keep one")
    if not there:
        own = f"{QUESTIONS_OF.get(task, task)}_train.jsonl.gz"
        raise FileNotFoundError(f"task {task}: {files} has no {own} with examples for its prompts; or set fewshot=0")
    return there[0]


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


def prepare_task(task: str, files: Path | None, folder: Path, shots: int | None = None) -> tuple[str, dict[str, Any]]:
    """Writes into `folder` what lm-eval needs to read a task from elsewhere than the hub.

    Returns the name under which the task is reported, and where its data comes from. A sample has a name of its own:
    its numbers must never stand in the column of the whole task.
    """
    if task in MADE:
        recipe, make = MADE[task]
        return task, {"file": None, "sha256": digest(_write(folder, task, recipe, make())), "sample": False}
    if files is None:
        return task, {"file": None, "sha256": None, "sample": False}
    path = locate(task, files)
    source: dict[str, Any] = {"file": path.name, "sha256": digest(path)}
    if task == BLIMP:
        _write_blimp(path, folder)
        return BLIMP, source | {"sample": False}
    name = stem(path).replace(QUESTIONS_OF.get(task, task), task)
    shown = examples_of(task, files, shots)
    if shown:
        source["shown"] = {"file": shown.name, "sha256": digest(shown)}
    _write(folder, name, _include(RECIPES[task]), rows(path), rows(shown) if shown else ())
    return name, source | {"sample": name != task}


def _write_blimp(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for paradigm, member in _paradigms(path).items():
            file = Path(archive.extract(member, folder / "unpacked"))
            _write(folder, f"blimp_{paradigm}", _include(f"blimp/{paradigm}.yaml"), rows(file))
    (folder / "blimp.yaml").write_text(json.dumps(_include("blimp/_blimp.yaml")))


def _include(recipe: str) -> dict[str, str]:
    return {"include": str(TASKS_FOLDER / recipe)}


def _write(folder: Path, name: str, recipe: dict, content: Iterable[dict], shown: Iterable[dict] = ()) -> Path:
    """The data, and the recipe that reads it. JSON is YAML; `tag: null` keeps the task out of lm-eval's own lists."""
    data = _dump(folder / f"{name}.jsonl", content)
    examples = _dump(folder / f"{name}_train.jsonl", shown)
    parts = {"validation": str(data)} | ({"train": str(examples)} if examples.stat().st_size else {})
    train = "train" if "train" in parts else None
    source = {
        "task": name,
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": parts, "cache_dir": str(folder / "cache")},
        "training_split": train,
        "fewshot_split": train,
        "validation_split": "validation",
        "test_split": None,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe | source))
    return data


def _dump(path: Path, content: Iterable[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    return path


def refuse_unanswerable(name: str, task: Any, limit: int | None) -> None:
    """ValueError for a row of a loaded task whose own answer counts as wrong, whatever a model says."""
    for number, row in enumerate(islice(task.eval_docs, limit), 1):
        try:
            fault = _unwritable(task, row) if task.OUTPUT_TYPE == "generate_until" else _unchosen(task, row)
        except Exception as error:  # whatever a recipe raises where a field is missing or of another kind
            raise ValueError(f"task {name}, row {number}: {one_line(error)}") from error
        if fault:
            raise ValueError(f"task {name}, row {number}: {fault}")


def _unchosen(task: Any, row: dict) -> str | None:
    """What is wrong with a row whose answer is none of its choices."""
    prompt, choices = task.doc_to_text(row), task.doc_to_choice(row)
    answer = prompt if task.multiple_input else task.doc_to_target(row)  # Winogrande's prompts are its choices
    known = answer in (choices if isinstance(answer, str) else range(len(choices)))
    return None if known else f"{answer!r} is none of the choices {choices}"


def _unwritable(task: Any, row: dict) -> str | None:
    """What is wrong with a row whose answer no filter of the task would find right, were it written by a model."""
    answer = task.doc_to_target(row)
    written = Instance("generate_until", row, (task.doc_to_text(row), {}), 0, resps=[answer])
    for filters in task._filters:
        filters.apply([written])
    scores = [task.process_results(row, [said]) for said in written.filtered_resps.values()]
    right = any(value for each in scores for value in each.values())
    return None if right else f"its own answer {answer!r:.60} counts as wrong"
