"""What models and methods are called in a table: told apart by content, never by a name or a place."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console.text import inline
from experiments.runs.identity import FILES, PARTS, deciding
from experiments.runs.protocol import flat, tell_apart
from experiments.runs.record import Record

DRAWN = ("sequences", "length", "images", "seed")  # settings that every text has, or all images
FOLDERS = 3  # so many are named before a file where its own name does not tell it from another
# Settings that are one word together, such as "4 bit g128 sym", by what each value is called.
GRIDS = {
    "quantizer.bits": "{} bit".format,
    "quantizer.group": "g{}".format,
    "quantizer.symmetric": lambda value: "sym" if value == "True" else "asym",
}
ELSEWHERE = ("path", "revision", "device", "batch")  # settings of a model that do not change what it is


def models(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """A label for each run's model, and notes: one for one model under several names, two for two of one name.

    A model is its files by content, read with the same settings; where a run does not tell that, its name and path.
    """
    first: dict[str, Record] = {}
    keys = [_model(record) for record in records]
    for key, record in zip(keys, records, strict=True):
        first.setdefault(key, record)
    named = {key: (inline(record.manifest["model"]), _facts(record)) for key, record in first.items()}
    labels, notes = tell_apart([named[key] for key in keys])
    main = {label: named[key][0] for key, label in zip(keys, labels, strict=True)}
    names = {(inline(r.manifest["model"]), label) for r, label in zip(records, labels, strict=True)}
    aliases = sorted((name, label) for name, label in names if name != main[label])
    return labels, notes + [f"{name} is {label}: the files are the same" for name, label in aliases]


def _model(record: Record) -> str:
    settings = record.manifest["config"].get("model", {})
    place = [record.manifest["model"], settings.get("path")]
    settings = {name: value for name, value in settings.items() if name not in ELSEWHERE}
    return json.dumps([record.manifest.get("model_content") or place, flat(settings)], sort_keys=True)


def _facts(record: Record) -> dict[str, Any]:
    """What a model is, for a note on two of one name."""
    content = record.manifest.get("model_content")
    return flat(record.manifest["config"].get("model", {})) | ({"content": content[:10]} if content else {})


def made_of(record: Record) -> dict[str, Any]:
    """What a run of its model is but for its seeds, as {path: value}: settings, and files and code by their content.

    Runs that are alike here are draws of one thing. One of an older version tells its settings alone.
    """
    content = record.manifest.get("content") or deciding(record.manifest["config"])
    apart = ("model", "data") if record.reads_no_text else ("model",)
    leaves = flat({part: value for part, value in content.items() if part not in apart}, without=())
    return {path: value for path, value in leaves.items() if path.rpartition(".")[2] != "seed"}


def distinguished(records: Iterable[Record]) -> dict[Path, list[str]]:
    """The settings that tell runs of one method apart, by folder; none for one that stands alone.

    Of settings that always change together, such as seed and data.seed, the shortest name is given. Pattern and
    sparsity are not named, for they have their own columns; a setting of the pattern is where runs of one differ in it,
    and a seed where runs differ in seeds alone. Files of one content are one.
    """
    alike: dict[str, list[Record]] = {}
    for record in records:
        alike.setdefault(record.manifest["method"], []).append(record)
    words: dict[Path, list[str]] = {record.folder: [] for members in alike.values() for record in members}
    for members in alike.values():
        patterns: dict[str, list[Record]] = {}
        for record in members:
            patterns.setdefault(record.manifest["pattern"], []).append(record)
        every = [(members, False), *((own, True) for own in patterns.values())]
        changes = [(runs, key, values) for runs, of in every for values, key in _changes(runs, of).items()]
        for runs, key, values in sorted(changes, key=lambda change: change[1].endswith("seed")):
            lone = _lone(runs, values, words) if key.endswith("seed") else set()
            for place, record in enumerate(runs):
                if values[place] and place not in lone:
                    words[record.folder].append(f"{key}={values[place]}")
    return {folder: _with_grid(own) for folder, own in words.items()}


def _with_grid(words: list[str]) -> list[str]:
    """The words of a run, those of its grids as one."""
    values = dict(word.split("=", 1) for word in words)
    if grid := " ".join(call(values[key]) for key, call in GRIDS.items() if key in values):
        return [grid, *(word for word in words if word.split("=", 1)[0] not in GRIDS)]
    return words


def _lone(records: Sequence[Record], values: Sequence[str], words: dict[Path, list[str]]) -> set[int]:
    """The places of the runs of whose budget and other settings there is only one seed."""
    budgets: dict[tuple[str, ...], list[int]] = {}
    for place, record in enumerate(records):
        others = [word for word in words[record.folder] if not word.partition("=")[0].endswith("seed")]
        budget = record.manifest["pattern"], str(record.manifest["sparsity"])
        budgets.setdefault((*budget, *others), []).append(place)
    return {place for own in budgets.values() if len({values[place] for place in own} - {""}) < 2 for place in own}


def _changes(records: Sequence[Record], of_pattern: bool) -> dict[tuple[str, ...], str]:
    """The settings that are not the same in all these runs: values, in the order of the runs -> shortest name.

    Those of the pattern, or all others.

    A value is empty where a run does not have the setting.
    """
    contents = [_contents(record) for record in records]
    measured = {frozenset(r.results.get("metrics", {})) for r in records if r.reads_no_text}
    without = (
        "data" if len(measured) == 1 else None
    )  # where each was measured on a text of its own, that tells them apart
    wholes = [(deciding(record.manifest["config"]), without if record.reads_no_text else None) for record in records]
    every = [flat({part: value for part, value in whole.items() if part != left}) for whole, left in wholes]
    settings = _short(every, contents)
    changes: dict[tuple[str, ...], str] = {}
    keys = {key for each in settings for key in each if (key.partition(".")[0] == "pattern") == of_pattern}
    for key in sorted(keys, key=lambda key: (len(key), key)):
        values = tuple("" if each.get(key) is None else str(each[key]) for each in settings)
        read = {content.get(key, value) for content, value in zip(contents, values, strict=True)}
        if len(read) > 1 and len(set(values)) > 1 and not key.endswith("sparsity"):
            changes.setdefault(values, key)
    return changes


def _short(settings: list[dict[str, Any]], contents: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The settings with one word for a text, or for the class of another part, where runs have several of them.

    What goes with a text or class is not named beside it. Where two have one word, all is named.
    """
    for part in PARTS:
        target, path = f"{part}._target_", f"{part}.path"
        things = [
            (str(each.get(target)), content.get(path, str(each.get(path))))
            for each, content in zip(settings, contents, strict=True)
        ]
        if part != "model" and (words := _words(settings, part, things)):
            shared = {f"{part}.{name}" for name in DRAWN} if part == "data" else set.intersection(*map(set, settings))
            shared |= _varied(settings, words, f"{part}.")
            settings = [
                {
                    key: value
                    for key, value in each.items()
                    if not key.startswith(f"{part}.") or key in shared - {target, path}
                }
                | {part: word}
                for each, word in zip(settings, words, strict=True)
            ]
    return settings


def _varied(settings: Sequence[dict[str, Any]], words: Sequence[str], start: str) -> set[str]:
    """The settings that begin so and are not the same in all runs of some word."""
    first: dict[str, dict[str, Any]] = {}
    pairs = [(first.setdefault(word, each), each) for each, word in zip(settings, words, strict=True)]
    keys = {key for each in settings for key in each if key.startswith(start)}
    return {key for key in keys for one, other in pairs if one.get(key) != other.get(key)}


def _words(settings: list[dict[str, Any]], part: str, things: Sequence[object]) -> list[str]:
    """A word for each thing, of a file as much of its path as tells it from the others; none where they are alike."""
    for length in range(FOLDERS + 2):
        words = [_word(each, part, length) for each in settings]
        if len(set(things)) == len(set(words)) == len(set(zip(things, words, strict=True))) > 1:
            return words
    return []


def _word(settings: dict[str, Any], part: str, length: int) -> str:
    """What a part is called: the name of its class, and of a file of one's own that of the file, or its path's end."""
    name = str(settings.get(f"{part}._target_")).rpartition(".")[2]
    path = settings.get(f"{part}.path")
    if not path or name not in ("TextFile", "Tokens", "ImageFiles", "None"):
        return name.lower()
    file = Path(str(path).removesuffix(".gz").removesuffix(".zst"))
    return "/".join(Path(str(path)).parts[-length:]) if length else file.stem


def _contents(record: Record) -> dict[str, str]:
    """The content of each file that a setting of the run names, by that setting."""
    leaves = flat(record.manifest.get("content") or {}) | {"model.path": record.manifest.get("model_content")}
    return {path: str(value) for path, value in leaves.items() if value and path.rpartition(".")[2] in FILES}


@dataclass(frozen=True)
class Name:
    """What a run is called: `setting` is shared by its draws, `own` has its seeds too."""

    setting: str
    own: str


def methods(records: Sequence[Record]) -> tuple[dict[Path, Name], list[str]]:
    """What each run of one model is called, by folder, and notes on what has one name and is not one thing.

    A setting is the method, what tells it from others of this name, and whose masks it took over. Runs whose settings
    are the same, while a file or the code was another, are numbered.
    """
    words = distinguished(records)
    masks = {r.folder: ((r.manifest["config"].get("given") or {}).get("names") or {}).get("method") for r in records}
    sources = {(record.manifest["method"], masks[record.folder]) for record in records}
    several = Counter(method for method, _ in sources)
    budgets: dict[tuple[str, str, float], list[Record]] = {}
    for record in records:
        method, folder = record.manifest["method"], record.folder
        parts = [word for word in words[folder] if not word.partition("=")[0].endswith("seed")]
        if several[method] > 1:
            parts.append(f"masks of {masks[folder]}")
        place = _named(method, parts), record.manifest["pattern"], record.manifest["sparsity"]
        budgets.setdefault(place, []).append(record)
    names, notes = {}, []
    for (setting, pattern, sparsity), members in budgets.items():
        labels, unlike = tell_apart([(setting, made_of(record)) for record in members])
        notes += [f"{pattern} {sparsity:g}: {note}" for note in unlike]
        for record, label in zip(members, labels, strict=True):
            number = label.removeprefix(setting)
            names[record.folder] = Name(label, _named(record.manifest["method"] + number, words[record.folder]))
    return names, notes


def _named(method: str, parts: list[str]) -> str:
    return inline(f"{method} ({', '.join(parts)})" if parts else method)


def replaced(records: Iterable[Record]) -> list[str]:
    """Notes on calibration windows that are not the same in runs of one model whose settings of them are."""
    windows: dict[str, Counter[str]] = {}
    names: dict[str, str] = {}
    for record in records:
        settings, data = record.manifest["config"].get("data"), record.manifest.get("data") or {}
        if settings and data.get("sha256"):
            key = json.dumps(flat(settings), sort_keys=True)
            windows.setdefault(key, Counter())[data["sha256"][:10]] += 1
            names[key] = settings.get("path") or data.get("name") or "data"
    return [
        f"{names[key]} was other data in some runs: "
        + ", ".join(f"{sha256} ({count} runs)" for sha256, count in counts.items())
        for key, counts in windows.items()
        if len(counts) > 1
    ]
