"""What lm-eval returns of a task, as an evaluation has it: metrics by key, the score of each example, what was written.

`ends` is what the keys of a task or group end with: @3shot, @64tokens, @first50, each where it is not what is usual.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy

NUMBER = (int, float, numpy.number, numpy.bool_)


def metrics(results: dict[str, Any], ends: Mapping[str, str]) -> dict[str, float]:
    """Flat keys, of a task, or of a group and all its members."""
    return {
        f"{family}/{name}{ends[name]}": value
        for name, values in results["results"].items()
        for family, value in _numbers(values)
    }


def scores(results: dict[str, Any], ends: Mapping[str, str]) -> dict[str, list[float]]:
    """What each example scored, by the metric's key and in the order of the task: two models are paired by it.

    Of metrics that are means of them alone: lm-eval puts others, such as BLEU, together in another way.
    """
    told: dict[str, list[float]] = {}
    values = metrics(results, ends)
    for task, examples in results["samples"].items():
        several = _several(results["results"][task])
        for example in sorted(examples, key=lambda each: each["doc_id"]):
            for metric in example["metrics"]:
                key = f"{_family(metric, example['filter'], several)}/{task}{ends[task]}"
                if key in values and isinstance(example[metric], NUMBER):
                    told.setdefault(key, []).append(float(example[metric]))
    return {key: each for key, each in told.items() if math.isclose(sum(each) / len(each), values[key], abs_tol=1e-9)}


def written(results: dict[str, Any], tasks: Mapping[str, Any], ends: Mapping[str, str]) -> dict[str, list[dict]]:
    """Every answer that the model wrote, by the end of the metrics' keys: what was asked, what each filter read of it.

    id: the example's place in the task. prompt: ten digits of the sha256 of all that the model was given.
    """
    told: dict[str, list[dict]] = {}
    for name, examples in results["samples"].items():
        if tasks[name].OUTPUT_TYPE == "generate_until":
            rows: dict[int, dict[str, Any]] = {}
            for example in sorted(examples, key=lambda each: each["doc_id"]):
                row = rows.setdefault(example["doc_id"], _asked(tasks[name], example))
                row["extracted"][example["filter"]] = example["filtered_resps"][0]
                row["scores"][example["filter"]] = {
                    metric: float(example[metric])
                    for metric in example["metrics"]
                    if isinstance(example[metric], NUMBER)
                }
            told[f"{name}{ends[name]}"] = list(rows.values())
    return told


def _asked(task: Any, example: dict[str, Any]) -> dict[str, Any]:
    answers = example["resps"][0]
    return {
        "id": example["doc_id"],
        "prompt": example["prompt_hash"][:10],
        "question": task.doc_to_text(example["doc"]),
        "target": example["target"],
        "answer": answers[0] if len(answers) == 1 else answers,
        "extracted": {},
        "scores": {},
    }


def _family(metric: str, kind: str, several: bool) -> str:
    """What a metric behind a filter of lm-eval is called here."""
    name = metric.removesuffix("_stderr")
    if several and kind != "none":
        name = kind if name == "exact_match" else f"{name}-{kind}"
    return f"{name}_stderr" if metric.endswith("_stderr") else name


def _several(values: dict[str, Any]) -> bool:
    """Whether a task's answers are read in several ways, by lm-eval's "metric,filter" entries."""
    return len({key.partition(",")[2] for key in values if "," in key}) > 1


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """lm-eval's entries that are numbers, by family: a standard error that does not exist is the string N/A."""
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if comma and isinstance(value, NUMBER) and math.isfinite(value):
            yield _family(metric, kind, _several(values)), float(value)


def examples(name: str, results: dict) -> int:
    """How many examples a task was run on; a group on those of its members."""
    if name in results["group_subtasks"]:
        return sum(examples(member, results) for member in results["group_subtasks"][name])
    return results["n-samples"][name]["effective"]


def members(name: str, results: dict) -> Iterator[str]:
    """The tasks and groups inside a group, at any depth."""
    for member in results["group_subtasks"].get(name, ()):
        yield member
        yield from members(member, results)
