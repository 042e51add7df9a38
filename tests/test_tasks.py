"""Zero-shot task files: what a row must hold, and how a file that cannot be used is refused."""

import gzip
import json
import re
import zipfile

import pytest

from experiments.evals import tasks
from experiments.evals.zeroshot import Zeroshot
from tests import tables


def test_an_unknown_task_or_a_missing_file_is_refused_with_the_nearest_name_and_what_is_there(tmp_path):
    (tmp_path / "boolqa.jsonl.gz").touch()
    with pytest.raises(ValueError, match=re.escape("task 'boolqq', did you mean boolq?; known: boolq, rte,")):
        Zeroshot(tasks=["boolqq"], files=str(tmp_path)).check()
    missing = "has no boolq.jsonl.gz or boolq_sample.jsonl.gz, did you mean boolqa.jsonl.gz?; it has boolqa.jsonl.gz"
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        Zeroshot(tasks=["boolq"], files=str(tmp_path)).check()


BOOLQ = {"question": "is it so", "passage": "It is.", "label": 1}
ARC = {"question": "Which?", "choices": {"text": ["this", "that"], "label": ["A", "B"]}, "answerKey": "C"}


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        (
            "boolq",
            ["{'question'"],
            "boolq.jsonl.gz, line 1: expected JSON objects in UTF-8, one a line or all in one array; Expecting",
        ),
        ("boolq", [], "boolq.jsonl.gz has no rows"),
        ("boolq", [[1]], "entry 1: expected an object with the fields question, passage, label, found 1"),
        ("boolq", [{"question": "q", "label": 1}], "line 1: has no field 'passage' (its fields: question, label)"),
        ("boolq", [BOOLQ | {"label": "yes"}], "line 1: field 'label' should be 0 or 1, found 'yes'"),
        ("arc_easy", [ARC], "line 1: field 'answerKey' should be one of the choices' labels, found 'C'"),
        ("arc_easy", [ARC | {"choices": ["this", "that"]}], "line 1: field 'choices' should be {\"text\": [...], "),
        ("winogrande", [{"sentence": "no gap"}], "field 'sentence' should be a sentence with a _, found 'no gap'"),
    ],
)
def test_a_malformed_file_is_refused_naming_file_row_and_field(tmp_path, task, lines, message):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / f"{task}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Zeroshot(tasks=[task], files=str(tmp_path)).check()
    assert "\n" not in str(error.value)


def test_a_bad_row_further_down_is_refused_before_the_model_runs(tmp_path):
    text = f"{json.dumps(BOOLQ)}\n{json.dumps(BOOLQ | {'passage': 3})}\n"
    (tmp_path / "boolq.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    Zeroshot(tasks=["boolq"], files=str(tmp_path)).check()  # reads the first row only
    with pytest.raises(
        ValueError, match=re.escape("line 2: field 'passage' should be text that is not empty, found 3")
    ):
        tasks.prepare("boolq", tmp_path, tmp_path)


def test_files_that_are_not_what_their_name_says_are_refused(tmp_path):
    for name, said in (("boolq.jsonl.gz", "gz: broken packed data"), ("blimp.zip", "is not a readable zip")):
        (tmp_path / name).write_text("plain text")
        with pytest.raises(ValueError, match=said):
            Zeroshot(tasks=[name.partition(".")[0]], files=str(tmp_path)).check()
    with zipfile.ZipFile(tmp_path / "blimp.zip", "w") as archive:
        archive.writestr("data/wh_island.jsonl", "{}")
        archive.writestr("__MACOSX/data/._wh_island.jsonl", "")
    with pytest.raises(ValueError, match="holds 1 paradigms"):
        Zeroshot(tasks=["blimp"], files=str(tmp_path)).check()


def test_rte_is_read_under_the_field_names_of_glue_and_of_superglue(tmp_path):
    glue = {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0, "idx": 1}
    superglue = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0, "idx": 1}
    assert tasks.LAYOUTS["rte"].row(glue) == tasks.LAYOUTS["rte"].row(superglue)


@pytest.mark.parametrize(
    "name", ["boolq.jsonl.gz", "boolq.jsonl", "boolq.json", "boolq_sample.jsonl.zst", "boolq.parquet"]
)
def test_a_task_is_read_from_whatever_file_a_text_is(tmp_path, name):
    row = BOOLQ | {"passage": "Sp\u00e4t. "}
    (tmp_path / "made").mkdir()
    tables.write(tmp_path / name, [BOOLQ, row])
    path = tasks.locate("boolq", tmp_path)
    assert list(tasks.rows(path, tasks.LAYOUTS["boolq"])) == [BOOLQ, row]
    assert tasks.prepare("boolq", tmp_path, tmp_path / "made")[0] == name.partition(".")[0]
    assert [json.loads(line) for line in (tmp_path / "made" / f"{tasks.stem(path)}.jsonl").open()] == [BOOLQ, row]
