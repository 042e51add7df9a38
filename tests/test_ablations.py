"""Ablations: each axis varies what is pruned, each study says how many runs it is, and its runs can be typed."""

import math
import re
import shlex
from pathlib import Path

import pytest
import yaml

from experiments import plan
from experiments.composing import command
from experiments.composing.groups import chosen_by, composing, elsewhere
from experiments.console.errors import explain
from experiments.runs.identity import identity

CONF = Path(__file__).parents[1] / "conf"
AXES = sorted(path.stem for path in (CONF / "ablate").glob("*.yaml"))
STUDIES = sorted(path.stem for path in (CONF / "experiment" / "ablation").glob("*.yaml"))
ROOT = yaml.safe_load((CONF / "config.yaml").read_text())


def documented(axis: str) -> list[str]:
    """The words of the command in an axis' comment."""
    said = (CONF / "ablate" / f"{axis}.yaml").read_text().splitlines()[1]
    return shlex.split(said.partition(":  ")[2])


def asked(*words: str) -> list[list[str]]:
    """The overrides of each run of a command line, in its order and without what they share."""
    jobs = [set(job.overrides) for job in command.jobs(list(words))]
    return [sorted(job - set.intersection(*jobs)) for job in jobs]


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_names_a_setting_of_its_example_and_values_that_differ(axis):
    example, *rest = documented(axis)
    assert example == f"ablate={axis}"
    content = yaml.safe_load((CONF / "ablate" / f"{axis}.yaml").read_text())["hydra"]
    assert content["mode"] == "MULTIRUN"
    name, values = next(iter(content["sweeper"]["params"].items()))
    assert values == "glob(*)" or len(set(values.split(","))) == len(values.split(",")) > 1
    options = [option for group in ("experiment",) for option in rest[0].removeprefix(f"{group}=").split(",")]
    with composing():
        others = elsewhere(name)
    for experiment in options:
        assert name in ROOT or (CONF / name).is_dir() or name.startswith("data.") or f"{experiment}" in others


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_each_value_of_an_axis_is_another_run(axis):
    jobs = command.jobs(documented(axis))
    assert len({identity(job.config) for job in jobs}) == len(jobs) > 1


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_says_how_many_runs_it_is(study):
    values = command.stands_for(f"experiment=ablation/{study}")
    text = (CONF / "experiment" / "ablation" / f"{study}.yaml").read_text()
    runs = math.prod(len(value.split(",")) for value in values.values() if not value.startswith("["))
    assert int(re.search(r"(\d+) runs\.\n", text)[1]) == runs > 1
    with composing():
        assert all(chosen_by(name) for name in values.get("experiment", "wanda").split(","))


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_run_of_a_study_can_be_built_and_none_twice(study, capsys):
    jobs = command.jobs([f"experiment=ablation/{study}", "model=demo"])
    values = command.stands_for(f"experiment=ablation/{study}")
    assert len(jobs) == len(command.split([f"{name}={value}" for name, value in values.items()]))
    assert len({identity(job.config) for job in jobs}) == len(jobs)
    assert not any("ablation" in word or "ablate" in word for job in jobs for word in job.overrides)
    assert capsys.readouterr().err == "", "a study of ours leaves nothing out"


def test_a_study_is_the_runs_that_can_be_typed_by_hand():
    by_hand = ["-m", "experiment=admm", "update.schedule=released,cubic,paper", "sparsity=0.5,0.6,0.7,0.8"]
    study = ["experiment=ablation/admm_schedule", "sparsity=0.6"]
    sweep = lambda words: command.jobs(words)[0].names.sweep
    assert sweep(study[:1]) == sweep(by_hand) != sweep(study)
    jobs, same = command.jobs(study), command.jobs([*by_hand[:3], "sparsity=0.6"])
    assert [job.config for job in jobs] == [job.config for job in same]
    assert [job.names for job in jobs] == [job.names for job in same]


def test_what_is_typed_beside_a_preset_wins():
    assert asked("ablate=metric", "metric=wanda,ria") == [["metric=wanda"], ["metric=ria"]]
    updates = [job.config["update"] for job in command.jobs(["experiment/ablation=barber_score", "update.ratio=0.5"])]
    assert [(update["score"], update["ratio"]) for update in updates] == [("WD", 0.5), ("W", 0.5), ("D", 0.5)]


def test_what_cannot_work_is_named_and_left_out(capsys):
    assert asked("ablate=parametrisation", "experiment=besa", "sparsity=0.7") == [
        ["allocator.parametrisation=tilted"],
        ["allocator.parametrisation=softmax"],
    ]
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1
    assert said.startswith("left out, cannot work here: allocator.parametrisation=released: parametrisation=released ")


def test_an_axis_over_options_has_all_there_are():
    options = {group: {path.stem for path in (CONF / group).glob("*.yaml")} for group in ("metric", "update")}
    for group, there in options.items():
        assert set(command.stands_for(f"ablate={group}")[group].split(",")) == there


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("ablate=alpa", ["ablate=alpa: no such option, did you mean alpha\\?; there are accept, .*"]),
        ("ablate=alpha,order", ["ablate=alpha,order: expected one preset alone; write a command for each"]),
        ("experiment=wanda,ablation/allocator", ["experiment=wanda,ablation/allocator: expected one preset alone; .*"]),
        ("experiment=ablation/alocator", ["experiment=ablation/alocator: .*, did you mean allocator\\?; .*"]),
        (
            "ablate=schedule experiment=wanda",
            ["ablate=schedule: update.schedule: no such setting here; update=admm has it \\(experiment=admm, best\\)"],
        ),
        (
            "ablate=schedule experiment=wanda,ria,admm",
            ["experiment=wanda or experiment=ria: ablate=schedule: update.schedule: no such setting here; .*"],
        ),
        ("ablate=scope pattern=2of4", ["ablate=scope compares nothing: its runs would all remove the same weights"]),
        ("ablate=propagate experiment=magnitude", ["ablate=propagate compares nothing: its runs would all .*"]),
        (
            "ablate=reference experiment=wanda",
            ["ablate=reference: allocator.reference: no such setting here; allocator=besa, besa_layer has it .*"],
        ),
        (
            "ablate=per_row experiment=besa scope=matrix",
            [
                "allocator.per_row=True: .* rows compete here; set scope=row",
                "ablate=per_row compares nothing: only allocator.per_row=False can work here",
            ],
        ),
        ("ablate=propagate experiment=owl pattern=2of4", ["allocator OWL varies the sparsity, which .*"]),
    ],
)
def test_an_axis_that_compares_nothing_is_refused_before_anything_runs(words, lines, capsys):
    with pytest.raises(ValueError) as caught:
        command.jobs(words.split())
    said = str(caught.value).splitlines()
    assert len(said) == len(lines) and all(map(re.fullmatch, lines, said)), said
    assert capsys.readouterr() == ("", ""), "and nothing is said to be left out"


def test_a_reason_is_told_once_with_the_words_that_only_those_have_who_share_it():
    names = ["a=1 b=1", "a=1 b=2", "a=2 b=1", "a=2 b=2"]
    assert explain(dict.fromkeys(names, "no"), names) == ["no"]
    assert explain(dict.fromkeys(names[:2], "no"), names) == ["a=1: no"]
    assert explain({names[0]: "no", names[3]: "no"}, names) == ["a=1 b=1: no", "a=2 b=2: no"]
    assert explain({names[0]: "no", names[1]: "never"}, names) == ["a=1 b=1: no", "a=1 b=2: never"]


def test_a_question_about_a_study_is_answered_for_its_first_run():
    asked = command.question(["experiment=ablation/admm_schedule", "seed=3", "--cfg", "job"])
    assert asked == ["--cfg", "job", "experiment=admm", "update.schedule=released", "sparsity=0.5", "seed=3"]


@pytest.mark.slow
def test_a_study_is_planned_run_by_run(tmp_path, capsys):
    words = ["experiment=ablation/barber_score", "data.sequences=4", "data.length=32", "eval=[]", "device=cpu"]
    assert plan.main([*words, f"outputs={tmp_path}"]) == 0
    assert "3 of 3 runs to do" in capsys.readouterr().out
