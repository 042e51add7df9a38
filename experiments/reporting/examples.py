"""Some of the images that models were evaluated on, with what each pruned model took them for."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from experiments.console.families import name_of
from experiments.runs.difference import outcome
from experiments.summary.seeds import Group


@dataclass(frozen=True)
class Examples:
    """title: the model, and how it was measured. images: as data:image/png. labels: what they are. answers: a row of
    what each model took them for, the dense one first; of several seeds the first run's.
    """

    title: str
    images: list[str]
    labels: list[str]
    answers: list[tuple[str, list[str]]]


def examples(groups: Iterable[Group]) -> list[Examples]:
    """Those of each model and set of images; of another set of the same name the first one's alone are shown."""
    found: list[Examples] = []
    for model, ours in groupby(groups, lambda group: group.model):
        sets: dict[str, Examples] = {}
        for group in ours:
            for metric in group.means:
                if name_of(metric) == "acc" and (shown := _shown(group, metric)):
                    _add(sets, f"{model}, {metric.partition('/')[2]}", group, shown)
        found += sets.values()
    return found


def _shown(group: Group, metric: str) -> list[dict[str, Any]]:
    return outcome(group.records[0], metric).get("details", {}).get("examples", [])


def _add(sets: dict[str, Examples], title: str, group: Group, shown: list[dict[str, Any]]) -> None:
    """A row more; the first one brings the images, and the dense model's answers."""
    images = [f"data:image/png;base64,{one['png']}" for one in shown]
    if title not in sets:
        dense = ("dense", [one["dense"] for one in shown])
        sets[title] = Examples(title, images, [one["label"] for one in shown], [dense])
    if not group.dense and sets[title].images == images:
        name = f"{group.method} {group.pattern} {group.sparsity:.2f}"
        sets[title].answers.append((name, [one["model"] for one in shown]))
