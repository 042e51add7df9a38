"""What a run's model wrote, for people: a JSON Lines file for each task, the dense model's answers beside its own."""

import json
from typing import Any

from experiments.files.disk import file_name, replacing, sealed
from experiments.runs.folder import Run
from experiments.runs.results import dense_step


def write_answers(run: Run) -> None:
    """RUN/answers/TASK.jsonl from the stored steps, of every task whose answers are written; one question a line.

    A line has `id` (the question's place in its task), `prompt` (ten digits of the sha256 of all that the model read),
    `question`, `target`, `answer`, and by filter of lm-eval what it `extracted` and the `scores` of that; under `dense`
    the last three of the dense model.
    """
    for name, step in run.steps.items():
        both = [(sealed(path) or {}).get("details", {}) for path in (step, dense_step(run.config, name))]
        pruned, dense = [details.get("answers", {}) for details in both]
        for task, rows in pruned.items():
            others = {row["id"]: row for row in dense.get(task, [])}
            lines = [json.dumps(row | _dense(others.get(row["id"]))) for row in rows]
            path = run.folder / "answers" / f"{file_name(task)}.jsonl"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _dense(row: dict[str, Any] | None) -> dict[str, Any]:
    return {"dense": {part: row[part] for part in ("answer", "extracted", "scores")}} if row else {}
