"""Prompts in the chat template of a model's tokenizer: the oracle is lm-eval's own HF model and evaluator."""

import json

import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from experiments.evals.zeroshot import Generation, Zeroshot
from tests.answers import place
from tests.faults import ask, settings
from tests.written import RECIPES, asked, dump, load

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
CHOICES = [
    {"id": str(n), "question": f"What is {n} and 1?", "answerKey": "AB"[n % 2]}
    | {"choices": {"text": [f"{n}", f"{n + 1} of course"], "label": ["A", "B"]}}
    for n in range(6)
]


@pytest.fixture(scope="module")
def network(shared):
    model = load(shared / "data" / "models" / "wiki-llama-3m")
    model.processor.chat_template = TEMPLATE
    return model


def oracle(network, folder, recipe, parts, **options):
    """What lm-eval itself finds of a recipe that reads these files, prompts in the template."""
    own = {"include": str(RECIPES / recipe), "task": "own", "tag": None, "dataset_path": "json", "dataset_name": None}
    own["dataset_kwargs"] = {"data_files": {part: str(file) for part, file in parts.items()}}
    own["dataset_kwargs"]["cache_dir"] = str(folder / "cache")
    (folder / "own.yaml").write_text(json.dumps(own))
    model = HFLM(network.model, tokenizer=network.processor, batch_size=4, max_length=400)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    options |= {"apply_chat_template": True, "log_samples": True, "bootstrap_iters": 0}
    return simple_evaluate(model, tasks=["own"], task_manager=manager, **options)


def test_what_is_written_in_a_chat_is_what_lm_eval_itself_has(network, tmp_path):
    files = asked(tmp_path)
    parts = {"train": files / "gsm8k_train.jsonl", "test": files / "gsm8k.jsonl"}
    own = oracle(network, tmp_path, "gsm8k/gsm8k.yaml", parts, num_fewshot=2, gen_kwargs="max_gen_toks=6")
    settings = {"files": str(files), "fewshot": 2, "tokens": 6, "length": 400}
    chat, plain = (Generation(**settings, chat=chat)(network) for chat in (True, False))
    (rows,), (others,) = chat["details"]["answers"].values(), plain["details"]["answers"].values()
    samples = sorted((s for s in own["samples"]["own"] if s["filter"] == "strict-match"), key=lambda s: s["doc_id"])
    assert "[user] Question: What is" in samples[0]["arguments"][0][0] and len(rows) == len(samples) == 4
    assert [(s["resps"][0][0], s["prompt_hash"][:10]) for s in samples] == [(r["answer"], r["prompt"]) for r in rows]
    assert {row["prompt"] for row in rows}.isdisjoint(row["prompt"] for row in others)
    assert "strict-match/gsm8k@chat@2shot@6tokens" in chat["metrics"]
    assert "strict-match/gsm8k@2shot@6tokens" in plain["metrics"]
    (facts,), (fewer,) = (each["protocol"]["tasks"].values() for each in (chat, plain))
    assert len(facts["chat"]) == 10 and fewer == {name: fact for name, fact in facts.items() if name != "chat"}


def test_what_is_chosen_in_a_chat_is_what_lm_eval_itself_has(network, tmp_path):
    file = dump(tmp_path / "tasks" / "arc_easy.jsonl", CHOICES)
    own = oracle(network, tmp_path, "arc/arc_easy.yaml", {"train": file, "validation": file, "test": file})
    found = Zeroshot(tasks=["arc_easy"], files=str(file.parent), chat=True, length=400)(network)
    samples = sorted(own["samples"]["own"], key=lambda each: each["doc_id"])
    assert samples[0]["arguments"][0][0].endswith("[assistant] ")
    for kind in ("acc", "acc_norm"):
        assert found["metrics"][f"{kind}/arc_easy@chat"] == own["results"]["own"][f"{kind},none"]
        assert found["details"]["scores"][f"{kind}/arc_easy@chat"] == [each[kind] for each in samples]


def test_a_model_without_a_template_is_refused_before_anything_runs(shared, tmp_path):
    folder = shared / "data" / "models" / "wiki-llama-3m"
    words = f"model.path={folder} eval=generation eval.generation.tasks=[stdlib_complete] eval.generation.chat=true"
    answer = ask(*settings(f"{words} outputs={tmp_path / 'out'}", place(tmp_path)))
    assert answer.code == 2 and not (tmp_path / "out").exists()
    (line,) = answer.err.strip().splitlines()
    assert line == "error: eval.generation.chat=true: this model's tokenizer has no chat template; set chat=false"
