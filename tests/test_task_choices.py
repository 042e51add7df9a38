"""Tasks of lm-eval by name, and how they are asked: what cannot work gets one line, what differs a key of its own."""

import json
import re
import shutil

import pytest
import yaml

from experiments.evals.task_files import refuse_elsewhere
from experiments.evals.zeroshot import Generation, Zeroshot
from experiments.runs import identity, protocol
from experiments.runs.tasks import joined
from tests.written import RECIPES, ROWS, asked, dump, load


@pytest.fixture(scope="module")
def network(shared):
    return load(shared / "data" / "models" / "wiki-llama-3m")


@pytest.fixture
def files(tmp_path):
    return asked(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fewshot": -1}, "eval.generation.fewshot should be a whole number of at least 0, found -1"),
        ({"tokens": 0}, "eval.generation.tokens should be a whole number of at least 1, found 0"),
        ({"tokens": 2.5}, "eval.generation.tokens should be a whole number of at least 1, found 2.5"),
        (
            {"tasks": ["stdlib_complete"], "fewshot": 2},
            "stdlib_complete has no examples for its prompts; leave fewshot",
        ),
        ({"files": "no/such"}, "eval.generation.files=no/such is not a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        Generation(**settings).check()


def test_a_folder_without_examples_with_two_files_of_them_or_with_too_few_is_refused(network, files):
    task = Generation(files=str(files))
    with pytest.raises(ValueError, match="task gsm8k has 4 examples for its prompts, 5 are asked for"):
        task(network)
    shutil.copy(files / "gsm8k_train.jsonl", files / "gsm8k_train4.jsonl")
    with pytest.raises(ValueError, match=re.escape("has gsm8k_train.jsonl, gsm8k_train4.jsonl; keep one")):
        task.check()
    for file in files.glob("*train*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="with examples for its prompts; or set fewshot=0"):
        task.check()
    Generation(files=str(files), fewshot=0).check()


def test_an_answer_that_no_filter_finds_and_one_without_room_are_refused(network, files):
    dump(files / "gsm8k.jsonl", [ROWS[0], {"question": "Why?", "answer": "So"}])
    with pytest.raises(ValueError, match="task gsm8k, row 2: its own answer 'So' counts as wrong"):
        Generation(files=str(files), fewshot=0)(network)
    dump(files / "gsm8k.jsonl", ROWS)
    with pytest.raises(ValueError, match="answers of 256 tokens, prompt and answer have at most 200; lower eval"):
        Generation(files=str(files), fewshot=0, length=200)(network)


def test_every_task_that_needs_another_antlr_is_refused_with_the_command_that_runs_it_and_no_other_is():
    def names(folder):
        for file in folder.rglob("*.y*ml"):
            recipe = yaml.load(file.read_text(), yaml.BaseLoader) if "!function" not in file.read_text() else None
            found = (
                [recipe]
                if recipe
                else [
                    {kind: name}
                    for kind, name in re.findall(r"^(task|group): *['\"]?(\w+)", file.read_text(), re.MULTILINE)
                ]
            )
            yield from (one[kind] for one in found for kind in ("task", "group") if isinstance(one.get(kind), str))

    needy = [*names(RECIPES / "minerva_math"), *names(RECIPES / "putnam_axiom")]
    needy += [*names(RECIPES / "leaderboard" / "math"), *names(RECIPES / "score" / "math")]
    assert len(needy) > 20
    for task in [*needy, "minerva_math", "leaderboard", "score_robustness"]:
        with pytest.raises(ValueError, match=f"antlr4.* lm_eval --model hf .*pretrained=<run>/model --tasks {task}$"):
            refuse_elsewhere(task)
    for folder in ("gsm8k", "hendrycks_math", "mmlu/default", "leaderboard/bbh_mc", "score/mmlu_pro"):
        for task in names(RECIPES / folder):
            refuse_elsewhere(task)


def test_a_task_whose_packages_are_missing_says_which(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name != "nltk" else name)
    with pytest.raises(ValueError, match="task ifeval needs langdetect, immutabledict: pip install langdetect immut"):
        Generation(tasks=["ifeval"]).check()


def test_the_examples_for_prompts_name_an_evaluation_as_its_questions_do(files):
    def name(*tasks):
        settings = {"_target_": "experiments.evals.zeroshot.Generation", "tasks": list(tasks), "files": str(files)}
        return identity.evaluation("generation", settings)

    before = [name("gsm8k"), name("gsm8k_cot"), name("boolq")]
    dump(files / "gsm8k_train.jsonl", ROWS)
    dump(files / "gsm8k_training.jsonl", ROWS)
    after = [name("gsm8k"), name("gsm8k_cot"), name("boolq")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_an_answer_is_chosen_without_examples_unless_they_are_asked_for(network, tmp_path):
    rows = [{"question": f"is {n} even", "passage": f"It is {n}.", "label": n % 2} for n in range(6)]
    dump(tmp_path / "tasks" / "boolq.jsonl", rows)
    dump(tmp_path / "tasks" / "boolq_train.jsonl", rows)
    plain = Zeroshot(tasks=["boolq"], files=str(tmp_path / "tasks"))(network)
    shown = Zeroshot(tasks=["boolq"], files=str(tmp_path / "tasks"), fewshot=2)(network)
    assert plain["metrics"].keys() == {"acc/boolq", "acc_stderr/boolq"} and not plain["details"]["answers"]
    assert shown["metrics"].keys() == {"acc/boolq@2shot", "acc_stderr/boolq@2shot"}
    assert [each["protocol"]["tasks"]["boolq"]["fewshot"] for each in (plain, shown)] == [0, 2]
    other = json.loads(json.dumps(shown).replace("boolq", "rte"))
    assert joined([shown, other])["metrics"]["acc/mean@2shot"] == shown["metrics"]["acc/boolq@2shot"]


def test_runs_of_versions_that_asked_all_tasks_alike_are_comparable_with_those_of_now():
    def said(entry):
        return protocol.protocol({"protocol": {"zeroshot-1": entry}, "step": {"acc/boolq": "zeroshot-1"}}, "acc/boolq")

    before = {"fewshot": 0, "limit": None, "tasks": {"boolq": {"version": 2.0}}}
    now = {"limit": None, "tasks": {"boolq": {"version": 2.0, "fewshot": 0}}}
    assert said(before) == said(now) != said(now | {"tasks": {"boolq": {"version": 2.0, "fewshot": 5}}})
