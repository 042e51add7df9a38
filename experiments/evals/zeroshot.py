"""Zero-shot accuracy through EleutherAI's lm-evaluation-harness (lm-eval 0.4.13), the model staying in memory.

Keys are `acc/<task>`, `acc_norm/<task>` (log-likelihood divided by the answer's length) and their standard errors
`acc_stderr/<task>`, `acc_norm_stderr/<task>`. The papers of the Wanda family print `acc`. This is the only module that
imports lm_eval, and only when it runs: the import takes seconds.
"""

import contextlib
import copy
import importlib.metadata
import logging
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch

from experiments.console.errors import nearest
from experiments.evals import tasks
from experiments.evals.evaluator import Evaluator
from experiments.files.disk import digest
from prune.decoder import Decoder

logger = logging.getLogger(__name__)
PAPERS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")  # Wanda's seven tasks


@dataclass(frozen=True)
class Zeroshot(Evaluator):
    """Runs the tasks with no examples in the prompt.

    tasks: names of lm-eval's tasks or groups; `stdlib` is the demo's own, made from Python's documentation.
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
        if repeated := [name for name, times in Counter(self.tasks).items() if times > 1]:
            raise ValueError(f"eval.zeroshot.tasks names {', '.join(repeated)} more than once")
        for name, value in {"limit": self.limit, "length": self.length, "batch": self.batch}.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"eval.zeroshot.{name} should be a whole number of at least 1, found {value}")
        for name in self.tasks if self.files is None else ():
            if name not in tasks.NAMES and not tasks.mentioned(name):
                raise ValueError(f"lm-eval has no task or group {name!r}{nearest(name, tasks.NAMES)}")
        for task, path in self._located().items():
            tasks.probe(task, path)

    def __call__(self, decoder: Decoder) -> dict[str, Any]:
        """{"metrics": {key: float}, "protocol": JSON}; global random states stay as they are. Raises like `check`."""
        self.check()
        tokenizer = decoder.tokenizer
        if tokenizer is None or (tokenizer.bos_token_id is None and tokenizer.eos_token_id is None):
            missing = "this model has no tokenizer" if tokenizer is None else "its tokenizer has neither BOS nor EOS"
            raise ValueError(f"eval=zeroshot turns text into tokens: {missing}")
        with tempfile.TemporaryDirectory(prefix="zeroshot-") as folder, _random_state_kept():
            asked = self._prepared(Path(folder))
            with _quiet():
                scorer = _scorer(decoder, min(self.length, decoder.limit), self.batch)
                results = self._run(scorer, list(asked), Path(folder))
        for task, count in scorer.cut.items():
            logger.warning("zeroshot: %s: %d answers exceed %d tokens, prompt cut", task, count, scorer.max_length)
        found = {"metrics": self._metrics(results, asked), "protocol": self._protocol(results, asked, scorer)}
        return found | {"details": {"scores": self._scores(results["samples"])}}

    def _located(self) -> dict[str, Path]:
        """Task -> its file, for the tasks that are read from files."""
        if self.files is None:
            return {}
        folder = Path(self.files)
        if not folder.is_dir():
            raise FileNotFoundError(f"eval.zeroshot.files={self.files} is not a folder")
        return {task: tasks.locate(task, folder) for task in self.tasks if task != tasks.STDLIB}

    def _prepared(self, folder: Path) -> dict[str, dict]:
        """Writes what lm-eval reads into `folder`; name under which a task is reported -> where its data comes from."""
        located, prepared = self._located(), {}
        for task in self.tasks:
            path, name, sha256 = located.get(task), task, None
            if path:
                name, sha256 = tasks.redirect(task, path, folder), digest(path)
            elif task == tasks.STDLIB:
                sha256 = digest(tasks.invent(folder))
            prepared[name] = {"file": path and path.name, "sha256": sha256, "sample": name != task}
        return prepared

    def _run(self, scorer: Any, names: list[str], folder: Path) -> dict:
        """lm-eval's results, by its `evaluate`: `simple_evaluate` would also reseed, run git and list the machine."""
        from lm_eval.evaluator import evaluate  # noqa: PLC0415 - the import takes seconds

        loaded = self._loaded(names, folder)
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=0)
        # With 0 bootstrap draws lm-eval would leave out every standard error, closed forms included.
        return evaluate(scorer, loaded, limit=self.limit, bootstrap_iters=100, log_samples=True)

    def _loaded(self, names: list[str], folder: Path) -> dict:
        """lm-eval's tasks with their data. Raises ValueError for an unknown name, OSError when the hub fails."""
        from lm_eval.tasks import TaskManager  # noqa: PLC0415

        remote = self.files is None and names != [tasks.STDLIB]  # lm-eval takes ten seconds to index its own tasks
        manager = TaskManager(include_path=str(folder), include_defaults=remote)
        known = [*manager.all_subtasks, *manager.all_groups]
        for name in names:
            if name not in known:
                raise ValueError(f"lm-eval has no task or group {name!r}{nearest(name, known)}")
        try:
            return manager.load(names)
        except OSError as error:
            reason = str(error).partition("\n")[0]
            raise OSError(f"no task data ({reason}); without a hub use eval.zeroshot.files=FOLDER") from error

    def _metrics(self, results: dict, asked: dict[str, dict]) -> dict[str, float]:
        """Flat keys; the mean is over the asked tasks (a group like blimp counts once), if all have an accuracy."""
        metrics = {}
        for name, values in results["results"].items():
            for metric, value in _numbers(values):
                metrics[f"{metric}/{name}{self._suffix}"] = value
        accuracies = [metrics.get(f"acc/{name}{self._suffix}") for name in asked]
        if len(asked) > 1 and None not in accuracies:
            metrics[f"acc/mean{self._suffix}"] = sum(accuracies) / len(accuracies)
        return metrics

    def _scores(self, samples: dict[str, list[dict]]) -> dict[str, list[float]]:
        """What each example scored, by the metric's key and in the order of the task: two models are paired by it."""
        found: dict[str, list[float]] = {}
        for task, examples in samples.items():
            for example in sorted(examples, key=lambda each: each["doc_id"]):
                for metric in [name for name in ("acc", "acc_norm") if name in example and example["filter"] == "none"]:
                    found.setdefault(f"{metric}/{task}{self._suffix}", []).append(float(example[metric]))
        return found

    @property
    def _suffix(self) -> str:
        return "" if self.limit is None else f"@first{self.limit}"

    def _protocol(self, results: dict, asked: dict[str, dict], scorer: Any) -> dict[str, Any]:
        return {
            "lm_eval": importlib.metadata.version("lm_eval"),
            "fewshot": 0,
            "limit": self.limit,
            "length": scorer.max_length,
            "batch": self.batch,
            "tasks": {
                name: {"version": results["versions"].get(name), "examples": _examples(name, results)} | source
                for name, source in asked.items()
            },
            "mean_over": list(asked) if len(asked) > 1 else [],
            "cut": dict(scorer.cut),
        }


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


def _scorer(decoder: Decoder, length: int, batch: int) -> Any:
    """lm-eval's view of the model, on the device where it is; `cut` counts the answers whose prompt had to be cut."""
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - seconds

    class Scorer(HFLM):
        cut: Counter[str] = Counter()  # noqa: RUF012 - replaced, never filled
        owners: Sequence[str] = ()  # task of each request that is being scored

        def loglikelihood(self, requests, disable_tqdm=False):
            self.owners = [request.task_name for request in requests]
            unseen = disable_tqdm or not sys.stderr.isatty()  # in a log file a bar is a line per step
            answers = super().loglikelihood(requests, disable_tqdm=unseen)
            self.owners = ()
            return answers

        def _loglikelihood_tokens(self, requests, *options, **named):
            owned = zip(self.owners, requests, strict=False)  # there are no owners outside `loglikelihood`
            lengths = [(task, len(prompt), len(answer)) for task, (_, prompt, answer) in owned]
            for task, _, answer in lengths:
                if not 0 < answer <= self.max_length:
                    raise ValueError(f"task {task}: an answer has {answer} tokens, possible are 1 to {self.max_length}")
            self.cut = Counter(task for task, prompt, answer in lengths if prompt + answer > self.max_length + 1)
            return super()._loglikelihood_tokens(requests, *options, **named)

    # A copy of the tokenizer: lm-eval gives it a padding token, which would end up in the saved model.
    tokenizer = copy.deepcopy(decoder.tokenizer)
    return Scorer(pretrained=decoder.model, tokenizer=tokenizer, max_length=length, batch_size=batch)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """lm-eval and its tasks seed and use the global generators; whoever else uses them must not notice."""
    python, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(array)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Only the bars over all answers: no log lines about settings, no bar per task for reading and building prompts."""
    import datasets  # noqa: PLC0415
    from lm_eval.api import task  # noqa: PLC0415

    levels = {"lm_eval": logging.ERROR, "datasets": logging.WARNING, "httpx": logging.WARNING}
    levels["transformers.tokenization_utils_base"] = logging.ERROR  # long prompts are cut, and counted, by the scorer
    before = {name: logging.getLogger(name).level for name in levels}
    bars, building = datasets.are_progress_bars_disabled(), task.tqdm
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        datasets.disable_progress_bars()
        task.tqdm = lambda documents, **_: documents
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        task.tqdm = building
        if not bars:
            datasets.enable_progress_bars()
