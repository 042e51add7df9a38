"""The metric that a report shows where it has room for one only: the same in all its figures and tables."""

from collections import Counter
from collections.abc import Sequence

from experiments.runs.protocol import of_group, rank
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


def _counts(groups: Sequence[Group]) -> Counter[str]:
    """Metric -> the runs that have it."""
    rows = [row for group in groups for row in group.rows]
    return Counter(
        metric for row in rows for metric, value in row.values.items() if not of_group(row.record.results, value.key)
    )
