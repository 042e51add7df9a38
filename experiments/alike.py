"""The jobs of a multirun beside each other: what sets each apart, and what is wrong with some of them."""

from collections.abc import Iterable


class Mistakes(ValueError):
    """What is wrong with the jobs of a multirun, one line for each."""


def refuse_all(wrong: dict[str, str], among: int) -> None:
    """Mistakes with one line for each wrong job and its reason; a mistake that all jobs share is told once."""
    shared = len(wrong) == among and len(set(wrong.values())) == 1
    told = wrong.values() if shared else (f"{own}: {said}" if own not in said else said for own, said in wrong.items())
    if lines := list(dict.fromkeys(told)):
        raise Mistakes("\n".join(lines))


def differences(lines: Iterable[Iterable[str]]) -> list[str]:
    """What each job of a multirun is asked that not all of them are."""
    asked = [list(line) for line in lines]
    shared = set.intersection(*map(set, asked))
    return [" ".join(word for word in line if word not in shared) for line in asked]
