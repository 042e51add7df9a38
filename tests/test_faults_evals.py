"""Evaluations and trackers that cannot work: task files, task names, Weights & Biases."""

import gzip
import json
import os
import zipfile

import pytest

from tests.faults import Fault, cases, check
from tests.test_faults_data import text

BOOLQ = {"question": "is it so", "passage": "It is.", "label": 1}
ASKED = "eval=[zeroshot] eval.zeroshot.limit=2 eval.zeroshot.tasks=[boolq] "
FILES = ASKED + "eval.zeroshot.files={here}"
WANDB = "tracker=[jsonl,wandb] eval=[] "


def task(*rows: object):
    """What makes boolq.jsonl.gz of these rows; a text is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return text("boolq.jsonl.gz", gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def two_paradigms(here):
    with zipfile.ZipFile(here / "blimp.zip", "w") as archive:
        for name in ("one", "two"):
            archive.writestr(f"data/{name}.jsonl", "{}\n")


FAULTS = [
    Fault(
        "no tasks",
        "eval=[zeroshot] eval.zeroshot.tasks=[]",
        "tasks should be a list like \\[boolq,rte\\], found \\[\\]",
    ),
    Fault("a word for the tasks", "eval=[zeroshot] eval.zeroshot.tasks=boolq", "should be a list .*, found 'boolq'"),
    Fault("a number for the tasks", "eval=[zeroshot] eval.zeroshot.tasks=5", "should be a list .*, found 5"),
    Fault("a number among the tasks", "eval=[zeroshot] eval.zeroshot.tasks=[5]", "should be a list .*, found \\[5\\]"),
    Fault("a task twice", "eval=[zeroshot] eval.zeroshot.tasks=[rte,rte]", "names rte more than once"),
    Fault(
        "no examples",
        "eval=[zeroshot] eval.zeroshot.limit=0",
        "eval.zeroshot.limit should be a whole number of at least 1, found 0",
    ),
    Fault(
        "half an example",
        "eval=[zeroshot] eval.zeroshot.limit=0.5",
        "limit should be a whole number of at least 1, found 0.5",
    ),
    Fault("task files that are not there", ASKED + "eval.zeroshot.files=/nowhere", "/nowhere"),
    Fault("a folder without the task", FILES, "has no boolq.jsonl.gz .*; it has"),
    Fault(
        "a mistyped task beside files",
        FILES.replace("boolq", "bolq"),
        "'bolq' is not read .*, did you mean boolq\\?",
    ),
    Fault("a task without rows", FILES, "boolq.jsonl.gz has no rows", prepare=task()),
    Fault(
        "a task of another form",
        FILES,
        "UndefinedError: 'passage'",
        1,
        task({"question": "q"}),
    ),
    Fault(
        "a task with a wrong label",
        FILES,
        "does not fit lm-eval's recipe",
        1,
        task(BOOLQ | {"label": 7}),
    ),
    Fault("a task that is not JSON", FILES, "boolq.jsonl.gz, line 1: .*; Expecting", prepare=task("{'question'")),
    Fault("a task that is cut", FILES, "broken packed data", prepare=text("boolq.jsonl.gz", b"\x1f\x8b{}")),
    Fault("a task broken behind its first row", FILES, "boolq, row 2: .*", 1, task(BOOLQ, {"a": 1})),
    Fault(
        "half of BLiMP", FILES.replace("boolq", "blimp"), "holds 2 paradigms .*, BLiMP has 67", prepare=two_paradigms
    ),
    Fault(
        "BLiMP that is no archive",
        FILES.replace("boolq", "blimp"),
        "not a readable zip",
        prepare=text("blimp.zip", b""),
    ),
    Fault("W&B in a mode there is not", WANDB + "tracker.wandb.mode=onlin", "mode=onlin: expected online, offline"),
    Fault(
        "W&B with a name that is an address",
        WANDB + "tracker.wandb.project=a/b",
        "project=a/b: expected a name without",
    ),
]
SLOW = [
    Fault(
        "a task that lm-eval does not have",
        "eval=[zeroshot] eval.zeroshot.tasks=[bolq]",
        "lm-eval has no task or group 'bolq', did you mean boolq\\?",
    ),
    Fault(
        "a task of the hub without a hub", ASKED, "no data of task boolq .*; without a hub use eval.zeroshot.files", 1
    ),
]
FAULTS += SLOW


@pytest.mark.parametrize("fault", cases([fault for fault in FAULTS if fault not in SLOW]))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", cases(SLOW))
def test_what_only_lm_eval_knows_gets_one_line_too(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.slow
def test_online_without_a_key_is_said_and_recorded_offline(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    words = r"W&B: no API key \(.*\): recording offline"
    check(Fault("W&B online without a key", WANDB + "tracker.wandb.mode=online", words, 0), tmp_path)
