"""What is printed of a run: before it its settings, or its place in a multirun; behind it what it vouches for."""

import logging
from pathlib import Path
from typing import Any

from experiments.composing.job import Job
from experiments.console.errors import differences
from experiments.files.disk import read_json
from experiments.runs import provenance
from experiments.runs.protocol import flat
from experiments.runs.record import load
from experiments.summary import rows

OPTIONS = ("model", "data", "pattern", "metric", "allocator", "update", "then", "quantizer", "eval", "tracker")
SEVERAL = ("then", "eval", "tracker")  # of which there may be more than one, by name


def log_plainly() -> None:
    """What this project logs goes to stderr, as it is."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("experiments").setLevel(logging.INFO)


def heading(job: Job) -> str:
    """All settings of a run, or of one that belongs to a multirun its place there and what sets it apart."""
    config, identity = job.config, job.run.manifest["identity"]
    plan = read_json(Path(config["outputs"], "multirun", f"{config['sweep']}.json"), {}) if config["sweep"] else {}
    lines = {entry["identity"]: entry["overrides"] for entry in plan.get("jobs", [])}
    if identity not in lines:
        return settings(config, job.choices)
    place = list(lines).index(identity)
    return f"\n[{place + 1}/{len(lines)}] {differences(lines.values())[place] or ' '.join(lines[identity])}"


def settings(config: dict[str, Any], choices: dict[str, Any]) -> str:
    """A line for each part of a run, with all its settings, and one for the rest."""
    lines = [""]
    for group in OPTIONS:
        part = config.get(group) or {}
        chosen = part if group in SEVERAL else {choices[group]: part}
        lines += [f"{group}={option}  {typed(values, config['data'])}".rstrip() for option, values in chosen.items()]
    rest = {name: value for name, value in config.items() if name not in OPTIONS and value is not None}
    if rest.get("given"):
        rest["given"] = rest["given"]["names"]["method"]
    return "\n".join([*lines, typed(rest, None), ""])


def typed(values: dict[str, Any], data: Any) -> str:
    """Settings as name=value; a text that is that of the calibration is named, not repeated."""
    named = {name: "data" if value == data else value for name, value in values.items()}
    return " ".join(f"{name}={_word(value)}" for name, value in flat(named, without=("_target_",)).items())


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)


def outcome(folder: Path) -> str:
    """What a run that is over vouches for, in a few lines, and its table; of one that failed the reason."""
    record = load(folder)
    lines = provenance.vouched_for(record.manifest, record.results) if record.status == "done" else []
    made = ", ".join(f"{line.name} {line.value}" for line in lines if "/" not in line.name)
    alike: dict[str, list[str]] = {}
    for line in lines:
        if "/" in line.name:
            alike.setdefault(line.value, []).append(line.name)
    measured = [f"  {', '.join(names)}: {value}" for value, names in alike.items()]
    facts = [f"made of {made}", *measured, ""] if made else []
    return "\n".join([*facts, rows.single(folder)])


def answer_again(job: Job) -> None:
    """Prints what a run that is done came to, without what would compute it."""
    log_plainly()
    job.config["device"] = job.config["model"]["device"] = job.run.stored()["config"]["device"]  # torch chooses auto's
    print(settings(job.config, job.choices), flush=True)
    job.run.say_done()
    print(outcome(job.run.folder), flush=True)
