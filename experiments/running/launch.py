"""What is printed before a run: all its settings in a few lines, or in a multirun its place and the time left."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.console.errors import differences
from experiments.console.text import duration
from experiments.files.disk import read_json
from experiments.runs import vouched
from experiments.runs.record import load

OPTIONS = ("model", "data", "pattern", "metric", "allocator", "update", "eval", "tracker")


def typed(arguments: list[str]) -> str:
    """The command line as it can be typed again; the name that a multirun gets by itself is left out."""
    return shlex.join(["python", "-m", "experiments.run", *(w for w in arguments if not w.startswith("sweep=sweep-"))])


def settings(config: dict[str, Any], choices: dict[str, Any]) -> str:
    """A line for each part of a run, with all its settings, and one for the rest."""
    lines = [""]
    for group in OPTIONS:
        part = config.get(group) or {}
        chosen = part if group in ("eval", "tracker") else {choices[group]: part}
        lines += [f"{group}={option}  {flat(values, config['data'])}".rstrip() for option, values in chosen.items()]
    rest = {name: value for name, value in config.items() if name not in OPTIONS and value is not None}
    if rest.get("given"):
        rest["given"] = rest["given"]["names"]["method"]
    return "\n".join([*lines, flat(rest, None), ""])


def flat(values: dict[str, Any], data: Any, place: str = "") -> str:
    """Settings as name=value; a text that is that of the calibration is named, not repeated."""
    said = []
    for name, value in values.items():
        if isinstance(value, dict):
            said.append(f"{place}{name}=data" if value == data else flat(value, data, f"{place}{name}."))
        elif name != "_target_":
            word = f"[{','.join(map(str, value))}]" if isinstance(value, list) else "null" if value is None else value
            said.append(f"{place}{name}={word}")
    return " ".join(said)


def vouches(folder: Path) -> str:
    """What a finished run vouches for, in a few lines; empty for one of before this was kept, and one that failed."""
    record = load(folder)
    lines = vouched.said(record.manifest, record.results) if record.status == "done" else []
    made = ", ".join(f"{line.name} {line.said}" for line in lines if "/" not in line.name)
    measured = [f"  {line.name}: {line.said}" for line in lines if "/" in line.name]
    return "\n".join([f"made of {made}", *measured, ""]) if made else ""


def progress(config: dict[str, Any], overrides: list[str]) -> str:
    """The run's place in its multirun, what sets it apart, and the time left; empty for a run of no multirun."""
    outputs = Path(config["outputs"])
    plan = read_json(outputs / "multirun" / f"{config['sweep']}.json", {}) if config["sweep"] else {}
    jobs = plan.get("jobs", [])
    place = next((place for place, job in enumerate(jobs) if job["overrides"] == overrides), None)
    if place is None:
        return ""
    apart = differences(job["overrides"] for job in jobs)[place] or " ".join(overrides)
    manifests = [read_json(outputs / job["folder"] / "manifest.json", {}) for job in jobs]
    return f"\n[{place + 1}/{len(jobs)}] {apart}{left(manifests, datetime.fromisoformat(plan['launched']))}"


def left(manifests: list[dict[str, Any]], launched: datetime) -> str:
    """The time left of a multirun, from the runs that ended since it was launched; empty before the first has."""
    ended = [m for m in manifests if m.get("finished") and datetime.fromisoformat(m["finished"]) >= launched]
    ahead = sum(m.get("status") != "done" and m not in ended for m in manifests)
    if not ended:
        return ""
    pace = (datetime.now(UTC) - launched) / len(ended)
    return f"   (about {duration((pace * ahead).total_seconds())} left)"
