"""What a metric measures. Two numbers may stand in one column only where that is the same.

A metric's key is `<family>/<what>`, e.g. ppl/wikitext2@2048 or acc/boolq; results.json keeps the evaluator's protocol.
Two texts of one name, or one task at two lengths, would have one key: the first that a run measures keeps it, and each
other one has six digits of its protocol behind it, as in ppl/test@256#4f2a91. Tables name both by the key alone, and
tell them apart by what they measure.
"""

import re
from typing import Any

from experiments.console.families import family, learn, place
from experiments.runs.identity import fingerprint

LONGER = re.compile("#[0-9a-f]{6}$")  # what tells a key from another one: a text's own name may hold a # as well
NAMED = 4  # so many differences are told
INCIDENTAL = (
    "batch",
    "code",
    "cut",
    "device",
    "file",
    "members",
)  # how and where a number was computed, not what it is


def compared(results: dict[str, Any]) -> list[str]:
    """Keys of the metrics that tables compare, in reading order: perplexities first, accuracies last, by their mean."""
    learn(results.get("families", {}))
    return sorted(filter(family, results.get("metrics", {})), key=rank)


def rank(key: str) -> tuple[tuple[int, str], bool, str]:
    """Place of a metric among the others."""
    what = key.partition("/")[2]
    return place(key), not what.startswith("mean"), what


def stderr(key: str) -> str:
    """Key of the standard error that belongs to a metric."""
    return key.replace("/", "_stderr/", 1)


def bare(key: str) -> str:
    """A metric's key as its evaluator gives it, without what tells it from another one of this key."""
    return LONGER.sub("", key)


def printed(results: dict[str, Any], step: str, outcome: dict[str, Any]) -> dict[str, str]:
    """The key in these results of each metric of an outcome: its own, or a longer one where that measures otherwise."""
    keys = {}
    for key in outcome["metrics"]:
        main = key.replace("_stderr/", "/", 1)  # an error is named as the number it belongs to
        own = protocol({"protocol": {step: outcome["protocol"]}, "step": {main: step}}, main)
        free = main not in results["step"] or protocol(results, main) == own
        keys[key] = key if free else f"{key}#{fingerprint(own)[:6]}"
    return keys


def protocol(results: dict[str, Any], key: str) -> dict[str, Any]:
    """What a metric measures, as {path: value}: its step's protocol without the entries of other tasks.

    Where results do not tell the step, all protocols count: rather one column too many than two meanings in one.
    """
    protocols = results.get("protocol", {})
    entry = protocols.get(results.get("step", {}).get(key), protocols)
    name = bare(key).partition("/")[2].partition("@")[0]
    if "tasks" in entry and "fewshot" in entry:  # as earlier versions had it, for all tasks
        shots = {"fewshot": entry["fewshot"]}
        entry = {field: value for field, value in entry.items() if field not in ("fewshot", "tasks")} | {
            "tasks": {task: shots | facts for task, facts in entry["tasks"].items()}
        }
    if "tasks" in entry and name != "mean":
        tasks = {task: entry["tasks"][task] for task in _sources(entry["tasks"], name)}
        entry = {field: value for field, value in entry.items() if field != "mean_over"} | {"tasks": tasks}
    elif "mean_over" in entry:
        entry = entry | {"mean_over": sorted(entry["mean_over"])}  # a list in another order has the same mean
    return flat(entry)


def task_version(results: dict[str, Any], key: str) -> str:
    """The version of lm-eval's recipe of the task that a metric is of; empty where there is none, or not one alone."""
    facts = protocol(results, key)
    versions = {str(fact) for path, fact in facts.items() if path.startswith("tasks.") and path.endswith(".version")}
    return versions.pop() if len(versions) == 1 and not versions & {"None"} else ""


def of_group(results: dict[str, Any], key: str) -> bool:
    """Whether a metric is that of a member of a group of tasks that has this metric itself: BLiMP has 67 of them.

    A member that was asked for by its own name is shown as any task.
    """
    tasks = results.get("protocol", {}).get(results.get("step", {}).get(key), {}).get("tasks", {})
    family, _, what = bare(key).partition("/")
    name, at, suffix = what.partition("@")
    groups = [] if name in tasks else _sources(tasks, name)
    return any(f"{family}/{group}{at}{suffix}" in results["metrics"] for group in groups)


def _sources(tasks: dict[str, Any], name: str) -> list[str]:
    """Which of the tasks that were asked for a task's number is from: itself, or the groups that say it is a member.

    Earlier versions did not say it; there it is the groups whose name its own goes on from.
    """
    if name in tasks:
        return [name]
    return [task for task, facts in tasks.items() if name in facts.get("members", ()) or _untold(task, facts, name)]


def _untold(task: str, facts: dict[str, Any], name: str) -> bool:
    return "members" not in facts and name.startswith(f"{task}_")


def flat(value: Any, path: str = "", without: tuple[str, ...] = INCIDENTAL) -> dict[str, Any]:
    """Nested dictionaries as {"a.b": leaf}, without entries of these names."""
    if not isinstance(value, dict):
        return {path: value}
    inner = [flat(v, f"{path}.{k}" if path else k, without) for k, v in value.items() if k not in without]
    return {name: leaf for part in inner for name, leaf in part.items()}


def tell_apart(things: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[str]]:
    """A label for each (name, specification), and notes: the name, but `name [2]` for its second specification."""
    specifications: dict[str, list[dict[str, Any]]] = {}
    labels, notes = [], []
    for name, specification in things:
        variants = specifications.setdefault(name, [])
        if specification not in variants:
            variants.append(specification)
            if len(variants) > 1:
                change = _contrast(variants[0], specification)
                notes.append(f"{name} [{len(variants)}] is not comparable with {name}: {change}")
        place = variants.index(specification)
        labels.append(name if place == 0 else f"{name} [{place + 1}]")
    return labels, notes


def between(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Notes on metrics that models (name -> their results) share without sharing the protocol.

    A token hash must differ from one tokenizer to another, a task's version should not; the reader is told which it is.
    """
    protocols: dict[str, list[dict[str, Any]]] = {}
    for members in models.values():
        measured = {key: member for member in reversed(members) for key in compared(member)}
        for key, results in measured.items():
            protocols.setdefault(key, []).append(protocol(results, key))
    keys: dict[str, list[str]] = {}
    for key in sorted(protocols, key=rank):
        first, *others = protocols[key]
        if paths := {path for other in others for path in different(first, other)}:
            keys.setdefault(", ".join(sorted(paths)), []).append(key)
    return [
        f"{', '.join(names)}: not the same for all models in {paths}; "
        + ("pixels depend on the processor" if "images" in protocols[names[0]][0] else "tokens depend on the tokenizer")
        for paths, names in keys.items()
    ]


def different(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The names of what is not the same in two flat dictionaries."""
    return sorted(path for path in first | second if first.get(path) != second.get(path))


def _contrast(first: dict[str, Any], second: dict[str, Any]) -> str:
    paths = different(first, second)
    words = ", ".join(f"{path} {_change(first.get(path), second.get(path))}" for path in paths[:NAMED])
    return f"{words} and {len(paths) - NAMED} more" if len(paths) > NAMED else words


def _change(first: Any, second: Any) -> str:
    """What is in the second list and not in the first, and the other way round; else both values."""
    if isinstance(first, list) and isinstance(second, list):
        before, after = ({str(each) for each in side} for side in (first, second))
        sides = ("with", sorted(after - before)), ("without", sorted(before - after))
        if before != after:
            return " ".join(f"{word} {', '.join(names)}" for word, names in sides if names)
    return f"{second!s:.40} instead of {first!s:.40}"
