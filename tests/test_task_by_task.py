"""Zero-shot tasks are kept one by one: another list costs what is new alone, with the numbers of a new folder."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from experiments.composing.command import compose_jobs
from experiments.evals.zeroshot import Zeroshot
from experiments.files.disk import sealed
from experiments.reproduction.filling import outcome
from experiments.running.pipeline import Pipeline
from experiments.runs import identity
from experiments.runs.record import load
from experiments.summary.rows import arrange, single
from tests.answers import answer, place, write
from tests.faults import settings

BOOLQ = [{"question": f"is {n} even", "passage": f"It is {n}.", "label": n % 2} for n in range(6)]
RTE = [{"sentence1": f"{n} cats sit.", "sentence2": "Cats sit.", "label": n % 2} for n in range(5)]
CHOICES = {"text": ["a cat", "a longer dog"], "label": ["A", "B"]}
ARC = [{"question": f"Which of {n}?", "choices": CHOICES, "answerKey": "AB"[n % 2]} for n in range(7)]
ROWS = {"boolq": BOOLQ, "rte": RTE, "arc_easy": ARC}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A place with the files of three tasks, and a run that has two of them."""
    here = place(tmp_path_factory.mktemp("begun"))
    for task, rows in ROWS.items():
        write(here / "tasks" / f"{task}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    zeroshot(here, "boolq,rte")
    return here


@pytest.fixture
def here(begun, tmp_path):
    return Path(shutil.copytree(begun, tmp_path / "here"))


@pytest.fixture
def measured(monkeypatch):
    """How often each task was measured, and `prune` for each model that was pruned."""
    counts, ask, prune = Counter(), Zeroshot._answer, Pipeline.prune
    counting = lambda what, do: lambda self, *given: (counts.update([what or given[0]]), do(self, *given))[1]
    monkeypatch.setattr(Zeroshot, "_answer", counting(None, ask))
    monkeypatch.setattr(Pipeline, "prune", counting("prune", prune))
    return counts


def zeroshot(here, tasks, outputs="out", more=""):
    words = f"experiment=magnitude eval=[zeroshot] eval.zeroshot.files={here}/tasks eval.zeroshot.tasks=[{tasks}]"
    return answer(f"{words} {more}", here, outputs)[0]


def test_another_list_measures_what_is_new_in_both_models_and_has_the_numbers_of_a_new_folder(here, measured):
    grown = zeroshot(here, "boolq,arc_easy,rte", more="eval=[zeroshot,audit]")
    assert measured == {"arc_easy": 2, "prune": 1}  # in the dense model and in the pruned one
    afresh = zeroshot(here, "boolq,arc_easy,rte", "other")
    assert measured == {"arc_easy": 4, "boolq": 2, "rte": 2, "prune": 2}
    for part in ("metrics", "dense", "difference_stderr"):
        for key, value in afresh[part].items():
            shown = next(k for k in grown[part] if k.startswith("acc/mean#")) if key == "acc/mean" else key
            assert grown[part][shown] == value


def test_a_list_whose_tasks_are_all_there_needs_no_model(here, measured):
    zeroshot(here, "boolq,arc_easy,rte")
    measured.clear()
    results = zeroshot(here, "rte,arc_easy")
    means = {key: results["protocol"][step]["mean_over"] for key, step in results["step"].items() if "acc/mean" in key}
    (mean,) = [key for key, tasks in means.items() if tasks == ["rte", "arc_easy"]]
    assert results["metrics"][mean] == (results["metrics"]["acc/arc_easy"] + results["metrics"]["acc/rte"]) / 2
    assert zeroshot(here, "arc_easy,rte")["metrics"].keys() == results["metrics"].keys()  # the same mean
    assert zeroshot(here, "rte")["metrics"] == results["metrics"]
    assert not measured


def test_a_run_and_a_report_say_what_a_mean_is_over(here):
    zeroshot(here, "boolq,rte,arc_easy")
    record = load(next((here / "out").glob("*/magnitude-*")))
    assert "acc/mean: mean over boolq, rte" in single(record.folder)
    assert any(
        "acc/mean [2] is not comparable with acc/mean: mean_over with arc_easy" in n for n in arrange([record]).notes
    )


def test_a_mean_is_of_the_tasks_that_its_step_names_whatever_was_measured_since(here):
    results = zeroshot(here, "boolq,rte,arc_easy")
    means = {key: step for key, step in results["step"].items() if key.startswith("acc/mean")}
    assert len(means) == 2
    for part in ("metrics", "dense"):
        for key, step in means.items():
            tasks = results["protocol"][step]["mean_over"]
            accuracies = [results[part][f"acc/{task}"] for task in tasks]
            assert results[part][key] == sum(accuracies) / len(tasks)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("eval.zeroshot.limit=3", {"boolq": 2, "rte": 2}),
        ("eval.zeroshot.batch=2", {"boolq": 2, "rte": 2}),
        ("eval.zeroshot.length=40", {"boolq": 2, "rte": 2}),
        ("lm_eval", {"boolq": 2, "rte": 2}),
        ("the file of boolq", {"boolq": 2}),
        ("a file of another task", {}),
        ("seed=1", {"boolq": 1, "rte": 1}),  # another run of the same model
    ],
)
def test_a_change_measures_again_what_it_concerns(here, measured, monkeypatch, change, again):
    if change == "lm_eval":
        release = identity.release
        monkeypatch.setattr(identity, "release", lambda name: "0.1" if name == "lm_eval" else release(name))
    elif "file" in change:
        task = "boolq" if "boolq" in change else "piqa"
        write(here / "tasks" / f"{task}.jsonl", "".join(f"{json.dumps(row)}\n" for row in BOOLQ[1:]))
    zeroshot(here, "boolq,rte", more=change if "=" in change else "")
    del measured["prune"]
    assert measured == again


def test_what_earlier_commands_spent_on_a_runs_tasks_is_in_its_seconds(here):
    first = zeroshot(here, "boolq,rte")["seconds"]["zeroshot"]  # nothing is computed
    (later, saved) = (zeroshot(here, "boolq,rte,arc_easy")[part]["zeroshot"] for part in ("seconds", "saved"))
    steps = [sealed(file) for file in (here / "out").glob("*/*/steps/zeroshot-*.json")]
    single = {
        next(iter(step["protocol"]["tasks"])): step["cost"] for step in steps if not step["protocol"]["mean_over"]
    }
    assert later == pytest.approx(sum(cost["seconds"] for cost in single.values()))
    assert saved == pytest.approx(first) == pytest.approx(later - single["arc_easy"]["seconds"])


def test_a_task_that_is_there_when_the_next_one_runs_out_of_memory_is_charged_once(here, monkeypatch):
    ask, turns = Zeroshot._answer, []

    def narrow(self, task, network):
        turns.append(task)
        if turns == ["rte", "arc_easy"] * 2:  # of the dense model, then of the pruned one
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return ask(self, task, network)

    monkeypatch.setattr(Zeroshot, "_answer", narrow)
    results = zeroshot(here, "rte,arc_easy", "other")
    costs = [sealed(file)["cost"]["seconds"] for file in here.glob("other/*/*/steps/*.json") if "cost" in sealed(file)]
    assert len(costs) == 2 and results["seconds"]["zeroshot"] == pytest.approx(sum(costs))


def test_a_table_finds_a_runs_tasks_whatever_list_measured_them_last(here):
    tasks = f"eval=[zeroshot] eval.zeroshot.files={here}/tasks eval.zeroshot.tasks=[boolq,rte]"
    (job,) = compose_jobs([settings(f"experiment=magnitude {tasks} outputs={here}/out", here)], {})
    before = outcome(job, "").metrics
    assert before.keys() >= {"acc/boolq", "acc/rte", "acc/mean"}
    assert not any("arc_easy" in key for key in before)
    zeroshot(here, "boolq,rte,arc_easy")
    assert outcome(job, "").metrics == before


def test_a_damaged_answer_is_measured_again(here, measured):
    for file in (here / "out").glob("*/*/steps/zeroshot-*.json"):
        if list(sealed(file)["protocol"]["tasks"]) in (["rte"], ["boolq", "rte"]):
            file.write_text(file.read_text().replace("acc", "bcc"))
    zeroshot(here, "boolq,rte")
    assert measured == {"rte": 1, "prune": 1}
