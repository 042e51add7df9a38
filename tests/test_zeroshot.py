"""Zero-shot evaluation: lm-eval on the real task files, against log-likelihoods computed here, and what it refuses."""

import copy
import gzip
import hashlib
import importlib.metadata
import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.demo import task as demo
from experiments.evals import tasks
from experiments.evals.zeroshot import PAPERS, Zeroshot
from prune.decoder import Decoder

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
DEMO = ROOT / "experiments" / "demo" / "model"
FILES, MODEL = DATA / "tasks", DATA / "models" / "wiki-llama-3m"
real = pytest.mark.skipif(not FILES.is_dir() or not MODEL.is_dir(), reason=f"{DATA} has the real tasks and models")
LIMIT = 20


def load(folder: Path) -> Decoder:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Decoder(model, AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def decoder():
    if not MODEL.is_dir():
        pytest.skip(f"{MODEL} is not there")
    return load(MODEL)


@pytest.fixture(scope="module")
def run(decoder, tmp_path_factory):
    """One evaluation of the papers' seven tasks and PIQA, with the outside world before and after it."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
        before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        special = copy.copy(decoder.tokenizer.special_tokens_map)
        result = Zeroshot(tasks=[*PAPERS, "piqa"], files=str(FILES), limit=LIMIT)(decoder)
        after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    unchanged = before == after, special == decoder.tokenizer.special_tokens_map, not list(Path(folder).iterdir())
    return result, unchanged


@pytest.fixture(scope="module")
def blimp(decoder):
    return Zeroshot(tasks=["blimp"], files=str(FILES), limit=2)(decoder)


def rows(task: str, count: int = LIMIT) -> list[dict]:
    with gzip.open(FILES / f"{task}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


@torch.no_grad()
def loglikelihood(decoder: Decoder, prompt: str, answer: str) -> float:
    """Sum of log p(token) over the answer's tokens, one forward without padding; BOS stands in for an empty prompt."""
    encode = decoder.tokenizer.encode
    start = encode(prompt) if prompt else [decoder.tokenizer.bos_token_id]
    whole = encode(prompt + answer) if prompt else start + encode(answer, add_special_tokens=False)
    scores = decoder.model(torch.tensor([whole])).logits.log_softmax(-1)[0]
    return sum(scores[place - 1, whole[place]].item() for place in range(len(start), len(whole)))


def accuracy(decoder: Decoder, questions: list[tuple[list[tuple[str, str]], int]]) -> float:
    """Share of questions whose true (prompt, answer) pair is the likeliest of its pairs."""
    hits = 0
    for pairs, true in questions:
        scores = [loglikelihood(decoder, prompt, f" {answer}") for prompt, answer in pairs]
        hits += scores.index(max(scores)) == true
    return hits / len(questions)


@real
def test_the_seven_tasks_of_the_papers_and_piqa_run_on_the_real_files(run):
    metrics, protocol = run[0]["metrics"], run[0]["protocol"]
    names = [{"hellaswag": "hellaswag_sample"}.get(task, task) for task in (*PAPERS, "piqa")]
    assert all(f"acc/{name}@first{LIMIT}" in metrics and f"acc_stderr/{name}@first{LIMIT}" in metrics for name in names)
    normalised = {key.split("/")[1].split("@")[0] for key in metrics if key.startswith("acc_norm/")}
    assert normalised == {"hellaswag_sample", "arc_easy", "arc_challenge", "openbookqa", "piqa"}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics[f"acc/mean@first{LIMIT}"] == pytest.approx(
        sum(metrics[f"acc/{name}@first{LIMIT}"] for name in names) / len(names)
    )
    assert protocol["mean_over"] == list(protocol["tasks"]) == names
    assert (protocol["fewshot"], protocol["limit"], protocol["length"], protocol["cut"]) == (0, LIMIT, 1024, {})
    assert protocol["lm_eval"] == importlib.metadata.version("lm_eval")
    json.dumps(run[0])


@real
def test_the_protocol_says_which_file_and_version_was_used_and_marks_a_sample(run):
    found = run[0]["protocol"]["tasks"]
    boolq = hashlib.sha256((FILES / "boolq.jsonl.gz").read_bytes()).hexdigest()
    assert found["boolq"].pop("sha256") == boolq
    assert found["boolq"] == {"version": 2.0, "examples": LIMIT, "file": "boolq.jsonl.gz", "sample": False}
    assert [name for name, entry in found.items() if entry["sample"]] == ["hellaswag_sample"]


@real
def test_an_evaluation_leaves_random_states_tokenizer_and_temporary_folder_as_they_were(run):
    assert run[1] == (True, True, True)


@real
def test_accuracy_equals_the_one_from_log_likelihoods_computed_one_by_one(run, decoder):
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
        assert run[0]["metrics"][f"acc/{form.__name__}@first{LIMIT}"] == pytest.approx(accuracy(decoder, questions))


@real
def test_blimp_is_the_mean_over_its_67_paradigms_and_agrees_with_log_likelihoods(blimp, decoder):
    metrics = blimp["metrics"]
    paradigms = {key: value for key, value in metrics.items() if key.startswith("acc/blimp_")}
    assert len(paradigms) == tasks.PARADIGMS
    assert metrics["acc/blimp@first2"] == pytest.approx(sum(paradigms.values()) / tasks.PARADIGMS)
    assert 0 < metrics["acc_stderr/blimp@first2"] < 0.1
    assert blimp["protocol"]["tasks"]["blimp"]["examples"] == 2 * tasks.PARADIGMS
    with zipfile.ZipFile(FILES / "blimp.zip") as archive:
        for paradigm in ("anaphor_gender_agreement", "passive_1", "wh_island", "tough_vs_raising_1"):
            pairs = [json.loads(line) for line in archive.read(f"data/{paradigm}.jsonl").splitlines()[:2]]
            questions = [([("", pair["sentence_good"]), ("", pair["sentence_bad"])], 0) for pair in pairs]
            assert paradigms[f"acc/blimp_{paradigm}@first2"] == pytest.approx(accuracy(decoder, questions))


@real
def test_answers_that_do_not_fit_lose_the_beginning_of_their_prompt_and_are_counted(decoder):
    result = Zeroshot(tasks=["boolq"], files=str(FILES), limit=4, length=64)(decoder)
    assert result["protocol"]["length"] == 64
    assert result["protocol"]["cut"] == {"boolq": 8}
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


@pytest.mark.skipif(not DEMO.is_dir(), reason=f"{DEMO} has not been trained; run python -m experiments.demo.train")
def test_the_demo_model_answers_its_task_far_above_chance_without_files_or_hub():
    decoder = load(DEMO)
    result = Zeroshot(tasks=["stdlib"], limit=100)(decoder)
    assert set(result["metrics"]) == {"acc/stdlib@first100", "acc_stderr/stdlib@first100"}
    assert result["metrics"]["acc/stdlib@first100"] > 0.5  # chance is 0.25
    questions = [
        ([(b, row["continuation"]) for b in row["beginnings"]], row["answer"]) for row in demo.questions()[:100]
    ]
    assert result["metrics"]["acc/stdlib@first100"] == pytest.approx(accuracy(decoder, questions))


def test_a_check_does_not_import_lm_eval():
    code = (
        "import sys; from experiments.evals.zeroshot import Zeroshot; Zeroshot(tasks=['stdlib']).check();"
        "assert not {'lm_eval', 'datasets', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "boolq"}, "should be a list like [boolq,rte], found 'boolq'"),
        ({"tasks": []}, "should be a list"),
        ({"tasks": ["rte", "boolq", "rte"]}, "names rte more than once"),
        ({"tasks": ["stdlib"], "limit": 0}, "eval.zeroshot.limit should be at least 1, found 0"),
        ({"tasks": ["stdlib"], "batch": 0}, "eval.zeroshot.batch should be at least 1, found 0"),
        ({"files": "no/such/folder"}, "eval.zeroshot.files=no/such/folder is not a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as error:
        Zeroshot(**settings).check()
    assert "\n" not in str(error.value)


def test_an_unknown_task_or_a_missing_file_is_refused_with_the_nearest_name_and_what_is_there(tmp_path):
    (tmp_path / "boolQ.jsonl.gz").touch()
    with pytest.raises(ValueError, match=re.escape("task 'boolqq' (did you mean boolq?); known: boolq, rte,")):
        Zeroshot(tasks=["boolqq"], files=str(tmp_path)).check()
    missing = "has no boolq.jsonl.gz or boolq_sample.jsonl.gz (did you mean boolQ.jsonl.gz?); it has boolQ.jsonl.gz"
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        Zeroshot(tasks=["boolq"], files=str(tmp_path)).check()


BOOLQ = {"question": "is it so", "passage": "It is.", "label": 1}
ARC = {"question": "Which?", "choices": {"text": ["this", "that"], "label": ["A", "B"]}, "answerKey": "C"}


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("boolq", ["{'question'"], "boolq.jsonl.gz, row 1: Expecting property name"),
        ("boolq", [], "boolq.jsonl.gz has no rows"),
        ("boolq", [[1]], "row 1: expected an object with the fields question, passage, label, found [1]"),
        ("boolq", [{"question": "q", "label": 1}], "row 1: has no field 'passage' (its fields: question, label)"),
        ("boolq", [BOOLQ | {"label": "yes"}], "row 1: field 'label' should be 0 or 1, found 'yes'"),
        ("arc_easy", [ARC], "row 1: field 'answerKey' should be one of the choices' labels, found 'C'"),
        ("arc_easy", [ARC | {"choices": ["this", "that"]}], "row 1: field 'choices' should be {\"text\": [...], "),
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
    with pytest.raises(ValueError, match=re.escape("row 2: field 'passage' should be text that is not empty, found 3")):
        tasks.redirect("boolq", tmp_path / "boolq.jsonl.gz", tmp_path)


def test_files_that_are_not_what_their_name_says_are_refused(tmp_path):
    for name in ("boolq.jsonl.gz", "blimp.zip"):
        (tmp_path / name).write_text("plain text")
        with pytest.raises(ValueError, match=f"{name} is not a readable"):
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


def test_a_model_without_a_usable_tokenizer_is_refused(decoder):
    with pytest.raises(ValueError, match="this model has no tokenizer"):
        Zeroshot(tasks=["stdlib"])(Decoder(decoder.model))
    bare = copy.deepcopy(decoder.tokenizer)
    bare.bos_token = bare.eos_token = None
    with pytest.raises(ValueError, match="neither BOS nor EOS"):
        Zeroshot(tasks=["stdlib"])(Decoder(decoder.model, bare))
