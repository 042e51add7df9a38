"""A number is looked up by all that it measures: two texts of one name or two lengths of one task never share a key."""

import json

import pytest

from experiments.runs import identity, protocol
from experiments.runs.difference import paired_error
from experiments.runs.record import load
from experiments.summary.rows import arrange, single
from tests.answers import answer, place, run, write
from tests.runs import change, metrics, put

CATS, DOGS = "the cat sat on the mat. " * 60, "dogs run, and 7 of them bark at 12 trees! " * 60


@pytest.fixture
def texts(tmp_path):
    """A place with two texts of one name."""
    here = place(tmp_path)
    write(here / "e1" / "test.txt", CATS)
    write(here / "e2" / "test.txt", DOGS)
    return here


def ask(here, text, outputs="out", more=""):
    words = (
        f"experiment=magnitude eval=[perplexity] eval.perplexity.length=32 eval.perplexity.path={here}/{text}/test.txt"
    )
    return answer(f"{words} {more}", here, outputs)


def number(results, dense=False):
    """The perplexity that was measured last, wherever the results have it."""
    return {key: results["dense" if dense else "metrics"][key] for key in results["step"] if key.startswith("ppl/")}


def test_two_texts_of_one_name_keep_their_numbers_and_the_first_is_told_again(texts):
    alone = {text: ask(texts, text, text)[0] for text in ("e1", "e2")}
    asked = [ask(texts, text)[0] for text in ("e1", "e2", "e1")][-1]
    short, long = sorted(number(asked), key=len)
    assert short == "ppl/test@32" and long.startswith("ppl/test@32#")
    for key, text in ((short, "e1"), (long, "e2")):
        for part in ("metrics", "dense"):
            assert asked[part][key] == alone[text][part]["ppl/test@32"]
        error = protocol.stderr(key)
        assert asked["metrics"][error] == alone[text]["metrics"]["ppl_stderr/test@32"]
        assert asked["difference_stderr"][key] == alone[text]["difference_stderr"]["ppl/test@32"]
        assert asked["settings"][asked["step"][key]]["path"] == f"{texts}/{text}/test.txt"


def test_the_table_says_which_text_a_longer_key_is_and_a_report_holds_both_runs_apart(texts):
    ask(texts, "e1")
    _, said = ask(texts, "e2")
    first = load(run(said))
    (long,) = [key for key in protocol.compared(first.results) if "#" in key]
    assert f"{long}: eval.perplexity.path={texts}/e2/test.txt" in said
    second = load(run(ask(texts, "e2", more="seed=1 experiment=random")[1]))
    table = arrange([first, second])
    assert len(table.metrics) == 2 and all("#" not in metric for metric in table.metrics)
    rows = {row.record.folder: row.values for row in table.rows if row.method != "dense"}
    shared = set(rows[first.folder]) & set(rows[second.folder])
    assert [rows[first.folder][key].value for key in shared] == [first.results["metrics"][long]]
    lines = [json.loads(line) for line in (first.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line[long] for line in lines if long in line] == [first.results["metrics"][long]]


def test_a_copy_of_a_text_has_its_own_name_and_the_same_numbers(texts):
    (texts / "e2" / "other.txt").write_text(CATS)
    words = "experiment=magnitude eval=[perplexity] eval.perplexity.length=32 eval.perplexity.path="
    found = [answer(f"{words}{texts}/{file}", texts)[0] for file in ("e1/test.txt", "e2/other.txt")][-1]
    for part in ("metrics", "dense", "difference_stderr"):
        assert found[part]["ppl/test@32"] == found[part]["ppl/other@32"]


def test_a_setting_of_a_task_that_changes_its_answer_makes_another_key_and_a_new_task_beside_it_does_not():
    tasks = {"boolq": {"version": 2}, "rte": {"version": 1}}
    said = lambda length, *names: {"length": length, "tasks": {name: tasks[name] for name in names}, "batch": length}
    results = {"step": {"acc/boolq": "zeroshot-1"}, "protocol": {"zeroshot-1": said(250, "boolq")}}
    outcome = {"metrics": {"acc/boolq": 0.5, "acc_stderr/boolq": 0.1, "acc/rte": 0.5}}
    shorter = protocol.printed(results, "zeroshot-2", outcome | {"protocol": said(80, "boolq", "rte")})
    assert shorter["acc/boolq"].startswith("acc/boolq#") and shorter["acc/rte"] == "acc/rte"
    more = protocol.printed(results, "zeroshot-3", outcome | {"protocol": said(250, "boolq", "rte")})
    assert all(own == key for own, key in more.items())


def test_a_number_by_other_code_replaces_the_one_it_repeats():
    outcome = {"metrics": {"ppl/x@8": 2.0}, "protocol": {"sha256": "a", "code": "new"}}
    results = {"step": {"ppl/x@8": "perplexity-1"}, "protocol": {"perplexity-1": {"sha256": "a", "code": "old"}}}
    assert protocol.printed(results, "perplexity-2", outcome) == {"ppl/x@8": "ppl/x@8"}
    results["protocol"]["perplexity-1"]["sha256"] = "b"
    assert protocol.printed(results, "perplexity-2", outcome)["ppl/x@8"].startswith("ppl/x@8#")


def test_the_error_of_a_number_is_never_that_of_another_text_of_its_name():
    results = {"step": {"ppl/x@8": "perplexity-1"}, "protocol": {"perplexity-1": {"sha256": "a", "windows": 1}}}
    outcome = {"metrics": {"ppl/x@8": 2.0, "ppl_stderr/x@8": 0.1}, "protocol": {"sha256": "b", "windows": 4}}
    keys = protocol.printed(results, "perplexity-2", outcome)
    assert keys["ppl_stderr/x@8"] == protocol.stderr(keys["ppl/x@8"]) != "ppl_stderr/x@8"


def test_answers_behind_a_longer_key_are_still_paired():
    scores = [{"acc/boolq": [1.0, 0.0, 1.0, 1.0]}, {"acc/boolq": [0.0, 0.0, 1.0, 0.0]}]
    first, second = ({"details": {"scores": part}, "protocol": {}} for part in scores)
    assert paired_error(first, second, "acc/boolq#012345") == paired_error(first, second, "acc/boolq") > 0


def test_a_hash_in_a_texts_name_is_no_longer_key():
    assert protocol.bare("ppl/a#b@32") == "ppl/a#b@32" == protocol.bare("ppl/a#b@32#4f2a91")


def columns(here, tasks, **values):
    """The columns of a run whose zero-shot tasks say this of themselves, and which has these metrics too."""
    folder = put(here, "wanda", metrics=metrics(20.0) | {f"acc/{name}": value for name, value in values.items()})
    told = {task: {"version": 1.0} | ({} if members is None else {"members": members}) for task, members in tasks}
    protocols = {"perplexity-1": {"sha256": "a1"}, "zeroshot-1": {"tasks": told}}
    steps = {
        key: f"{'perplexity' if key.startswith('ppl') else 'zeroshot'}-1" for key in load(folder).results["metrics"]
    }
    change(folder, protocol=protocols, step=steps)
    table, said = arrange([load(folder)]), single(folder)
    assert all(
        (column in table.columns) == (f"{column} %" in said) for column in table.metrics if column.startswith("acc")
    )
    return {column.removeprefix("acc/") for column in table.columns} & values.keys()


@pytest.mark.parametrize(
    ("tasks", "shown"),
    [
        ([("mmlu", ["mmlu_law"]), ("mmlu_pro", [])], {"mmlu", "mmlu_pro"}),
        ([("mmlu", ["mmlu_law", "mmlu_pro"])], {"mmlu"}),
        ([("mmlu", ["mmlu_law", "mmlu_pro"]), ("mmlu_pro", [])], {"mmlu", "mmlu_pro"}),
        ([("mmlu", []), ("law", ["mmlu_law", "mmlu_pro"])], {"mmlu", "mmlu_law", "mmlu_pro"}),  # no number of its own
        ([("mmlu", None), ("mmlu_pro", None)], {"mmlu", "mmlu_pro"}),  # an earlier version, which goes by names
    ],
)  # fmt: skip
def test_a_task_is_left_out_only_where_the_evaluation_says_its_group_has_it(tmp_path, tasks, shown):
    assert columns(tmp_path, tasks, mmlu=0.5, mmlu_law=0.4, mmlu_pro=0.3) == shown


def test_a_text_named_like_another_with_more_behind_it_has_its_column(tmp_path):
    folder = put(tmp_path, "wanda", metrics=metrics(20.0, **{"ppl/text_val@128": 21.0}))
    assert arrange([load(folder)]).columns[:2] == ["ppl/text@128", "ppl/text_val@128"]
    assert "ppl/text_val@128" in single(folder)


def test_two_runs_of_a_task_share_its_column_whatever_stood_beside_it():
    beside = {"tasks": {"mmlu": {"version": 1, "members": ["mmlu_law"]}, "mmlu_pro": {"version": 2, "members": []}}}
    alone = {"tasks": {"mmlu_pro": {"version": 2, "members": []}}}
    said = [
        protocol.protocol({"protocol": {"z": tasks}, "step": {"acc/mmlu_pro": "z"}}, "acc/mmlu_pro")
        for tasks in (beside, alone)
    ]
    assert said[0] == said[1]


def test_a_text_that_is_not_read_is_no_part_of_the_code_that_measures():
    text = {"_target_": "experiments.data.stdlib.Stdlib", "seed": 0}
    settings = {"_target_": "experiments.evals.perplexity.Perplexity", "text": text, "path": None, "length": 8}
    assert "text" in identity.read_by(settings) and "text" not in identity.read_by(settings | {"path": "a.txt"})
