"""Zero-shot task files: what a row must hold, and how a file that cannot be used is refused."""

import gzip
import json
import re
import zipfile

import pytest

from experiments.data.files import stem
from experiments.evals.task_files import locate, prepare_task, rows
from experiments.evals.zeroshot import Zeroshot
from tests import tables


def test_an_unknown_task_or_a_missing_file_is_refused_with_the_nearest_name_and_what_is_there(tmp_path):
    (tmp_path / "boolqa.jsonl.gz").touch()
    with pytest.raises(
        ValueError, match=re.escape("task 'boolqq' is not read from files, did you mean boolq?; these are: boolq,")
    ):
        Zeroshot(tasks=["boolqq"], files=str(tmp_path)).check()
    missing = "has no boolq.jsonl.gz or boolq_sample.jsonl.gz, did you mean boolqa.jsonl.gz?; it has boolqa.jsonl.gz"
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        Zeroshot(tasks=["boolq"], files=str(tmp_path)).check()


BOOLQ = {"question": "is it so", "passage": "It is.", "label": 1}
ARC = {"question": "Which?", "choices": {"text": ["this", "that"], "label": ["A", "B"]}, "answerKey": "A"}
WINOGRANDE = {"sentence": "The _ fell.", "option1": "cat", "option2": "hat", "answer": "1"}


def write(folder, task, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / f"{task}.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def loaded(task, folder):
    """What lm-eval makes of a task's file."""
    (folder / "made").mkdir(exist_ok=True)
    name, _ = prepare_task(task, folder, folder / "made")
    return Zeroshot(tasks=[task], files=str(folder))._loaded(name, folder / "made")["tasks"][name]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'question'", "boolq.jsonl.gz, line 1: expected JSON objects in UTF-8, one a line or all in one array; Exp"),
        ("", "boolq.jsonl.gz has no rows"),
        ([1], "boolq.jsonl.gz, entry 1: expected an object, found 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_the_model_is(tmp_path, line, message):
    write(tmp_path, "boolq", line or "\n")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Zeroshot(tasks=["boolq"], files=str(tmp_path)).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "boolq",
            {"question": "q", "label": 1},
            "the first row does not fit lm-eval's recipe (UndefinedError: 'passage'",
        ),
        ("boolq", BOOLQ | {"label": "maybe"}, "task boolq, row 2: 'maybe' is none of the choices ['no', 'yes']"),
        ("boolq", BOOLQ | {"label": -1}, "task boolq, row 2: -1 is none of the choices ['no', 'yes']"),
        ("arc_easy", ARC | {"answerKey": "C"}, "task arc_easy, row 2: 'C' is not in list"),
        ("arc_easy", ARC | {"choices": ["this", "that"]}, "task arc_easy: "),
        ("winogrande", WINOGRANDE | {"sentence": "no gap"}, "task winogrande, row 2: substring not found"),
    ],
)
def test_a_row_that_cannot_be_answered_is_refused_before_the_model_runs(tmp_path, task, row, message):
    good = {"boolq": BOOLQ, "arc_easy": ARC, "winogrande": WINOGRANDE}[task]
    write(tmp_path, task, *([good, row] if "row 2" in message else [row]))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        loaded(task, tmp_path)
    assert "\n" not in str(error.value)


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
    write(tmp_path, "rte", glue, superglue)
    assert list(rows(tmp_path / "rte.jsonl.gz")) == [glue, glue]


@pytest.mark.parametrize(
    "name", ["boolq.jsonl.gz", "boolq.jsonl", "boolq.json", "boolq_sample.jsonl.zst", "boolq.parquet"]
)
def test_a_task_is_read_from_whatever_file_a_text_is(tmp_path, name):
    row = BOOLQ | {"passage": "Sp\u00e4t. "}
    (tmp_path / "made").mkdir()
    tables.write(tmp_path / name, [BOOLQ, row])
    path = locate("boolq", tmp_path)
    assert list(rows(path)) == [BOOLQ, row]
    assert prepare_task("boolq", tmp_path, tmp_path / "made")[0] == name.partition(".")[0]
    assert [json.loads(line) for line in (tmp_path / "made" / f"{stem(path)}.jsonl").open()] == [BOOLQ, row]
