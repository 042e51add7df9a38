"""What a table would run: every run with what it needs and takes, before any of them begins."""

from collections import Counter
from collections.abc import Mapping

from experiments.composing.job import Job
from experiments.console.errors import differences, one_line, refuse_all
from experiments.planning.describe import tabulate
from experiments.planning.outlook import outlook
from experiments.reproduction.cells import Cell
from experiments.reproduction.filling import absent
from experiments.runs.results import finished


def planned(jobs: Mapping[Cell, Job]) -> str:
    """A line for each run, as `python -m experiments.plan -m`, and for each model that is not at hand the reason.

    Mistakes for runs that could not work. Reads config.json of each model, and no weight.
    """
    known, runs, wrong = set[str](), {}, {}
    away = {cell: absent(job.config["model"], weights=False) for cell, job in jobs.items()}
    ready = [cell for cell, reason in away.items() if not reason]
    names = differences(jobs[cell].overrides for cell in ready) if ready else []
    for cell, own in zip(ready, names, strict=True):
        try:
            runs[cell] = None if finished(jobs[cell].run) else outlook(jobs[cell].config, known)
        except (ValueError, OSError) as error:
            wrong[own] = one_line(error)
    refuse_all(wrong, names)
    lines = [tabulate([jobs[cell] for cell in runs], list(runs.values()))] if runs else []
    models = Counter((cell.model, reason) for cell, reason in away.items() if reason)
    lines += [f"{model} is not at hand, {count} runs are not planned: {why}" for (model, why), count in models.items()]
    return "\n".join(lines or ["nothing to run"])
