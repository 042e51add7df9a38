"""What a report's figures and tables share: the metric where there is room for one only, and what metrics are over."""

from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.runs.protocol import of_group, protocol, rank
from experiments.summary.seeds import Group


def main_metrics(groups: Sequence[Group]) -> dict[str, str]:
    """Model label -> the metric (a key of `Group.means`) that most of its runs have, diverged ones too.

    groups: all of a report. Of metrics that as many runs of a model have, the one that most runs of all models have;
    then the first in reading order: perplexities, then accuracies, a mean first, by name. The members of a group of
    tasks are never chosen beside their group. Models of which nothing was measured are left out.
    """
    everywhere = _counts(groups)
    chosen = {}
    for model in dict.fromkeys(group.model for group in groups):
        counts = _counts([group for group in groups if group.model == model])
        if counts:
            chosen[model] = min(counts, key=lambda metric: (-counts[metric], -everywhere[metric], rank(metric)))
    return chosen


def of_images(groups: Iterable[Group], metric: str) -> bool:
    """Whether a metric is over images, not over text."""
    rows = [row for group in groups for row in group.rows if metric in row.values]
    for row in sorted(rows, key=lambda row: not row.values[metric].key)[:1]:  # one that measured it itself, if any
        return "images" in protocol(row.record.results, row.values[metric].key or metric.partition(" [")[0])
    return False


def _counts(groups: Sequence[Group]) -> Counter[str]:
    """Metric -> the runs that have it."""
    rows = [row for group in groups for row in group.rows]
    return Counter(
        metric for row in rows for metric, value in row.values.items() if not of_group(row.record.results, value.key)
    )
