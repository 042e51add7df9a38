"""What differs between two runs: settings, code, libraries, data and machine, and every metric with its interval."""

from dataclasses import dataclass
from typing import Any

from experiments.console.families import family
from experiments.runs.calibration import calibrations
from experiments.runs.difference import SURE, difference, over_pairs, significant
from experiments.runs.identity import deciding
from experiments.runs.protocol import compared, protocol, rank
from experiments.runs.record import Record

Pairs = dict[str, tuple[Any, Any]]  # what differs -> its value in the first run and in the second, None where absent


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
    alike = other if isinstance(other, dict) else {}
    parameters = [
        f"{name}={part}"
        for name, part in value.items()
        if name != "_target_" and not isinstance(part, dict) and alike.get(name) != part
    ]
    called = value.get("_target_", "").rpartition(".")[2]
    return f"{called}({', '.join(parameters)})" if parameters else called


def settings(first: Record, second: Record) -> Pairs:
    """Settings that can change the weights and differ, those of the run that masks were taken from (`given`) included.

    A path counts only where what is read there differs. Settings that go from one value to another together, such as
    seed and data.seed, are one entry.
    """
    differing = changes(*(_deciding(record.manifest["config"]) for record in (first, second)))
    calibrated = ("calibration windows", "calibration images")
    for path, contents in (("model.path", ("model",)), ("data.path", calibrated)):
        if not origins(first, second).keys() & set(contents):
            differing = {name: pair for name, pair in differing.items() if not f".{name}".endswith(f".{path}")}
    together: dict[str, list[str]] = {}
    for name in sorted(differing, key=len):
        together.setdefault(repr(differing[name]), []).append(name)  # repr: 1 and true are two values
    return {", ".join(names).replace("given.of.", "given."): differing[names[0]] for names in together.values()}


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that decide the weights."""
    parts = deciding(config)
    parts["model"] = {name: value for name, value in parts.get("model", {}).items() if name != "device"}
    if given := config.get("given"):
        parts["given"] = {"_target_": given["names"]["method"], "of": _deciding(given["config"])}
    return parts


def origins(first: Record, second: Record) -> Pairs:
    """Model and calibration windows by their content, code, versions and machine, as far as they differ."""
    return changes(_origin(first), _origin(second))


def _origin(record: Record) -> dict[str, Any]:
    """Code and versions are those that pruned the run; where other code went on after a stop, both."""
    manifest = record.manifest
    made, data = manifest.get("pruned") or manifest, manifest.get("data") or {}
    hashes = {
        "model": manifest.get("model_content"),
        f"calibration {'images' if 'images' in data else 'windows'}": data.get("sha256"),
        "commit": made.get("commit"),
    }
    content = {name: value and value[:12] for name, value in hashes.items()}
    code = {
        "uncommitted changes": made.get("diff") or made.get("dirty") or None,
        "went on with": record.code.partition("; then ")[2] or None,
    }
    machine = {name: manifest.get(name) for name in ("device", "chip", "cores", "threads", "platform")}
    machine["ranks"] = made.get("ranks") or manifest.get("ranks") or 1
    return content | code | (made.get("versions") or {}) | machine


@dataclass(frozen=True)
class Metric:
    """One metric of both runs, None where a run has not got it; `difference` is second minus first.

    error: standard error of the difference, over pairs of windows or examples if `paired`. unlike: what makes the two
    not comparable, for there is then no difference. unequal: what makes the runs no equals, so that nothing is judged.
    images: whether it is over images.
    """

    key: str
    first: float | None
    second: float | None
    difference: float | None = None
    error: float | None = None
    paired: bool = False
    unlike: str = ""
    unequal: str = ""
    images: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference."""
        if self.difference is None or self.error is None:
            return None
        return self.difference - SURE * self.error, self.difference + SURE * self.error

    @property
    def verdict(self) -> str:
        """What the difference says, in two or three words; nothing of what is exact, such as a sparsity."""
        if self.difference is None:
            return "not comparable" if self.unlike else f"only in {'A' if self.second is None else 'B'}"
        if family(self.key) is None:
            return ""
        if self.difference == 0:
            return "the same"
        if self.error is None:
            return "no error known"
        if self.unequal:
            return "not judged"
        return "significant" if significant(self.difference, self.error) else "within noise"


def metrics(first: Record, second: Record) -> list[Metric]:
    """All metrics of both, those that tables compare first; of the others (audit) what is not 0 in both."""
    sides = [record.results.get("metrics", {}) for record in (first, second)]
    main = sorted({*compared(first.results), *compared(second.results)}, key=rank)
    rest = sorted(key for key in sides[0] | sides[1] if key not in main and "_stderr" not in key.partition("/")[0])
    rest = [key for key in rest if any(values.get(key) for values in sides)]
    return [_metric(first, second, key) for key in main + rest]


def _metric(first: Record, second: Record, key: str) -> Metric:
    values = [record.results.get("metrics", {}).get(key) for record in (first, second)]
    if None in values:
        return Metric(key, *values)
    differing = changes(protocol(first.results, key), protocol(second.results, key))
    if differing:
        unlike = ", ".join(f"{name} {a!s:.12} in A, {b!s:.12} in B" for name, (a, b) in differing.items())
        return Metric(key, *values, unlike=unlike)
    over = {"paired": over_pairs(first, second, key) is not None, "images": "images" in protocol(first.results, key)}
    return Metric(key, *values, *difference(first, second, key), unequal=unequal(first, second), **over)


def unequal(first: Record, second: Record) -> str:
    """Why a difference says nothing of two methods: their runs pruned or read other things. Empty among equals."""
    if len({content for run in (first, second) if (content := run.manifest.get("model_content"))}) > 1:
        return "other model files"
    names = calibrations([first, second])
    return "" if None in names or names[0] == names[1] else f"calibrated with {names[0]} in A, {names[1]} in B"
