"""An evaluation of several tasks: each is measured and kept by itself, and the whole is put together from these.

So a task's number is the same whatever stands beside it, and another list of tasks costs only those that are new.
"""

from collections.abc import Sequence
from typing import Any

# Classes with `tasks` that do not depend on one another; of the folder `files` a task reads those named after it alone.
BY_TASK = ("Zeroshot",)


def by_task(settings: dict[str, Any]) -> bool:
    """Whether an evaluation with these settings is measured task by task."""
    target = str(settings.get("_target_")).rpartition(".")[2]
    return target in BY_TASK and isinstance(settings.get("tasks"), list | tuple)


def singly(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of each task of an evaluation that has several; none for any other evaluation."""
    tasks = settings["tasks"] if by_task(settings) else []
    return [settings | {"tasks": [task]} for task in tasks] if len(tasks) > 1 else []


def suffix(limit: int | None) -> str:
    """What a task's keys end with where only its first examples are taken."""
    return "" if limit is None else f"@first{limit}"


def joined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answers of single tasks as that of their list, with the mean of their accuracies where all have one.

    A group of tasks counts once in the mean. Where a group and a member of it are listed, the member's own answer is
    the one that counts.
    """
    tasks = {name: facts for answer in answers for name, facts in answer["protocol"]["tasks"].items()}
    size = lambda answer: sum(len(facts["members"]) for facts in answer["protocol"]["tasks"].values())
    largest_first = sorted(answers, key=size, reverse=True)
    metrics = {key: value for answer in largest_first for key, value in answer["metrics"].items()}
    scores = {key: values for answer in largest_first for key, values in answer["details"]["scores"].items()}
    end = suffix(answers[0]["protocol"]["limit"])
    accuracies = [metrics.get(f"acc/{name}{end}") for name in tasks]
    if len(tasks) > 1 and None not in accuracies:
        metrics[f"acc/mean{end}"] = sum(accuracies) / len(accuracies)
    protocol = answers[0]["protocol"] | {"tasks": tasks, "mean_over": list(tasks) if len(tasks) > 1 else []}
    protocol["cut"] = sum(answer["protocol"]["cut"] for answer in answers)
    shared = {name: part for name, part in answers[0].items() if name != "cost"}  # each task's own
    return shared | {"metrics": metrics, "protocol": protocol, "details": {"scores": scores}}
