"""Tasks of EleutherAI's lm-evaluation-harness (lm-eval 0.4.13), the model staying in memory.

Keys are `acc/<task>`, `acc_norm/<task>` (log-likelihood divided by the answer's length) and their standard errors
`acc_stderr/<task>`, `acc_norm_stderr/<task>`; of answers that the model writes `exact_match/<task>`, or by the filter
that reads them, where there are several: `strict-match/<task>`, `flexible-extract/<task>`. The papers of the Wanda
family print `acc`.
"""

import hashlib
import importlib.metadata
import logging
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy
import torch
from lm_eval.api import model as lm_eval_model
from lm_eval.api import task as lm_eval_task
from lm_eval.evaluator import evaluate
from lm_eval.models import huggingface
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from experiments.console.bars import named, under_label
from experiments.console.errors import nearest, one_line
from experiments.console.families import Family
from experiments.evals import outcome
from experiments.evals.evaluator import Evaluator
from experiments.evals.scorer import Scorer
from experiments.evals.task_files import MADE, NAMES, check_task, prepare_task, refuse_elsewhere, refuse_unanswerable
from experiments.runs.tasks import joined
from prune.network import Network

log = logging.getLogger("experiments")
PAPERS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")  # Wanda's seven tasks
LONGEST = 256  # tokens of a written answer, where a recipe does not say it
SHARES = {  # of answers that the model writes
    "exact_match": "exact match",
    "strict-match": "exact match, in the form of the examples",
    "flexible-extract": "exact match, last number",
    "prompt_level_strict_acc": "prompts of which all instructions are followed",
}
MINOR = {
    "prompt_level_loose_acc": "prompts of which all instructions are followed, loosely",
    "inst_level_strict_acc": "instructions followed",
    "inst_level_loose_acc": "instructions followed, loosely",
}


@dataclass(frozen=True)
class Zeroshot(Evaluator):
    """Runs the tasks; an answer is chosen with no examples in the prompt, as the papers do.

    tasks: names of lm-eval's tasks or groups, each measured by itself; `stdlib` and `stdlib_complete` are the demo's
        own, made from Python's documentation.
    files: folder with <task>.jsonl.gz (blimp: blimp.zip) to read instead of the hub; where it only has a
        <task>_sample.jsonl.gz, that is used and reported as the task <task>_sample. <task>_train.jsonl.gz, or
        <task>_train64 for a part of it, has the examples for prompts. null: lm-eval's data from the hub.
    limit: take only the first so many questions of each task (keys then say so: acc/boolq@first100); null takes all.
    fewshot: examples in each prompt, drawn as lm-eval draws them; null is 0 where an answer is chosen, and the number
        of lm-eval's recipe where it is written (gsm8k: 5). Another number than that is in the keys: acc/boolq@5shot.
    tokens: the most that a written answer may have; null is the recipe's number, or 256. Another is in the keys.
    chat: put each prompt into the chat template of the model's tokenizer, examples as turns before the question, as
        lm-eval's apply_chat_template does (keys then say so: exact_match/gsm8k@chat); False gives plain text.
    length: longest prompt with answer in tokens, capped by the model's own limit; the beginning of a longer one is cut.
    batch: answers scored or written per forward.
    name: the option of eval that this is, for messages.
    """

    tasks: Sequence[str] = PAPERS
    files: str | None = None
    limit: int | None = None
    fewshot: int | None = None
    tokens: int | None = None
    chat: bool = False
    length: int = 2048
    batch: int = 16
    name: str = "zeroshot"
    whole: ClassVar[bool] = True  # lm-eval calls the whole model, on the device
    pictures: ClassVar[bool] = False
    families: ClassVar[Mapping[str, Family]] = {
        name: Family(title, higher=True, percent=True, main=name not in MINOR)
        for name, title in (SHARES | MINOR).items()
    }

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError for settings, folders and files that cannot work; reads first rows."""
        listed = isinstance(self.tasks, list | tuple) and all(isinstance(name, str) for name in self.tasks)
        if not listed or not self.tasks:
            raise ValueError(f"eval.{self.name}.tasks should be a list like [boolq,rte], found {self.tasks!r}")
        if repeated := sorted({name for name in self.tasks if self.tasks.count(name) > 1}):
            raise ValueError(f"eval.{self.name}.tasks names {', '.join(repeated)} more than once")
        for setting, least in {"limit": 1, "fewshot": 0, "tokens": 1}.items():
            value = getattr(self, setting)
            if value is not None and (not isinstance(value, int) or value < least):
                needed = f"should be a whole number of at least {least}"
                raise ValueError(f"eval.{self.name}.{setting} {needed}, found {value}")
        if self._folder and not self._folder.is_dir():
            raise FileNotFoundError(f"eval.{self.name}.files={self.files} is not a folder")
        for task in self.tasks:
            check_task(task, self._folder, self.fewshot)

    def suits(self, network: Network) -> None:
        """ValueError for a model without a tokenizer, or without a chat template where that is to be used."""
        if network.processor is None:
            raise ValueError(f"eval={self.name} turns text into tokens, and this model has no tokenizer")
        if self.chat and not network.processor.chat_template:
            raise ValueError(f"eval.{self.name}.chat=true: this model's tokenizer has no chat template; set chat=false")

    def __call__(self, network: Network) -> dict[str, Any]:
        """The metrics, the protocol that makes them comparable, each example's scores and what was written.

        Tasks are measured one by one, so that none depends on those beside it: lm-eval batches all answers it is given
        together by their length, and draws what it shuffles from the global generators. Raises like `check`.
        """
        self.check()
        self.suits(network)
        _silence()
        return joined([self._answer(task, network) for task in self.tasks])

    def _answer(self, task: str, network: Network) -> dict[str, Any]:
        """What `__call__` returns, of one task or group."""
        random.seed(0)  # lm-eval's own seeds: some of its tasks shuffle their choices by the global generators
        numpy.random.seed(1234)
        with (
            tempfile.TemporaryDirectory(prefix="zeroshot-") as folder,
            torch.random.fork_rng(range(torch.cuda.device_count())),
        ):
            torch.manual_seed(1234)
            name, source = prepare_task(task, self._folder, Path(folder), self.fewshot)
            scorer = Scorer.of(network, min(self.length, network.limit), self.batch)
            loaded = self._loaded(name, Path(folder))
            prompts = {leaf: self._prompt(leaf, each, scorer) for leaf, each in loaded["tasks"].items()}
            # Not `simple_evaluate`, which would run git and list the machine. With 0 bootstrap draws lm-eval would
            # leave out every standard error, closed forms included.
            asked = {"apply_chat_template": self.chat, "fewshot_as_multiturn": self.chat}
            results = evaluate(scorer, loaded, limit=self.limit, bootstrap_iters=100, log_samples=True, **asked)
        if scorer.cut:
            told = named("") or self.name, scorer.cut, name, scorer.max_length
            log.warning("%s: %d prompts of %s exceed %d tokens with their answer, beginning cut", *told)
        ends = _ends(results, prompts)
        written = outcome.written(results, loaded["tasks"], ends)
        return {
            "metrics": outcome.metrics(results, ends),
            "protocol": self._protocol(results, name, source | _common(prompts), scorer),
            "details": {"scores": outcome.scores(results, ends), "answers": written},
        }

    @property
    def _folder(self) -> Path | None:
        return Path(self.files) if self.files is not None else None

    def _loaded(self, name: str, folder: Path) -> dict[str, Any]:
        """A task of lm-eval, or a group's, with data. ValueError for what it cannot use, OSError for the hub's."""
        remote = self.files is None and name not in MADE
        manager = _index() if remote else TaskManager(include_path=str(folder), include_defaults=False)
        if name not in (known := [*manager.all_subtasks, *manager.all_groups]):
            raise ValueError(f"lm-eval has no task or group {name!r}{nearest(name, known)}")
        try:
            loaded = manager.load([name])
        except OSError as error:
            reason = str(error).partition("\n")[0]
            instead = f"; without a hub use eval.{self.name}.files=FOLDER" if name in NAMES else ""
            raise OSError(f"no data of task {name} ({reason}){instead}") from error
        except ImportError as error:
            raise ValueError(f"task {name} needs a package that is not installed: {one_line(error)}") from error
        except Exception as error:  # whatever a recipe raises, which is tried on the first row
            misfit = f"the first row does not fit lm-eval's recipe ({one_line(error)})"
            raise ValueError(f"task {name}: {misfit}") from error
        for leaf, task in loaded["tasks"].items():
            refuse_elsewhere(leaf)
            if not remote:
                refuse_unanswerable(leaf, task, self.limit)
        return loaded

    def _prompt(self, name: str, task: Any, scorer: Scorer) -> tuple[dict[str, Any], str]:
        """Sets how a task asks; what the protocol says of that, and what the keys end with. ValueError like `check`."""
        writes = task.OUTPUT_TYPE == "generate_until"
        usual = (task.config.num_fewshot or 0) if writes else 0
        shots = usual if self.fewshot is None else self.fewshot
        task.set_config(key="num_fewshot", value=shots)
        if shots and (there := len(list(task.fewshot_docs()))) < shots:
            raise ValueError(f"task {name} has {there} examples for its prompts, {shots} are asked for")
        task.set_fewshot_seed(1234)  # lm-eval's own
        facts: dict[str, Any] = {"fewshot": shots} | ({"chat": _template(scorer)} if self.chat else {})
        end = ("@chat" if self.chat else "") + ("" if shots == usual else f"@{shots}shot")
        if writes:
            usual = normalize_gen_kwargs(task.config.generation_kwargs, LONGEST)["max_gen_toks"]
            facts["tokens"] = tokens = self.tokens or usual
            if tokens >= scorer.max_length:
                limit = f"prompt and answer have at most {scorer.max_length}"
                raise ValueError(f"task {name}: answers of {tokens} tokens, {limit}; lower eval.{self.name}.tokens")
            task.set_config(key="generation_kwargs", value={"max_gen_toks": tokens}, update=True)
            end += "" if tokens == usual else f"@{tokens}tokens"
        return facts, end + ("" if self.limit is None else f"@first{self.limit}")

    def _protocol(self, results: dict, name: str, source: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
        facts = {"version": results["versions"].get(name), "examples": outcome.examples(name, results)}
        return {
            "lm_eval": importlib.metadata.version("lm_eval"),
            "limit": self.limit,
            "length": scorer.max_length,
            "batch": self.batch,
            "tasks": {name: facts | {"members": list(outcome.members(name, results))} | source},
            "cut": scorer.cut,
        }


@dataclass(frozen=True)
class Generation(Zeroshot):
    """The same, of tasks whose answers the model writes, greedily where lm-eval's recipe does, with a key-value cache.

    What a pruned model wrote is in its run beside what the dense one did: answers/<task>.jsonl.
    """

    tasks: Sequence[str] = ("gsm8k",)
    name: str = "generation"
    writes: ClassVar[bool] = True


def _ends(results: dict[str, Any], prompts: Mapping[str, tuple[dict[str, Any], str]]) -> dict[str, str]:
    """What the keys of each task end with, and those of groups: as their task that is farthest from what is usual."""
    ends = {leaf: end for leaf, (_, end) in prompts.items()}
    return dict.fromkeys(results["results"], max(ends.values(), key=len)) | ends


def _template(scorer: Scorer) -> str:
    """Ten digits of the sha256 of a chat template and of what it makes of a question: some put the date into it."""
    turn = scorer.apply_chat_template([{"role": "user", "content": "?"}])
    return hashlib.sha256(f"{scorer.chat_template(True)}{turn}".encode()).hexdigest()[:10]


def _common(prompts: Mapping[str, tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """How all tasks of a group ask, or each of them by name where they do not ask alike."""
    first, *others = [facts for facts, _ in prompts.values()]
    return first if all(other == first for other in others) else {leaf: facts for leaf, (facts, _) in prompts.items()}


@cache
def _index() -> TaskManager:
    """lm-eval's own tasks, which it takes ten seconds to look through."""
    return TaskManager()


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
