"""What a finished run vouches for: model, text, settings, code, versions and what was measured; and whether it holds.

Each is told in a line, and checked again from what is there now. No weight is read but by its hash.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.files.disk import as_written, intact, read_json, sealed
from experiments.models.location import altered
from experiments.runs import identity, protocol, sources
from experiments.runs.identity import PARTS, fingerprint
from experiments.runs.provenance import leaves

VERSIONED = ("libraries", "version")  # leaves of a run's content that are versions, by the first or the last word
WORDS = 20  # letters of a value


@dataclass(frozen=True)
class Line:
    """One thing that a run vouches for: its name, what it was when the run was made, and what of it is another now."""

    name: str
    said: str
    wrong: str = ""


def said(manifest: dict[str, Any], results: dict[str, Any]) -> list[Line]:
    """What a run vouches for, by its manifest and results; nothing for one of before this was kept."""
    if "content" not in manifest:
        return []
    content, data = leaves(manifest["content"]), manifest.get("data") or {}
    text = f"{data['sequences']} x {data['length']} tokens of {data['name']}, {data['sha256'][:12]}" if data else "none"
    versions = {_package(content, name): value for name, value in content.items() if _kind(name) == "versions"}
    precision = {name: value for name, value in content.items() if _kind(name) == "precision"}
    lines = [
        Line("model", str(content["model.path"])[:12]),
        Line("text", text),
        Line("code", fingerprint(sorted(manifest["sources"].values()))),
        Line("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
    ]
    lines += [Line("precision", ", ".join(f"{name}={value}" for name, value in precision.items()))] if precision else []
    return lines + [Line(key, _protocol(results, key)) for key in protocol.compared(results)]


def checked(folder: Path) -> list[Line]:
    """All that the run in this folder vouches for, beside what is there now; ValueError for what is no run of ours.

    OSError for a folder that cannot be read.
    """
    manifest = read_json(folder / "manifest.json", {})
    if not isinstance(manifest, dict) or not {"content", "sources", "config", "identity"} <= set(manifest):
        raise ValueError(f"{folder}: its manifest does not tell what the run was made of; an earlier version wrote it")
    try:
        return _lines(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        said = f"manifest.json or results.json is not as this project writes it ({type(error).__name__}: {error})"
        raise ValueError(f"{folder}: {said}; run its command again") from error


def _lines(folder: Path, manifest: dict[str, Any]) -> list[Line]:
    """A line for each thing that the run vouches for."""
    results = sealed(folder / "results.json") or {}
    lines = [Line("run", folder.name, _status(manifest)), *_made(manifest)]
    lines += [Line("results", "as written", "" if results else "results.json is gone, or not as it was written")]
    measured = [line for line in said(manifest, results) if line.name in results.get("step", {})]
    lines += [Line(line.name, line.said, _moved(folder, results, line.name)) for line in measured]
    files = [*folder.glob("masks/*.safetensors"), *folder.glob("steps/blocks/*.json")]
    bad = [file.name for file in files if not (intact(file) if file.suffix == ".safetensors" else sealed(file))]
    lines += [Line("masks", f"{len(files) // 2} blocks", _first(bad, "not as they were written") if files else "gone")]
    if (folder / "model").is_dir():
        wrong = _first(altered(folder / "model", identity.kept_in(manifest["config"])), "not as it was written")
        lines.append(Line("saved model", "each file as written", wrong))
    return lines


def _status(manifest: dict[str, Any]) -> str:
    """What is wrong with the manifest itself."""
    if not as_written(manifest):
        return "its manifest is not as it was written"
    if fingerprint(manifest["content"]) != manifest["identity"]:
        return "its manifest was edited: its content is not what its identity names"
    return "" if manifest.get("status") == "done" else f"it is {manifest.get('status')}, not done"


def _made(manifest: dict[str, Any]) -> Iterator[Line]:
    """What decided the weights, kind by kind, with the first thing that is another now."""
    before, now = leaves(manifest["content"]), leaves(identity.content(manifest["config"]))
    wrong: dict[str, list[str]] = {}
    for name in sorted(name for name in before | now if before.get(name) != now.get(name)):
        values = (f"{content.get(name)!s:.{WORDS}}" for content in (before, now))
        wrong.setdefault(_kind(name), []).append("{} was {}, is now {}".format(name, *values))
    if "code" in wrong:
        config = manifest["config"]
        read = sources.modules(*identity.targets([config.get(part) for part in (*PARTS, "given")]), *identity.LIBRARY)
        wrong["code"] = sorted(dict(set(read.items()) ^ set(manifest["sources"].items()))) or wrong["code"]
    lines = [*said(manifest, {}), Line("settings", "as configured")]
    names = [*(line.name for line in lines), *(kind for kind in wrong if kind not in {line.name for line in lines})]
    told = {line.name: line.said for line in lines}
    yield from (Line(name, told.get(name, ""), _first(wrong.get(name, []), "")) for name in names)


def _moved(folder: Path, results: dict[str, Any], key: str) -> str:
    """What is wrong with one number: its step is gone, has another one, or is not what its settings would find now."""
    stem = results["step"][key]
    outcome = sealed(folder / "steps" / f"{stem}.json")
    if outcome is None or outcome["metrics"].get(protocol.bare(key)) != results["metrics"][key]:
        return f"steps/{stem}.json is gone or has another number"
    settings = dict(results.get("settings", {}).get(stem, {}))
    name = settings.pop("name", "")
    if identity.evaluation(name, settings) == stem:
        return ""
    code = sources.code(*identity.targets(settings)) != results["protocol"][stem].get("code")
    return f"eval.{name}: {'its code has changed' if code else 'its text or another file of it has changed'} since"


def _protocol(results: dict[str, Any], key: str) -> str:
    told = protocol.protocol(results, key)
    return ", ".join(f"{name} {value!s:.12}" for name, value in told.items() if value is not None)[:100]


def _kind(name: str) -> str:
    """What a leaf of a run's content is about."""
    words = name.removeprefix("given.").split(".")
    if words[-1] == "code":
        return "code"
    if words[0] == VERSIONED[0] or words[-1] == VERSIONED[1]:
        return "versions"
    kinds = {"environment": "precision", "data": "text"}
    return "model" if words[:2] == ["model", "path"] else kinds.get(words[0], "settings")


def _package(content: dict[str, Any], name: str) -> str:
    """Whose version a leaf of a run's content is: that of a library, or of what a component's numbers depend on."""
    owner = content.get(f"{name.removesuffix('version')}_target_")
    return identity.VERSIONS.get(str(owner), name.removeprefix("libraries."))


def _first(wrong: list[str], what: str) -> str:
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}{' ' if what else ''}{what}" if wrong else ""
