"""Zero-shot evaluation: lm-eval on the real task files, against log-likelihoods computed here, and what it refuses."""

import copy
import gzip
import hashlib
import importlib.metadata
import json
import re
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.demo import stdlib_task as demo
from experiments.evals.task_files import PARADIGMS
from experiments.evals.zeroshot import PAPERS, Zeroshot
from prune.network import Network

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "experiments" / "demo" / "model"
FILES = ROOT.parent / "shared" / "data" / "tasks"
LIMIT = 10


def load(folder: Path) -> Network:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Network(model, AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def network(shared):
    return load(shared / "data" / "models" / "wiki-llama-3m")


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """One evaluation of the papers' seven tasks and PIQA, and what of the outside world it left as it was."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        special = copy.copy(network.processor.special_tokens_map)
        result = Zeroshot(tasks=[*PAPERS, "piqa"], files=str(FILES), limit=LIMIT)(network)
    return result, (special == network.processor.special_tokens_map, not list(Path(folder).iterdir()))


def rows(task: str, count: int = LIMIT) -> list[dict]:
    with gzip.open(FILES / f"{task}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


@torch.no_grad()
def loglikelihood(network: Network, prompt: str, answer: str) -> float:
    """Sum of log p(token) over the answer's tokens, one forward without padding; BOS stands in for an empty prompt."""
    encode = network.processor.encode
    start = encode(prompt) if prompt else [network.processor.bos_token_id]
    whole = encode(prompt + answer) if prompt else start + encode(answer, add_special_tokens=False)
    scores = network.model(torch.tensor([whole])).logits.log_softmax(-1)[0]
    return sum(scores[place - 1, whole[place]].item() for place in range(len(start), len(whole)))


def accuracy(network: Network, questions: list[tuple[list[tuple[str, str]], int]]) -> float:
    """Share of questions whose true (prompt, answer) pair is the likeliest of its pairs."""
    hits = 0
    for pairs, true in questions:
        scores = [loglikelihood(network, prompt, f" {answer}") for prompt, answer in pairs]
        hits += scores.index(max(scores)) == true
    return hits / len(questions)


@pytest.mark.slow
def test_the_seven_tasks_of_the_papers_and_piqa_run_on_the_real_files(run):
    metrics, protocol = run[0]["metrics"], run[0]["protocol"]
    names = [{"hellaswag": "hellaswag_sample"}.get(task, task) for task in (*PAPERS, "piqa")]
    assert all(f"acc/{name}@first{LIMIT}" in metrics and f"acc_stderr/{name}@first{LIMIT}" in metrics for name in names)
    normalised = {key.split("/")[1].split("@")[0] for key in metrics if key.startswith("acc_norm/")}
    assert normalised == {"hellaswag_sample", "arc_easy", "arc_challenge", "openbookqa", "piqa"}
    assert all(0 <= value <= 1 for value in metrics.values())
    mean = sum(metrics[f"acc/{name}@first{LIMIT}"] for name in names) / len(names)
    assert metrics[f"acc/mean@first{LIMIT}"] == pytest.approx(mean)
    assert protocol["mean_over"] == list(protocol["tasks"]) == names
    assert (protocol["limit"], protocol["length"], protocol["cut"]) == (LIMIT, 1024, 0)
    assert protocol["lm_eval"] == importlib.metadata.version("lm_eval")
    scores = run[0]["details"]["scores"]
    assert all(sum(scores[key]) / len(scores[key]) == pytest.approx(metrics[key]) for key in scores)
    assert {key for key in metrics if key.startswith("acc") and "_stderr" not in key} - {*scores} == {
        f"acc/mean@first{LIMIT}"
    }
    json.dumps(run[0])


def test_the_protocol_says_which_file_and_version_was_used_and_marks_a_sample(run):
    found = run[0]["protocol"]["tasks"]
    boolq = hashlib.sha256((FILES / "boolq.jsonl.gz").read_bytes()).hexdigest()
    assert found["boolq"].pop("sha256") == boolq
    assert found["boolq"] == {
        "version": 2.0,
        "examples": LIMIT,
        "members": [],
        "file": "boolq.jsonl.gz",
        "sample": False,
        "fewshot": 0,
    }
    assert [name for name, entry in found.items() if entry["sample"]] == ["hellaswag_sample"]


def test_an_evaluation_leaves_tokenizer_and_temporary_folder_as_they_were(run):
    assert run[1] == (True, True)


def test_accuracy_equals_the_one_from_log_likelihoods_computed_one_by_one(run, network):
    def arc_easy(row: dict) -> tuple[str, list[str], int]:
        texts, labels = row["choices"]["text"], row["choices"]["label"]
        return f"Question: {row['question']}\nAnswer:", texts, labels.index(row["answerKey"])

    def boolq(row: dict) -> tuple[str, list[str], int]:
        return f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"], row["label"]

    def rte(row: dict) -> tuple[str, list[str], int]:
        prompt = f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:"
        return prompt, ["True", "False"], row["label"]

    for form in (arc_easy, boolq, rte):
        forms = [form(row) for row in rows(form.__name__)]
        questions = [([(prompt, answer) for answer in answers], true) for prompt, answers, true in forms]
        assert run[0]["metrics"][f"acc/{form.__name__}@first{LIMIT}"] == pytest.approx(accuracy(network, questions))


@pytest.mark.slow
def test_blimp_is_the_mean_over_its_67_paradigms_and_agrees_with_log_likelihoods(network):
    blimp = Zeroshot(tasks=["blimp"], files=str(FILES), limit=2)(network)
    metrics = blimp["metrics"]
    members = blimp["protocol"]["tasks"]["blimp"]["members"]
    paradigms = {key: value for key, value in metrics.items() if key.startswith("acc/blimp_")}
    assert len(paradigms) == PARADIGMS
    assert metrics["acc/blimp@first2"] == pytest.approx(sum(paradigms.values()) / PARADIGMS)
    assert 0 < metrics["acc_stderr/blimp@first2"] < 0.1
    assert blimp["protocol"]["tasks"]["blimp"]["examples"] == 2 * PARADIGMS
    assert sorted(f"acc/{member}@first2" for member in members) == sorted(paradigms)
    with zipfile.ZipFile(FILES / "blimp.zip") as archive:
        for paradigm in ("anaphor_gender_agreement", "passive_1", "wh_island", "tough_vs_raising_1"):
            pairs = [json.loads(line) for line in archive.read(f"data/{paradigm}.jsonl").splitlines()[:2]]
            questions = [([("", pair["sentence_good"]), ("", pair["sentence_bad"])], 0) for pair in pairs]
            assert paradigms[f"acc/blimp_{paradigm}@first2"] == pytest.approx(accuracy(network, questions))


def test_answers_that_do_not_fit_lose_the_beginning_of_their_prompt_and_are_counted(network):
    result = Zeroshot(tasks=["boolq"], files=str(FILES), limit=4, length=64)(network)
    assert result["protocol"]["length"] == 64
    assert result["protocol"]["cut"] == 8
    assert "acc/mean@first4" not in result["metrics"]  # a mean over one task is no mean


def test_the_demo_task_asks_the_same_questions_every_time_with_the_answer_anywhere():
    questions = demo.questions()
    assert len(questions) == 250
    assert questions == demo.questions() != demo.questions(seed=1)
    places = Counter(row["answer"] for row in questions)
    assert set(places) == set(range(4)) and min(places.values()) > 20
    text = " ".join(" ".join(document.split()) for document in demo.documents("heldout"))
    for row in questions:
        assert len(set(row["beginnings"])) == 4
        assert {len(words.split()) for words in row["beginnings"]} == {demo.BEGINNING}
        assert f"{row['beginnings'][row['answer']]} {row['continuation']}" in text
    with pytest.raises(ValueError, match="passages, 1000000 questions asked for"):
        demo.questions(1000000)


@pytest.mark.slow
def test_the_demo_model_answers_its_task_far_above_chance_without_files_or_hub():
    network = load(DEMO)
    result = Zeroshot(tasks=["stdlib"], limit=50)(network)
    assert set(result["metrics"]) == {"acc/stdlib@first50", "acc_stderr/stdlib@first50"}
    assert result["metrics"]["acc/stdlib@first50"] > 0.5  # chance is 0.25
    questions = [
        ([(b, row["continuation"]) for b in row["beginnings"]], row["answer"]) for row in demo.questions()[:50]
    ]
    assert result["metrics"]["acc/stdlib@first50"] == pytest.approx(accuracy(network, questions))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "boolq"}, "should be a list like [boolq,rte], found 'boolq'"),
        ({"tasks": []}, "should be a list"),
        ({"tasks": ["rte", "boolq", "rte"]}, "names rte more than once"),
        ({"tasks": ["stdlib"], "limit": 0}, "eval.zeroshot.limit should be a whole number of at least 1, found 0"),
        ({"files": "no/such/folder"}, "eval.zeroshot.files=no/such/folder is not a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as error:
        Zeroshot(**settings).check()
    assert "\n" not in str(error.value)


def test_a_model_without_a_tokenizer_is_refused(network):
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        Zeroshot(tasks=["stdlib"])(Network(network.model))
