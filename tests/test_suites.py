"""Suites: options of eval that stand for a list of evaluations, as if each had been typed."""

import pytest

from experiments.composing import command
from experiments.evals.zeroshot import PAPERS
from experiments.running.components import build
from experiments.summary.rows import readable

QUICK = ["eval=[perplexity,kl,zeroshot,audit]", "eval.zeroshot.tasks=[stdlib,stdlib_complete]"]


def measured(*words):
    """The settings of each evaluation that a command makes."""
    (job,) = command.jobs(list(words))
    return job.config["eval"]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["eval=quick"], QUICK),
        (["eval=[quick,generation]"], [QUICK[0].replace("audit", "audit,generation"), QUICK[1]]),
        (["eval=[perplexity,quick]", "eval.zeroshot.limit=40"], [*QUICK, "eval.zeroshot.limit=40"]),
        (["eval=quick", "eval.zeroshot.tasks=[arc_easy,piqa]"], [QUICK[0], "eval.zeroshot.tasks=[arc_easy,piqa]"]),
        (["eval=paper"], ["eval=[wikitext2,zeroshot,audit]"]),
        (
            ["eval=modern"],
            ["eval=[wikitext2,zeroshot,audit,kl_wikitext2,mmlu,generation]", "eval.generation.tasks=[gsm8k,ifeval]"],
        ),
    ],
)
def test_a_suite_is_what_could_be_typed(words, same):
    assert measured(*words) == measured(*same)


def test_the_papers_protocol_is_their_windows_and_their_seven_tasks():
    paper = measured("eval=paper")
    assert paper["wikitext2"]["length"] == 2048 and paper["wikitext2"]["windows"] is None
    assert tuple(paper["zeroshot"]["tasks"]) == PAPERS and len(PAPERS) == 7
    assert paper["zeroshot"]["limit"] is paper["zeroshot"]["fewshot"] is None
    assert measured("eval=modern")["mmlu"]["fewshot"] == 5


def test_a_sweep_may_go_over_suites_and_an_ablation_have_one():
    each = [list(job.config["eval"]) for job in command.jobs(["-m", "eval=quick,paper,[paper,kl]"])]
    assert each == [
        ["perplexity", "kl", "zeroshot", "audit"],
        ["wikitext2", "zeroshot", "audit"],
        ["wikitext2", "zeroshot", "audit", "kl"],
    ]
    jobs = command.jobs(["experiment=barber", "given=wanda", "ablate=sparsity", "eval=quick"])
    assert all("kl" in job.config["eval"] and "kl" in job.config["given"]["config"]["eval"] for job in jobs)


def test_a_short_table_has_the_mean_of_the_papers_tasks_and_mmlu_beside_it():
    keys = ["ppl/text@128", "acc/mean", "acc/boolq", "acc/rte", "acc/mmlu@5shot"]
    assert readable(keys) == ["ppl/text@128", "acc/mean", "acc/mmlu@5shot"]
    assert readable(keys[2:]) == keys[2:]
    assert readable([f"acc/task{n}" for n in range(5)] + keys[4:]) == ["acc/mmlu@5shot"]
    first = ["acc/boolq@first9", "acc/boolq@first9 [2]"]
    assert readable([*first, *keys[:3]]) == [*first, *keys[:2]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "eval=quick eval.quick.limit=40",
            "is a suite of perplexity, kl, zeroshot, audit; set eval.zeroshot.limit",
        ),
        ("eval=quick eval.generation.limit=40", "generation is not chosen; add it"),
        ("eval=quik", "no such option, did you mean quick"),
    ],
)
def test_what_a_suite_does_not_have_is_named(words, message):
    with pytest.raises(ValueError, match=message):
        command.jobs(words.split())


@pytest.mark.parametrize(
    ("option", "setting", "message"),
    [
        ("mmlu", "limit=0", r"eval\.mmlu\.limit should be"),
        ("kl_wikitext2", "top=1", r"eval\.kl_wikitext2\.top: exp"),
        ("zeroshot", "limit=0", r"eval\.zeroshot\.limit should be"),
    ],
)
def test_a_mistake_in_an_evaluation_is_told_by_the_name_it_is_chosen_by(option, setting, message):
    (job,) = command.jobs(["model=demo", f"eval={option}", f"eval.{option}.{setting}"])
    with pytest.raises(ValueError, match=message):
        build(job.config)
