"""Every metric of two runs, the difference with its interval, or why there is none."""

from dataclasses import dataclass

from experiments.comparing.settings import changes
from experiments.runs.difference import SURE, difference, over_pairs, significant
from experiments.runs.protocol import FAMILIES, compared, protocol, rank
from experiments.runs.record import Record


@dataclass(frozen=True)
class Metric:
    """One metric of both runs, None where a run has not got it; `difference` is second minus first.

    error: standard error of the difference, over pairs of windows or examples if `paired`. unlike: what makes the two
    not comparable, for there is then no difference.
    """

    key: str
    first: float | None
    second: float | None
    difference: float | None = None
    error: float | None = None
    paired: bool = False
    unlike: str = ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference."""
        if self.difference is None or self.error is None:
            return None
        return self.difference - SURE * self.error, self.difference + SURE * self.error

    @property
    def verdict(self) -> str:
        """What the difference says, in two or three words; nothing of what is exact, such as a sparsity."""
        if self.first is None or self.second is None:
            return f"only in {'A' if self.second is None else 'B'}"
        if self.unlike:
            return "not comparable"
        if self.key.partition("/")[0] not in FAMILIES:
            return ""
        if self.difference == 0:
            return "the same"
        if self.error is None:
            return "no error known"
        return "significant" if significant(self.difference or 0.0, self.error) else "within noise"


def metrics(first: Record, second: Record) -> list[Metric]:
    """All metrics of both, those that tables compare first; of the others (audit) what is not 0 in both."""
    found = [record.results.get("metrics", {}) for record in (first, second)]
    main = sorted({*compared(first.results), *compared(second.results)}, key=rank)
    rest = sorted(key for key in found[0] | found[1] if key not in main and "_stderr" not in key.partition("/")[0])
    rest = [key for key in rest if any(values.get(key) for values in found)]
    return [_metric(first, second, key) for key in main + rest]


def _metric(first: Record, second: Record, key: str) -> Metric:
    values = [record.results.get("metrics", {}).get(key) for record in (first, second)]
    if None in values:
        return Metric(key, *values)
    differing = changes(protocol(first.results, key), protocol(second.results, key))
    if differing:
        unlike = ", ".join(f"{name} {a!s:.12} in A, {b!s:.12} in B" for name, (a, b) in differing.items())
        return Metric(key, *values, unlike=unlike)
    paired = over_pairs(first, second, key) is not None
    return Metric(key, *values, *difference(first, second, key), paired=paired)
