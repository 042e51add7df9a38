"""Zero-shot accuracy through EleutherAI's lm-evaluation-harness (lm-eval 0.4.13), the model staying in memory.

Keys are `acc/<task>`, `acc_norm/<task>` (log-likelihood divided by the answer's length) and their standard errors
`acc_stderr/<task>`, `acc_norm_stderr/<task>`. The papers of the Wanda family print `acc`.

lm-eval keeps a task's prompt, choices and metrics in a YAML of its own ("recipe"). For a task that is read from a file,
its recipe is included as it is and only the data source replaced, so that the numbers mean the same as from the hub.
"""

import copy
import importlib.metadata
import json
import logging
import math
import random
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import datasets
import lm_eval
import numpy
from lm_eval.api import model as lm_eval_model
from lm_eval.api import task as lm_eval_task
from lm_eval.evaluator import evaluate
from lm_eval.models import huggingface
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from experiments.console.bars import under_label
from experiments.console.errors import nearest, one_line
from experiments.data.files import ROWS, entries, stem
from experiments.demo import stdlib_task as demo
from experiments.evals.evaluator import Evaluator
from experiments.files.disk import digest
from experiments.runs.tasks import joined, suffix
from prune.decoder import Decoder

log = logging.getLogger("experiments")
TASKS_FOLDER = Path(lm_eval.__file__).parent / "tasks"
RECIPES = {  # of the tasks that are read from files
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
NAMES = (*RECIPES, BLIMP, STDLIB)
RENAMED = {"premise": "sentence1", "hypothesis": "sentence2"}  # RTE as SuperGLUE has it, and as its recipe reads it
PAPERS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")  # Wanda's seven tasks


@dataclass(frozen=True)
class Zeroshot(Evaluator):
    """Runs the tasks with no examples in the prompt.

    tasks: names of lm-eval's tasks or groups, each measured by itself; `stdlib` is the demo's own, made from Python's
        documentation.
    files: folder with <task>.jsonl.gz (blimp: blimp.zip) to read instead of the hub; where it only has a
        <task>_sample.jsonl.gz, that is used and reported as the task <task>_sample. null: lm-eval's data from the hub.
    limit: take only the first so many examples of each task (the keys then say so: acc/boolq@first100); null takes all.
    length: longest prompt with answer in tokens, capped by the model's own limit; the beginning of a longer one is cut.
    batch: answers scored per forward.
    """

    tasks: Sequence[str] = PAPERS
    files: str | None = None
    limit: int | None = None
    length: int = 2048
    batch: int = 16
    whole: ClassVar[bool] = True  # lm-eval calls the whole model, on the device

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError for settings, folders and files that cannot work; reads first rows."""
        listed = isinstance(self.tasks, list | tuple) and all(isinstance(name, str) for name in self.tasks)
        if not listed or not self.tasks:
            raise ValueError(f"eval.zeroshot.tasks should be a list like [boolq,rte], found {self.tasks!r}")
        if repeated := sorted({name for name in self.tasks if self.tasks.count(name) > 1}):
            raise ValueError(f"eval.zeroshot.tasks names {', '.join(repeated)} more than once")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise ValueError(f"eval.zeroshot.limit should be a whole number of at least 1, found {self.limit}")
        for task in self.tasks:
            check_task(task, self._folder)

    def __call__(self, decoder: Decoder) -> dict[str, Any]:
        """The accuracies, the protocol that makes them comparable, and each example's scores. Raises like `check`.

        Tasks are measured one by one, so that none depends on those beside it: lm-eval batches all answers it is given
        together by their length, and draws what it shuffles from the global generators.
        """
        self.check()
        if decoder.tokenizer is None:
            raise ValueError("eval=zeroshot turns text into tokens, and this model has no tokenizer")
        _silence()
        return joined([self._answer(task, decoder) for task in self.tasks])

    def _answer(self, task: str, decoder: Decoder) -> dict[str, Any]:
        """What `__call__` returns, of one task or group."""
        random.seed(0)  # lm-eval's own seeds: some of its tasks shuffle their choices by the global generators
        numpy.random.seed(1234)
        with tempfile.TemporaryDirectory(prefix="zeroshot-") as folder:
            name, source = prepare_task(task, self._folder, Path(folder))
            scorer = Scorer.of(decoder, min(self.length, decoder.limit), self.batch)
            loaded = self._loaded(name, Path(folder))
            # Not `simple_evaluate`, which would run git and list the machine. With 0 bootstrap draws lm-eval would
            # leave out every standard error, closed forms included.
            results = evaluate(scorer, loaded, limit=self.limit, bootstrap_iters=100, log_samples=True)
        if scorer.cut:
            log.warning("zeroshot: %d answers of %s exceed %d tokens, prompt cut", scorer.cut, name, scorer.max_length)
        return {
            "metrics": self._metrics(results),
            "protocol": self._protocol(results, name, source, scorer),
            "details": {"scores": self._scores(results["samples"])},
        }

    @property
    def _folder(self) -> Path | None:
        return Path(self.files) if self.files is not None else None

    def _loaded(self, name: str, folder: Path) -> dict[str, Any]:
        """A task of lm-eval, or a group's, with data. ValueError for what it cannot use, OSError for the hub's."""
        remote = self.files is None and name != STDLIB
        manager = _index() if remote else TaskManager(include_path=str(folder), include_defaults=False)
        if name not in (known := [*manager.all_subtasks, *manager.all_groups]):
            raise ValueError(f"lm-eval has no task or group {name!r}{nearest(name, known)}")
        try:
            loaded = manager.load([name])
        except OSError as error:
            reason = str(error).partition("\n")[0]
            raise OSError(f"no task data ({reason}); without a hub use eval.zeroshot.files=FOLDER") from error
        except Exception as error:  # whatever a recipe raises, which is tried on the first row
            misfit = f"the first row does not fit lm-eval's recipe ({one_line(error)})"
            raise ValueError(f"task {name}: {misfit}") from error
        for leaf, task in loaded["tasks"].items():
            task.set_config(key="num_fewshot", value=0)
            if not remote:
                refuse_unanswerable(leaf, task, self.limit)
        return loaded

    def _metrics(self, results: dict) -> dict[str, float]:
        """Flat keys: of the task, or of a group and all its members."""
        return {
            f"{metric}/{name}{suffix(self.limit)}": value
            for name, values in results["results"].items()
            for metric, value in _numbers(values)
        }

    def _scores(self, samples: dict[str, list[dict]]) -> dict[str, list[float]]:
        """What each example scored, by the metric's key and in the order of the task: two models are paired by it."""
        scores: dict[str, list[float]] = {}
        for task, examples in samples.items():
            for example in sorted(examples, key=lambda each: each["doc_id"]):
                for metric in ("acc", "acc_norm"):
                    if metric in example and example["filter"] == "none":
                        scores.setdefault(f"{metric}/{task}{suffix(self.limit)}", []).append(float(example[metric]))
        return scores

    def _protocol(self, results: dict, name: str, source: dict[str, Any], scorer: "Scorer") -> dict[str, Any]:
        facts = {"version": results["versions"].get(name), "examples": _examples(name, results)}
        return {
            "lm_eval": importlib.metadata.version("lm_eval"),
            "fewshot": 0,
            "limit": self.limit,
            "length": scorer.max_length,
            "batch": self.batch,
            "tasks": {name: facts | {"members": list(_members(name, results))} | source},
            "cut": scorer.cut,
        }


@cache
def _index() -> TaskManager:
    """lm-eval's own tasks, which it takes ten seconds to look through."""
    return TaskManager()


class Scorer(HFLM):
    """lm-eval's view of the model, on the device where it is; `cut` counts the answers whose prompt had to be cut."""

    cut: int = 0

    @classmethod
    def of(cls, decoder: Decoder, length: int, batch: int) -> "Scorer":
        """With a copy of the tokenizer: lm-eval gives it a padding token, which would end up in the saved model."""
        tokenizer = copy.deepcopy(decoder.tokenizer)
        return cls(pretrained=decoder.model, tokenizer=tokenizer, max_length=length, batch_size=batch)

    def _loglikelihood_tokens(self, requests: list, *options: Any, **named: Any) -> list:
        for _, prompt, answer in requests:
            if not 0 < len(answer) <= self.max_length:
                raise ValueError(f"an answer has {len(answer)} tokens, possible are 1 to {self.max_length}")
            if len(prompt) + len(answer) > self.max_length + 1:
                self.cut += 1
        return super()._loglikelihood_tokens(requests, *options, **named)


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """lm-eval's "metric,filter" entries that are numbers: a standard error that does not exist is the string N/A."""
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if comma and isinstance(value, int | float) and math.isfinite(value):
            yield metric if kind == "none" else f"{metric}-{kind}", float(value)


def _examples(name: str, results: dict) -> int:
    """How many examples a task was run on; a group on those of its members."""
    if name in results["group_subtasks"]:
        return sum(_examples(member, results) for member in results["group_subtasks"][name])
    return results["n-samples"][name]["effective"]


def _members(name: str, results: dict) -> Iterator[str]:
    """The tasks and groups inside a group, at any depth."""
    for member in results["group_subtasks"].get(name, ()):
        yield member
        yield from _members(member, results)


def _silence() -> None:
    """Only the bars over all answers, called as ours: no log lines about settings, no bar per task for its prompts."""
    levels = {"lm_eval": logging.ERROR, "datasets": logging.WARNING, "httpx": logging.WARNING}
    levels["transformers.tokenization_utils_base"] = logging.ERROR  # long prompts are cut, and counted, by the scorer
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    datasets.disable_progress_bars()
    lm_eval_task.tqdm = lambda documents, **_: documents
    lm_eval_model.tqdm = huggingface.tqdm = _bar


def _bar(*things: Any, desc: str = "", **settings: Any) -> Any:
    """A bar of lm-eval, "Running generate_until requests" for one, in fewer words, and those of the stage ahead."""
    return under_label(*things, desc=desc.removeprefix("Running ").removesuffix(" requests").lower(), **settings)


def check_task(task: str, files: Path | None) -> None:
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
    return any(word.search(recipe.read_bytes()) for recipe in TASKS_FOLDER.rglob("*yaml"))


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


def prepare_task(task: str, files: Path | None, folder: Path) -> tuple[str, dict[str, Any]]:
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
        _write(folder, name, _include(RECIPES[task]), rows(path))
    return name, {"file": path.name, "sha256": digest(path), "sample": name != task}


def _write_blimp(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for paradigm, member in _paradigms(path).items():
            file = Path(archive.extract(member, folder / "unpacked"))
            _write(folder, f"blimp_{paradigm}", _include(f"blimp/{paradigm}.yaml"), rows(file))
    (folder / "blimp.yaml").write_text(json.dumps(_include("blimp/_blimp.yaml")))


def _include(recipe: str) -> dict[str, str]:
    return {"include": str(TASKS_FOLDER / recipe)}


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
