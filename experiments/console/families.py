"""What the numbers of a metric are, by its family, the part of its key before the slash: which way is better, the unit.

Those that every version had are here. An evaluation declares its own (`Evaluator.families`), and they are known from
when it answers, or a run that has its answers is read: adding one takes no line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Family:
    """title: what it is, with its unit, for captions and axes. higher: whether more is better, not less.

    percent: whether numbers are shares of 1, shown in %. main: whether short tables have it, and pictures; all others
    do. difference: whether the dense model has a value of its own, to which the difference is told. place: in reading
    order, those of one place by name.
    """

    title: str
    higher: bool = False
    percent: bool = False
    main: bool = True
    difference: bool = True
    place: int = 1


PERPLEXITY, ACCURACY = Family("perplexity", place=0), Family("accuracy", higher=True, percent=True, place=2)
NORMALISED = Family("accuracy normalised by answer length", higher=True, percent=True, main=False, place=3)
KNOWN = {"ppl": PERPLEXITY, "acc": ACCURACY, "acc_norm": NORMALISED}  # others, such as audit, tables do not compare
EVERYWHERE = frozenset(KNOWN)  # what no evaluation declares


def learn(declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Know these families, as a run's results have them; ValueError where one is read otherwise elsewhere."""
    names = {field.name for field in fields(Family)}
    for name, facts in declared.items():
        family = Family(**{fact: value for fact, value in facts.items() if fact in names})
        known = KNOWN.setdefault(name, family)
        if (known.higher, known.percent) != (family.higher, family.percent):
            raise ValueError(f"metrics {name}/...: {family} here, {known} elsewhere; give one another name")


def name_of(key: str) -> str:
    """A metric's family."""
    return key.partition("/")[0]


def family(key: str) -> Family | None:
    """What is known of a metric; None for one that tables do not compare."""
    return KNOWN.get(name_of(key))


def higher(key: str) -> bool:
    """Whether more of this metric is better."""
    known = family(key)
    return known is not None and known.higher


def recovery(key: str, value: float | None, dense: float | None) -> float | None:
    """The share of the dense model's quality that is left: value / dense, and dense / value where less is better.

    None where either is not known, of a divergence from that model, and where there was nothing to lose.
    """
    known = family(key)
    if known is None or not known.difference or value is None or dense is None:
        return None
    part, whole = (value, dense) if known.higher else (dense, value)
    return part / whole if whole > 0 else None


def place(key: str) -> tuple[int, str]:
    """Place of a metric's family among the others: perplexity, what evaluations declare of text, accuracies, images."""
    known = family(key)
    return known.place if known else Family.place, name_of(key)
