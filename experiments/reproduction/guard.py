"""The protocol guard: why a number of ours must not be compared with a published one."""

from collections.abc import Mapping
from typing import Any

from experiments.reproduction.cells import DENSE, Outcome, published
from experiments.runs.identity import CALIBRATION, PARTS
from experiments.runs.protocol import bare, flat

ALIKE = 0.0005  # difference of a realised sparsity from the asked one: below, it is rounding
ANCHOR = 0.005  # share by which our dense perplexity may differ from the published one
ASIDE = ("model.path", "model.revision")  # where a model lies: its dense perplexity tells whether it is the same
PLACES = ("path", "evaluation_path")  # local files in place of a hub's


def changes(ours: dict[str, Any], usual: dict[str, Any]) -> list[str]:
    """What the configuration of a cell has otherwise than the table asks for: "data.sequences 16 instead of 128"."""
    found, asked = settings(ours), settings(usual)
    options = [name.removesuffix("._target_") for name in found if name.endswith("._target_")]
    other = [option for option in options if found[f"{option}._target_"] != asked.get(f"{option}._target_")]
    lines = []
    for name in sorted(found | asked):
        if found.get(name) == asked.get(name) or (name.startswith(tuple(f"{option}." for option in other))):
            continue
        lines.append(f"{name} {found.get(name, 'not set')} instead of {asked.get(name, 'not set')}")
    last = lambda value: str(value).rpartition(".")[2]
    named = [
        f"{option} {last(found[f'{option}._target_'])} instead of {last(asked.get(f'{option}._target_', 'none'))}"
        for option in other
    ]
    return named + lines


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that make a number what it is, by full name, without places of files and with each fact once."""
    found = flat({part: config[part] for part in (*PARTS, "eval") if part not in ("seed", "batch")})
    return {
        name: value
        for name, value in found.items()
        if name not in ASIDE and not _local(name, found) and not _repeated(name)
    }


def _local(name: str, found: Mapping[str, Any]) -> bool:
    """Whether a setting is a file in place of one of the hub."""
    section, _, last = name.rpartition(".")
    return last in PLACES and f"{section}.repository" in found


def _repeated(name: str) -> bool:
    """Whether an evaluation has a setting from elsewhere: calibration of its text, the audit's pattern."""
    parts = name.split(".")
    inner = len(parts) > 3 and parts[0] == "eval" and parts[2] == "text" and parts[3] in CALIBRATION
    return name.startswith("eval.audit.") or inner or parts[-1] == "batch"


def local(config: dict[str, Any]) -> list[str]:
    """The settings by which a run read files in place of the hub's: nothing here can tell that they are the same."""
    found = flat({part: config[part] for part in ("data", "eval")})
    return [name for name, value in found.items() if value is not None and _local(name, found) and not _repeated(name)]


def measured(outcome: Outcome, value: Mapping[str, Any]) -> str | None:
    """The metric of a run that stands for a value: its key, or the same text in another window; None without."""
    key = value.get("key") or ""
    same = (found for found in outcome.metrics if bare(found) == key)
    near = (found for found in outcome.metrics if found.partition("@")[0] == key.partition("@")[0])
    return next(same, None) or next(near, None)


def reasons(table: Mapping[str, Any], model: str, name: str, outcome: Outcome) -> list[str]:
    """Why this run's value of this name is not comparable with what the table has published of the model."""
    value = table["values"][name]
    key = measured(outcome, value)
    if key is None or outcome.record is None:
        return []
    found = [f"not stated: {table['unstated']}"] * bool(table.get("unstated"))
    found += [value["reason"]] if value.get("reason") else []
    found += [f"measured as {bare(key)} instead of {value['key']}"] * (bare(key) != value["key"])
    results = outcome.record.results
    step = results["step"][key]
    evaluation = f"eval.{step.rpartition('-')[0]}"
    found += [line for line in outcome.changed if not line.startswith("eval.") or line.startswith(evaluation)]
    if not key.startswith("ppl/"):
        found += tasks(results["protocol"].get(step, {}), key, value)
    found += sparsity(outcome)
    return found + anchor(table, model, name, results, key)


def tasks(protocol: Mapping[str, Any], key: str, value: Mapping[str, Any]) -> list[str]:
    """What an accuracy of ours has otherwise: its tasks, their versions, or, where no version is told, the harness."""
    ours = {task: facts["version"] for task, facts in protocol.get("tasks", {}).items()}
    if key.partition("/")[2].startswith("mean") and sorted(value.get("tasks") or []) != sorted(ours):
        return [f"mean over {', '.join(ours)} instead of {', '.join(value.get('tasks') or ['unknown tasks'])}"]
    versions = value.get("versions")
    here = f"lm-eval {protocol.get('lm_eval')}"
    if not versions:
        said = f"published with {value.get('harness', 'an unknown harness')}, ours with {here}"
        return [f"{said}; the versions of its tasks are not known"]
    other = [f"{task} {ours.get(task):g} instead of {asked}" for task, asked in versions.items()
             if ours.get(task) is not None and float(ours[task]) != float(asked)]  # fmt: skip
    missing = [task for task in versions if ours.get(task) is None]
    said = [f"task version: {', '.join(other)} ({here}, published with {value.get('harness', 'an unknown one')})"]
    return said * bool(other) + [f"no version is known of our {', '.join(missing)}"] * bool(missing)


def sparsity(outcome: Outcome) -> list[str]:
    """Whether more or less was removed than the run was asked for."""
    asked = outcome.record.manifest["sparsity"] if outcome.record else None
    if asked is None or outcome.sparsity is None or abs(outcome.sparsity - asked) <= ALIKE:
        return []
    return [f"{outcome.sparsity:.4f} of the weights are removed, {asked:g} were to be"]


def anchor(table: Mapping[str, Any], model: str, name: str, results: Mapping[str, Any], key: str) -> list[str]:
    """Whether the dense model has another perplexity than the published one: another protocol, or another model."""
    printed = {place[:4]: place[4]["value"] for place in published(table)}.get((name, DENSE, DENSE, model))
    section = results["dense"] if key in results.get("dense", {}) else {}
    ours = section.get(key)
    if printed is None or ours is None or not key.startswith("ppl/"):
        return []
    tolerated = table.get("anchor", ANCHOR) * float(printed)
    other = abs(ours - float(printed)) > tolerated
    return [f"dense is {ours:.3f}, published {printed}: another protocol or model"] * other
