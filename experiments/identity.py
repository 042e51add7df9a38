"""Names a computation by what determines its result, so that the same command finds its own folder again.

The rule: model, data, pattern, metric, allocator, update, granularity, propagate, reference, batch and seed count, with
every parameter, and the identity of the run whose masks are given; a file counts with its content, not its place.
Evaluations, trackers, device, scratch and output folder do not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

PARTS = (
    "model",
    "data",
    "pattern",
    "metric",
    "allocator",
    "update",
    "granularity",
    "propagate",
    "reference",
    "batch",
    "seed",
)
# What a text is calibrated with, and not evaluated.
CALIBRATION = (
    "sequences",
    "length",
    "seed",
    "path",
    "train_file",
    "train_join",
)
FILES = ("path", "evaluation_path", "files")  # settings that may name a file or a folder


def fingerprint(content: Any) -> str:
    """Ten hexadecimal digits that stand for a JSON value; 100 and 100.0 are the same number."""
    return hashlib.sha256(json.dumps(_number(content), sort_keys=True).encode()).hexdigest()[:10]


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _number(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_number(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def identity(config: dict[str, Any]) -> str:
    """The identity of a run with this resolved configuration."""
    content = {part: model(config) if part == "model" else by_content(config[part]) for part in PARTS}
    given = config.get("given")
    return fingerprint(content | ({"given": identity(given["config"])} if given else {}))


def dense(config: dict[str, Any], name: str) -> str:
    """The identity of one evaluation of the dense model, which no setting of the calibration changes."""
    settings = dict(config["eval"][name])
    text = settings.pop("text", None) or {}
    if not settings.get("path"):
        settings["text"] = {key: value for key, value in text.items() if key not in CALIBRATION}
    return fingerprint([model(config), config["batch"], by_content(settings)])


def model(config: dict[str, Any]) -> dict[str, Any]:
    """The model's settings with its content in place of its path (the path itself where there is nothing)."""
    from experiments import models  # noqa: PLC0415 - it imports torch, which --help and a typing mistake need not wait for

    settings = {name: value for name, value in config["model"].items() if name not in ("device", "revision")}
    try:
        content = models.fingerprint(config["model"]["path"], config["model"]["revision"])
    except OSError:
        content = f"missing {config['model']['path']}"
    return settings | {"path": content}


def by_content(config: Any) -> Any:
    """The configuration with the sha256 of each file or folder that a setting names in place of its path."""
    if isinstance(config, list):
        return [by_content(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        name: digest(Path(value))
        if name in FILES and isinstance(value, str) and Path(value).exists()
        else by_content(value)
        for name, value in config.items()
    }


def digest(path: Path) -> str:
    """sha256 of a file, or over the names and contents of the files directly in a folder."""
    if path.is_dir():
        return fingerprint({file.name: digest(file) for file in path.iterdir() if file.is_file()})
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
