"""The jobs of a multirun beside each other: what sets each apart, and what is wrong with some of them."""

from collections.abc import Collection, Iterable


class Mistakes(ValueError):
    """What is wrong with the jobs of a multirun, one line for each."""


def refuse_all(wrong: dict[str, str], among: Collection[str]) -> None:
    """Mistakes with the reasons of all wrong jobs (name -> reason) of those named in `among`."""
    if lines := told(wrong, among):
        raise Mistakes("\n".join(lines))


def told(wrong: dict[str, str], among: Collection[str]) -> list[str]:
    """A line for each reason: alone if all jobs share it, else behind the words that only those who share it have.

    Where no word tells them apart from the others, each job has a line of its own.
    """
    lines = []
    for reason in dict.fromkeys(wrong.values()):
        names = [name for name in wrong if wrong[name] == reason]
        others = {word for name in among if wrong.get(name) != reason for word in name.split()}
        own = dict.fromkeys(word for name in names for word in name.split() if word not in others)
        if len(names) < len(among):
            names = [" or ".join(own)] if all(own.keys() & name.split() for name in names) else names
            lines += [reason if name in reason else f"{name}: {reason}" for name in names]
        else:
            lines.append(reason)
    return lines


def differences(lines: Iterable[Iterable[str]]) -> list[str]:
    """What each job of a multirun is asked that not all of them are, in one line."""
    return list(map(" ".join, apart(lines)))


def apart(lines: Iterable[Iterable[str]]) -> list[list[str]]:
    """The words of each job of a multirun that not all of them have."""
    asked = [list(line) for line in lines]
    shared = set.intersection(*map(set, asked))
    return [[word for word in line if word not in shared] for line in asked]
