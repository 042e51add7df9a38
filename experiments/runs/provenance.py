"""Where a result comes from: what a run is made of, what of that is another now, and whether all of it still holds.

A finished run vouches for model, text, settings, code, versions and what was measured. Each is told in a line, and
checked again from what is there now. No weight is read but by its hash.
"""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.files.disk import as_written, intact, read_json, sealed
from experiments.models import location
from experiments.runs import identity, protocol, sources
from experiments.runs.calibration import amount
from experiments.runs.protocol import different, flat

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "lm_eval",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "wandb",
    "prodigyopt",
)


def code() -> dict[str, Any]:
    """The commit of this source tree, whether it has uncommitted changes, and a hash of these (null where there are
    none): two states of a tree that is being worked on are two codes. All null where it is no git checkout.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    commit = git("rev-parse", "HEAD")
    changes = commit and git("status", "--porcelain")
    diff = hashlib.sha256(f"{changes}{git('diff', 'HEAD')}".encode()).hexdigest()[:10] if changes else None
    return {"commit": commit, "dirty": None if commit is None else bool(changes), "diff": diff}


def versions() -> dict[str, str | None]:
    """Python and the packages that can change a number; null for one that is not installed."""
    return {package: identity.installed(package) for package in ("python", *PACKAGES)}


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[str]]:
    """What of two contents (`identity.content`) is not the same, in phrases, by what they are about (`subject`)."""
    leaves = flat(before, without=()), flat(now, without=())
    changed: dict[str, list[str]] = {}
    for name in different(*leaves):
        was, became = (f"{each.get(name)!s:.20}" for each in leaves)
        changed.setdefault(subject(name), []).append(f"{name} was {was}, now {became}")
    return changed


def subject(name: str) -> str:
    """What a leaf of a run's content is about: model, data, code, versions, precision or settings."""
    words = name.removeprefix("given.").split(".")
    if words[-1] == "code":
        return "code"
    if words[0] == "libraries" or words[-1] == "version":
        return "versions"
    subjects = {"environment": "precision", "data": "data"}
    return "model" if words[:2] == ["model", "path"] else subjects.get(words[0], "settings")


def since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a run is made of and is another now, a phrase each; both are manifests, and nothing changed gives none.

    A run that an earlier version of this project made does not say what it was made of.
    """
    if "content" not in before:
        return ["it does not tell which code made it"]
    changed = changes(before["content"], now["content"])
    if "code" in changed:
        modules = different(*(manifest.get("sources", {}) for manifest in (before, now)))
        changed["code"] = [f"the code has changed since ({', '.join(modules)})"]
    return [phrase for phrases in changed.values() for phrase in phrases]


@dataclass(frozen=True)
class Line:
    """One thing that a run vouches for: its name, what it was when the run was made, and what of it is another now.

    absent: nobody can tell, for what it would be held against is not here; `wrong` says what.
    """

    name: str
    value: str
    wrong: str = ""
    absent: bool = False


def vouched_for(manifest: dict[str, Any], results: dict[str, Any]) -> list[Line]:
    """What a run vouches for, by its manifest and results; nothing for one of before this was kept."""
    if "content" not in manifest:
        return []
    content, data = flat(manifest["content"], without=()), manifest.get("data")
    unit = "" if not data or "images" in data else " tokens"
    read = f"{amount(data)}{unit} of {data['name']}, {data['sha256'][:12]}" if data else "none"
    versions = [f"{_package(content, name)} {content[name]}" for name in content if subject(name) == "versions"]
    precision = [f"{name}={content[name]}" for name in content if subject(name) == "precision"]
    lines = [
        Line("model", str(content["model.path"])[:12]),
        Line("data", read),
        Line("code", identity.fingerprint(sorted(manifest["sources"].values()))),
        Line("versions", ", ".join(dict.fromkeys(versions))),
    ]
    if precision:
        lines.append(Line("precision", ", ".join(precision)))
    return lines + [Line(key, _protocol(results, key)) for key in protocol.compared(results)]


def _package(content: dict[str, Any], name: str) -> str:
    """Whose version a leaf of a run's content is: that of a library, or of what a component's numbers depend on."""
    owner = content.get(f"{name.removesuffix('version')}_target_")
    return identity.VERSIONS.get(str(owner), name.removeprefix("libraries."))


def _protocol(results: dict[str, Any], key: str) -> str:
    """What a metric measures, in 100 letters."""
    facts = protocol.protocol(results, key)
    return ", ".join(f"{name} {value!s:.12}" for name, value in facts.items() if value is not None)[:100]


def check(folder: Path) -> list[Line]:
    """All that the run in this folder vouches for, beside what is there now; ValueError for what is no run of ours.

    OSError for a folder that cannot be read.
    """
    manifest = read_json(folder / "manifest.json", {})
    if not isinstance(manifest, dict) or not {"content", "sources", "config", "identity"} <= set(manifest):
        raise ValueError(f"{folder}: its manifest does not tell what the run was made of; an earlier version wrote it")
    try:
        return [Line("run", folder.name, _manifest_fault(manifest)), *_made_of(manifest), *_outcome(folder, manifest)]
    except (KeyError, TypeError, AttributeError) as error:
        fault = f"manifest.json or results.json is not as this project writes it ({type(error).__name__}: {error})"
        raise ValueError(f"{folder}: {fault}; run its command again") from error


def _manifest_fault(manifest: dict[str, Any]) -> str:
    """What is wrong with the manifest itself."""
    if not as_written(manifest):
        return "its manifest is not as it was written"
    if identity.fingerprint(manifest["content"]) != manifest["identity"]:
        return "its manifest was edited: its content is not what its identity names"
    return "" if manifest.get("status") == "done" else f"it is {manifest.get('status')}, not done"


def _made_of(manifest: dict[str, Any]) -> Iterator[Line]:
    """What decided the weights, with the first thing that is another now."""
    changed = changes(manifest["content"], identity.content(manifest["config"]))
    parts = identity.deciding(manifest["config"]) | {"given": manifest["config"].get("given")}
    if missing := _absent(parts):
        changed["code"] = [missing]
    elif "code" in changed:
        changed["code"] = different(identity.modules(manifest["config"]), manifest["sources"]) or changed["code"]
    lines = {line.name: line.value for line in vouched_for(manifest, {})} | {"settings": "as configured"}
    for name in [*lines, *(changed.keys() - lines.keys())]:
        yield Line(name, lines.get(name, ""), _first(changed.get(name, [])), name == "code" and bool(missing))


def _absent(config: Any) -> str:
    """Which packages whose classes a configuration names are not here, and what to do; empty where all are."""
    tops = {target.partition(".")[0] for target in identity.targets(config) if sources.module_of(target) is None}
    remedy = "install it, or name its folder in PYTHONPATH"
    return f"Python finds no source of the package {', '.join(sorted(tops))}; {remedy}" if tops else ""


def _outcome(folder: Path, manifest: dict[str, Any]) -> Iterator[Line]:
    """What the run left: results, each number, masks with the rows of their blocks, and the saved model."""
    results = sealed(folder / "results.json")
    yield Line("results", "as written", "" if results else "results.json is gone, or not as it was written")
    for line in vouched_for(manifest, results or {}):
        if results and line.name in results["step"]:
            missing = _absent(results.get("settings", {}).get(results["step"][line.name], {}))
            fault = missing or _metric_fault(folder, results, line.name)
            yield Line(line.name, line.value, fault, bool(missing))
    masks, rows = [*folder.glob("masks/*.safetensors")], [*folder.glob("steps/blocks/*.json")]
    bad = [file.name for file in masks if not intact(file)] + [file.name for file in rows if not sealed(file)]
    fault = _first(bad, " not as they were written") if masks or rows else "gone"
    yield Line("masks", f"{len(masks)} blocks", fault)
    if (folder / "model").is_dir():
        altered = location.altered(folder / "model", identity.kept_in(manifest["config"]))
        yield Line("saved model", "each file as written", _first(altered, " not as it was written"))


def _metric_fault(folder: Path, results: dict[str, Any], key: str) -> str:
    """What is wrong with one number: its step is gone, has another one, or is not what its settings would find now."""
    stem = results["step"][key]
    outcome = sealed(folder / "steps" / f"{stem}.json")
    if outcome is None or outcome["metrics"].get(protocol.bare(key)) != results["metrics"][key]:
        return f"steps/{stem}.json is gone or has another number"
    settings = dict(results.get("settings", {}).get(stem, {}))
    name = settings.pop("name", "")
    if identity.evaluation(name, settings) == stem:
        return ""
    code = sources.code(*identity.targets(identity.read_by(settings))) != results["protocol"][stem].get("code")
    return f"eval.{name}: {'its code has changed' if code else 'its data or another file of it has changed'} since"


def _first(wrong: list[str], what: str = "") -> str:
    """The first of what is wrong, and how many more are; empty where nothing is."""
    if not wrong:
        return ""
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}{what}"
