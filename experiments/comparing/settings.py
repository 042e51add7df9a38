"""What two runs were asked to do and what did it, as far as they differ: settings, code, libraries, data, machine."""

from typing import Any

from experiments.runs.identity import PARTS
from experiments.runs.record import Record

Pairs = dict[
    str, tuple[Any, Any]
]  # what it is -> its value in the first run and in the second; None where there is none


def changes(first: Any, second: Any, path: str = "") -> Pairs:
    """The leaves that differ, by path; a component that is another class is one leaf with its own parameters.

    What is null counts as what is not there: an option that one of the two runs was too old to know is no difference.
    """
    if isinstance(first, dict) and isinstance(second, dict) and first.get("_target_") == second.get("_target_"):
        names = list(first | second)
        inner = [changes(first.get(name), second.get(name), f"{path}.{name}" if path else name) for name in names]
        return {name: pair for part in inner for name, pair in part.items()}
    return {} if first == second else {path: (_leaf(first, second), _leaf(second, first))}


def _leaf(value: Any, other: Any) -> Any:
    """A component as Class(name=value), without what the other has alike and without what it is made of in turn."""
    if not isinstance(value, dict):
        return value
    beside = other if isinstance(other, dict) else {}
    own = [f"{name}={part}" for name, part in value.items() if not isinstance(part, dict) and beside.get(name) != part]
    own = [word for word in own if not word.startswith("_target_=")]
    return value.get("_target_", "").rpartition(".")[2] + f"({', '.join(own)})" * bool(own)


def settings(first: Record, second: Record) -> Pairs:
    """Settings that can change the weights and differ, those of the run that masks were taken from (`given`) included.

    A path counts only where what is read there differs. Settings that go from one value to another together, such as
    seed and data.seed, are one entry.
    """
    found = changes(*(_asked(record.manifest["config"]) for record in (first, second)))
    for path, content in (("model.path", "model"), ("data.path", "calibration windows")):
        if content not in origins(first, second):
            found = {name: pair for name, pair in found.items() if not f".{name}".endswith(f".{path}")}
    together: dict[str, list[str]] = {}
    for name in sorted(found, key=len):
        together.setdefault(repr(found[name]), []).append(name)  # repr: 1 and true are two values
    called = lambda names: ", ".join(names).replace("given.of.", "given.")
    return {called(names): found[names[0]] for names in together.values()}


def _asked(config: dict[str, Any]) -> dict[str, Any]:
    asked = {part: config[part] for part in PARTS if part in config}
    asked["model"] = {name: value for name, value in asked.get("model", {}).items() if name != "device"}
    if given := config.get("given"):
        asked["given"] = {"_target_": given["names"]["method"], "of": _asked(given["config"])}
    return asked


def origins(first: Record, second: Record) -> Pairs:
    """Model and calibration windows by their content, code, versions and machine, as far as they differ."""
    return changes(_origin(first), _origin(second))


def _origin(record: Record) -> dict[str, Any]:
    """Code and versions are those that pruned the run; where other code went on after a stop, both."""
    manifest = record.manifest
    made = manifest.get("pruned") or manifest
    content = {
        "model": manifest.get("model_content"),
        "calibration windows": (manifest.get("data") or {}).get("sha256"),
    }
    code = {"commit": made.get("commit"), "uncommitted changes": made.get("diff") or made.get("dirty") or None}
    code |= {"went on with": record.code.partition("; then ")[2] or None, **(made.get("versions") or {})}
    machine = {name: manifest.get(name) for name in ("device", "chip", "cores", "threads", "platform")}
    ranks = made.get("ranks") or manifest.get("ranks") or 1
    cut = {name: value and value[:12] for name, value in (content | {"commit": code.pop("commit")}).items()}
    return cut | code | machine | {"ranks": ranks}
