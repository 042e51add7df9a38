"""The difference of a metric between two runs and how sure it is: over the same windows, where both have them.

Files are read, never a model; a difference is significant where it is more than `SURE` standard errors from 0.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.files.disk import state
from experiments.runs import schema
from experiments.runs.protocol import bare, protocol, stderr
from experiments.runs.record import Record, seals

LARGE = 700.0  # nats: a float64 has no exp of more
SURE = 1.96  # standard errors: the half width of a 95 % interval


def outcome(record: Record, key: str) -> dict[str, Any]:
    """What the evaluation behind a metric returned: metrics, protocol, details. Empty where that is not kept whole.

    It is in the run's steps/<step>.json, where <step> is what results["step"][key] names. A file that is not as it was
    written does not count; one of an older version, which did not seal, does.
    """
    step = record.results.get("step", {}).get(key)
    path = record.folder / "steps" / f"{step}.json"
    try:
        return _read(path, state(path), seals(record.manifest)) if step is not None else {}
    except (ValueError, OSError):
        return {}


@lru_cache(maxsize=64)  # the best run of many is held against each of the others
def _read(path: Path, _: tuple[int, int, int], sealed: bool) -> dict[str, Any]:
    return schema.read(path, schema.STEP, sealed)


def standard_error(first: Sequence[float], second: Sequence[float], slopes: tuple[float, float]) -> float | None:
    """Standard error of exp(mean(second)) - exp(mean(first)), losses of the same windows in the same order.

    Delta method: with perplexities p and q (`slopes`) a window with losses l and k moves the difference by q k - p l.
    None where it is not known: one window, as many as not in the other, or a loss that is not finite.
    """
    if len(first) != len(second) or len(first) < 2:
        return None
    moves = [slopes[1] * later - slopes[0] * earlier for earlier, later in zip(first, second, strict=True)]
    return stdev(moves) / len(moves) ** 0.5 if all(map(math.isfinite, moves)) else None


def perplexity(losses: Sequence[float]) -> float:
    """exp of the mean loss; infinite where that is no number."""
    mean = fmean(losses)
    return math.exp(mean) if mean < LARGE else math.inf


def paired_error(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> float | None:
    """Standard error of a metric's difference between two outcomes of one protocol, over the same windows or examples.

    A mean accuracy is over tasks, whose examples are drawn independently. None where single answers are not kept.
    """
    details = [part.get("details", {}) for part in (first, second)]
    if key.startswith("ppl/"):
        losses = [part.get("losses") for part in details]
        return standard_error(*losses, tuple(map(perplexity, losses))) if all(losses) else None
    family, _, what = bare(key).partition("/")
    name, at, limit = what.partition("@")
    tasks = first.get("protocol", {}).get("mean_over", [name]) if name == "mean" else [name]
    scores = [[part.get("scores", {}).get(f"{family}/{task}{at}{limit}", []) for part in details] for task in tasks]
    errors = [standard_error(*pair, (1.0, 1.0)) for pair in scores]
    return math.hypot(*errors) / len(errors) if errors and None not in errors else None


def over_pairs(first: Record, second: Record, key: str, other: str | None = None) -> float | None:
    """Standard error of second minus first over pairs of windows or examples; `other` is the key in the second.

    None where the protocols differ, and where single losses or answers are not kept.
    """
    other = other or key
    if protocol(first.results, key) != protocol(second.results, other):
        return None
    return paired_error(outcome(first, key), outcome(second, other), key)


def difference(first: Record, second: Record, key: str, other: str | None = None) -> tuple[float, float | None]:
    """Second minus first and its standard error: over pairs of windows or examples of one protocol.

    Else sqrt(e1^2 + e2^2) of both standard errors, as if the runs were independent; None where one is not known.
    `other` is the key in the second run, where that is not the same. KeyError where a run does not have the metric.
    Whether the two are comparable at all is `experiments.runs.protocol`'s.
    """
    sides = (first.results["metrics"], key), (second.results["metrics"], other or key)
    values = [metrics[name] for metrics, name in sides]
    error = over_pairs(first, second, key, other)
    if error is None:
        errors = [metrics.get(stderr(name)) for metrics, name in sides]
        error = None if None in errors else math.hypot(*errors)
    return values[1] - values[0], error


def significant(difference: float, error: float | None) -> bool:
    """Whether a difference is more than `SURE` standard errors from 0; False where the error is not known."""
    return error is not None and abs(difference) > SURE * error
