"""An evaluation of several tasks: each is measured and kept by itself, and the whole is put together from these.

So a task's number is the same whatever stands beside it, and another list of tasks costs only those that are new.
"""

from collections.abc import Sequence
from typing import Any

# Classes with `tasks` that do not depend on one another; of the folder `files` a task reads its own (`reads`) alone.
BY_TASK = ("Zeroshot", "Generation")
QUESTIONS_OF = {"gsm8k_cot": "gsm8k", "gsm8k_cot_zeroshot": "gsm8k"}  # tasks that ask what another one asks
STDLIB, COMPLETE = "stdlib", "stdlib_complete"  # the demo's, made from Python's documentation


def by_task(settings: dict[str, Any]) -> bool:
    """Whether an evaluation with these settings is measured task by task."""
    target = str(settings.get("_target_")).rpartition(".")[2]
    return target in BY_TASK and isinstance(settings.get("tasks"), list | tuple)


def reads(task: str, stem: str) -> bool:
    """Whether a task reads the file of this name without suffixes: its questions, or examples for its prompts."""
    own = QUESTIONS_OF.get(task, task)
    return stem in (own, f"{own}_sample") or gives_examples(task, stem)


def gives_examples(task: str, stem: str) -> bool:
    """Whether the file of this name without suffixes holds a task's few-shot examples: TASK_train, or TASK_train64."""
    own, train, count = stem.rpartition("_train")
    return own == QUESTIONS_OF.get(task, task) and bool(train) and (count.isdecimal() or not count)


def singly(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of each task of an evaluation that has several; none for any other evaluation."""
    tasks = settings["tasks"] if by_task(settings) else []
    return [settings | {"tasks": [task]} for task in tasks] if len(tasks) > 1 else []


def joined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answers of single tasks as that of their list, with the mean of their accuracies where all have one.

    A group of tasks counts once in the mean. Where a group and a member of it are listed, the member's own answer is
    the one that counts.
    """
    tasks = {name: facts for answer in answers for name, facts in answer["protocol"]["tasks"].items()}
    size = lambda answer: sum(len(facts["members"]) for facts in answer["protocol"]["tasks"].values())
    largest_first = sorted(answers, key=size, reverse=True)
    metrics = {key: value for answer in largest_first for key, value in answer["metrics"].items()}
    details: dict[str, dict[str, Any]] = {}
    for answer in largest_first:
        for what, values in answer["details"].items():
            details.setdefault(what, {}).update(values)
    accuracies = [_accuracy(name, metrics) for name in tasks]
    if len(tasks) > 1 and None not in accuracies and len({end for end, _ in accuracies}) == 1:
        metrics[f"acc/mean{accuracies[0][0]}"] = sum(value for _, value in accuracies) / len(accuracies)
    protocol = answers[0]["protocol"] | {"tasks": tasks, "mean_over": list(tasks) if len(tasks) > 1 else []}
    protocol["cut"] = sum(answer["protocol"]["cut"] for answer in answers)
    shared = {name: part for name, part in answers[0].items() if name != "cost"}  # each task's own
    return shared | {"metrics": metrics, "protocol": protocol, "details": details}


def _accuracy(name: str, metrics: dict[str, float]) -> tuple[str, float] | None:
    """A task's accuracy behind what its key ends with, such as @first50; None where it has none."""
    for key, value in metrics.items():
        start, at, end = key.partition("@")
        if start == f"acc/{name}":
            return at + end, value
    return None
