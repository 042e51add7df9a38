"""What runs were calibrated with: only those that were calibrated alike are judged against each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.console.text import inline
from experiments.runs.protocol import flat
from experiments.runs.record import Record

SIZES = ("sequences", "length", "images", "size")  # of a manifest's calibration data


@dataclass
class Windows:
    """Windows of one text, number and length: the settings that chose them but for a seed, and their hash by seed."""

    name: str
    settings: dict[str, Any]
    hashes: dict[Any, str] = field(default_factory=dict)


def calibrations(records: Sequence[Record]) -> list[str | None]:
    """What each of these runs of one model was calibrated with, as "128 x 2048 of c4"; None for one that read nothing.

    One that read nothing beside the masks that it took over has the name of what made these, and is equal to its like.

    One name is one thing: the same windows, or others that only a seed drew. A text that was replaced between two runs,
    and one of another content, has a number behind its name.
    """
    known: list[Windows] = []
    return [_name(record, known) for record in records]


def amount(data: dict[str, Any]) -> str:
    """How much a manifest's calibration data are: "128 x 2048", "256 images"; "" where it does not say."""
    if "images" in data:
        return f"{data['images']} images"
    return " x ".join(str(data[size]) for size in ("sequences", "length") if data.get(size))


def _name(record: Record, known: list[Windows]) -> str | None:
    """The name of a run's windows; `known` gains what it does not have."""
    data = record.manifest.get("data")
    if not data:
        given = record.manifest.get("config", {}).get("given") or {}
        return f"that of {given['names']['method']}" if "names" in given else None
    settings, seed, sha256 = _settings(record), _seed(record), data.get("sha256")
    for windows in known:
        same = windows.settings == settings and windows.hashes.get(seed, sha256) == sha256
        if same or (sha256 and sha256 in windows.hashes.values()):
            windows.hashes.setdefault(seed, sha256)
            return windows.name
    name = inline(" of ".join(part for part in (amount(data), str(data.get("name") or "a text")) if part))
    number = 1 + sum(windows.name.partition(" [")[0] == name for windows in known)
    known.append(Windows(name if number == 1 else f"{name} [{number}]", settings, {seed: sha256}))
    return known[-1].name


def _settings(record: Record) -> dict[str, Any]:
    """What chose the windows but for their seed: files by content, and number and length as they came out."""
    settings = (record.manifest.get("content") or record.manifest["config"]).get("data") or {}
    chosen = {name: value for name, value in flat(settings).items() if value is not None}
    chosen = {name: value for name, value in chosen.items() if not name.startswith(("evaluation", "seed"))}
    return chosen | {size: record.manifest["data"].get(size) for size in SIZES}


def _seed(record: Record) -> Any:
    return (record.manifest["config"].get("data") or {}).get("seed")
