"""Whether a number of ours may be compared with a published one, and what a few seeds then say of the difference."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from experiments.composing.overrides import name_of
from experiments.reproduction.cells import DENSE, Outcome, published
from experiments.runs.calibration import calibrations
from experiments.runs.protocol import bare
from experiments.summary.seeds import prediction

NOISE, BETTER, WORSE = "within noise", "better", "worse"
NOT_COMPARABLE, NOT_JUDGED = "not comparable", "not judged"
ALIKE = 0.0005  # difference of a realised sparsity from the one to be reached: below, it is rounding
ANCHOR = 0.005  # share by which our dense perplexity may differ from the published one
POINTS = 0.1  # by which our dense top-1 in % may: 50 of ImageNet's 50,000 images, less than another crop changes
FILES = ("path", "evaluation_path")  # settings for local files in place of a hub's
HARMLESS = ("eval", "batch", "activations", "scratch", "save_model", "plugins")
HARMLESS += ("model.path", "model.revision")  # where a model lies: its dense perplexity tells whether it is the same
GRID = ("ends", "bits", "group", "symmetric", "sweep", "act_order", "source", "order")  # what a method's `grid` states


def verdict(values: Sequence[float], published: float, slack: float, drawn: bool, lower: bool = True) -> str:
    """What our values say of a published number, which is one draw too.

    `slack` widens the prediction interval: the published rounding and spread, in the unit of the values. `drawn` tells
    whether a seed changes the values: one value of a method that draws is judged only where it is within the slack.
    `lower` is better for a perplexity, not for an accuracy.
    """
    mean, half = prediction(values)
    distance = mean - published
    if abs(distance) <= slack + 1e-12 * abs(published):  # 5.475 is not outside 5.47 +- 0.005
        return NOISE
    if len(values) == 1:
        half = inf if drawn else 0.0
    if half == inf:
        return NOT_JUDGED
    if abs(distance) <= half + slack:
        return NOISE
    return BETTER if (distance < 0) == lower else WORSE


def reasons(table: Mapping[str, Any], model: str, name: str, outcome: Outcome) -> list[str]:
    """Why this run's value of this name is not comparable with what the table has published of the model."""
    value = table["values"][name]
    key = measured(outcome, value)
    if key is None or outcome.record is None:
        return []
    results = outcome.record.results
    why = [value["reason"]] if value.get("reason") else []
    if table["unstated"]:
        why.insert(0, f"not stated: {table['unstated']}")
    if bare(key) != value["key"]:
        why.append(f"measured as {bare(key)} instead of {value['key']}")
    step = results["step"][key]
    for line in changes(table["typed"], outcome.record.manifest["config"]):
        if not line.startswith("eval.") or line.startswith(f"eval.{step.rpartition('-')[0]}."):
            why.append(f"{line} on the command line")
    if "images" in value:
        why += pictures(results["protocol"].get(step, {}), outcome.record.manifest, value)
    elif not key.startswith("ppl/"):
        why += tasks(results["protocol"].get(step, {}), key, value)
    return [*why, *sparsity(outcome), *anchor(table, model, name, results, key)]


def mixed(outcomes: Sequence[Outcome]) -> list[str]:
    """Whether the seeds of a method were calibrated with other windows than a seed draws: their mean means nothing."""
    windows = dict.fromkeys(calibrations([outcome.record for outcome in outcomes if outcome.record]))
    names = [name for name in windows if name]
    return [f"its seeds are calibrated with {' and '.join(names)}"] if len(names) > 1 else []


def grids(method: Mapping[str, Any], outcomes: Sequence[Outcome]) -> list[str]:
    """Why the weights of these runs lie on other grids than those of the published `method`, or may.

    Its `grid` has the settings of a quantizer, `ends` for its name. Without one its weights are published as numbers.
    """
    said, why = method.get("grid", {}), dict[str, None]()
    for ours in filter(None, map(quantizer, outcomes)):
        if "bits" in ours and not said:
            why["ours is quantised, and the published grid is not stated"] = None
        for name in GRID if said else ():
            own = ours.get(name)
            if name not in said:
                why[f"not stated: quantizer {name}"] = None
            elif own != said[name]:
                why[f"quantizer {name} is {own}, published with {said[name]}"] = None
    return [*([method["reason"]] if method.get("reason") else []), *why]


def quantizer(outcome: Outcome) -> dict[str, Any]:
    """The quantizer's settings of a run, `ends` for its name; no bits where nothing is rounded, empty without a run."""
    if outcome.record is None:
        return {}
    settings = outcome.record.manifest["config"].get("quantizer") or {}  # none in runs of earlier releases
    return {**settings, "ends": settings.get("_target_", "").rpartition(".")[2].lower()}


def measured(outcome: Outcome, value: Mapping[str, Any]) -> str | None:
    """The metric of a run that stands for a value: its key, or the same text in another window; None without."""
    wanted = value.get("key") or ""
    same = [key for key in outcome.metrics if bare(key) == wanted]
    near = [key for key in outcome.metrics if key.partition("@")[0] == wanted.partition("@")[0]]
    return next(iter([*same, *near]), None)


def tasks(protocol: Mapping[str, Any], key: str, value: Mapping[str, Any]) -> list[str]:
    """What an accuracy of ours has otherwise: its tasks, their versions, or, where no version is told, the harness."""
    ours = {task: facts["version"] for task, facts in protocol.get("tasks", {}).items()}
    if key.partition("/")[2].startswith("mean") and sorted(value.get("tasks") or []) != sorted(ours):
        return [f"mean over {', '.join(ours)} instead of {', '.join(value.get('tasks') or ['unknown tasks'])}"]
    versions, here = value.get("versions"), f"lm-eval {protocol.get('lm_eval')}"
    if not versions:
        harness = value.get("harness", "an unknown harness")
        return [f"published with {harness}, ours with {here}; the versions of its tasks are not known"]
    known = {task: ours[task] for task in versions if ours.get(task) is not None}
    other = [f"{task} {own:g} instead of {versions[task]}" for task, own in known.items() if own != versions[task]]
    why = []
    if other:
        why = [f"task version: {', '.join(other)} ({here}, published with {value.get('harness', 'an unknown one')})"]
    if missing := [task for task in versions if task not in known]:
        why.append(f"no version is known of our {', '.join(missing)}")
    return why


def pictures(protocol: Mapping[str, Any], manifest: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """What a top-1 of ours has otherwise: how many images it is over, and their size where some calibrated."""
    ours = {"images": protocol.get("images"), "size": (manifest.get("data") or {}).get("size", value["size"])}
    return [f"{name} {ours[name]} instead of {value[name]}" for name in ours if ours[name] != value[name]]


def sparsity(outcome: Outcome) -> list[str]:
    """Whether more or less was removed than was to be."""
    wanted = outcome.record.manifest["sparsity"] if outcome.record else None
    if wanted is None or outcome.sparsity is None or abs(outcome.sparsity - wanted) <= ALIKE:
        return []
    return [f"{outcome.sparsity:.4f} of the weights are removed, {wanted:g} were to be"]


def anchor(table: Mapping[str, Any], model: str, name: str, results: Mapping[str, Any], key: str) -> list[str]:
    """Whether the dense model has another perplexity or top-1 than the published one: another protocol, or model."""
    printed = {tuple(place): entry["value"] for *place, entry in published(table)}.get((name, DENSE, DENSE, model))
    ours, value = results.get("dense", {}).get(key), table["values"][name]
    if printed is None or ours is None or not (near := nearness(value, float(printed))):
        return []
    shown = f"{100 * ours:.2f}" if "images" in value else f"{ours:.3f}"
    if abs(ours * (100 if "images" in value else 1) - float(printed)) <= near:
        return []
    return [f"dense is {shown}, published {printed}: another protocol or model"]


def nearness(value: Mapping[str, Any], printed: float) -> float:
    """By how much a dense model may miss a printed value and be the same one; 0 where that anchors nothing."""
    if "images" in value:
        return POINTS
    return ANCHOR * printed if (value.get("key") or "").startswith("ppl/") else 0.0


def changes(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """The overrides that can make this run's numbers others than the table's, as they were typed."""
    return [line for line in overrides if not (harmless(name_of(line)) or is_file(name_of(line), config))]


def harmless(name: str) -> bool:
    """Whether a setting changes no number: how and where a run works, or which of its numbers are computed."""
    return name in HARMLESS or name.startswith(("hydra", "tracker"))


def is_file(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting is a file in place of one of the hub's: nothing here can tell that they are the same."""
    *sections, last = name.split(".")
    for section in sections:
        config = config.get(section) or {}
    return last in FILES and "repository" in config
