"""Answers that share a prompt: each is as likely as where it is read alone behind it, and the prompt is read once."""

import random

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from experiments.evals.scorer import Scorer
from prune.network import Network
from tests.small import model_of
from tests.test_zeroshot import DEMO

LENGTHS = {
    5: (1, 3, 4),
    24: (2, 2),
    12: (2, 2),
    9: (1, 1, 1, 1),
    7: (6,),
    1: (3, 8),
}  # of prompts, and of the answers to each


def questions():
    draw = random.Random(0)
    tokens = lambda count: [draw.randrange(1, 90) for _ in range(count)]
    return [(None, prompt, tokens(n)) for count, own in LENGTHS.items() for prompt in [tokens(count)] for n in own]


def scorer(kind, batch=4):
    return Scorer.of(Network(model_of(kind), AutoTokenizer.from_pretrained(DEMO)), 32, batch)


@torch.no_grad()
def alone(model, prompt, answer):
    """The log-likelihood of one answer by one forward without padding, and whether it is what is written greedily."""
    logs = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    tokens = torch.tensor(answer)
    return logs.gather(1, tokens[:, None]).sum().item(), bool((logs.argmax(1) == tokens).all())


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("llama", True),
        ("gpt2", True),
        ("opt", True),
        ("bloom", True),
        ("gemma2", True),
        ("mamba", False),
        ("jetmoe", True),
    ],
)
def test_answers_to_one_prompt_are_as_likely_as_each_alone_whatever_a_model_keeps_between_tokens(kind, shares):
    subject = scorer(kind)
    found = subject._loglikelihood_tokens(questions(), disable_tqdm=True)
    assert subject.shares is shares
    wanted = [alone(subject.model, prompt, answer) for _, prompt, answer in questions()]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], rel=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_an_answer_that_is_written_greedily_is_told_from_others():
    subject = scorer("llama")
    prompt, written = questions()[0][1], []
    for _ in range(3):
        written.append(subject.model(torch.tensor([prompt + written])).logits[0, -1].argmax().item())
    asked = [(None, prompt, written), (None, prompt, [*written[:2], (written[2] + 1) % 90])]
    assert [greedy for _, greedy in subject._loglikelihood_tokens(asked, disable_tqdm=True)] == [True, False]


def test_a_prompt_is_read_once_and_no_answer_twice(monkeypatch):
    subject, read = scorer("llama"), []
    subject.shares = True
    forward = type(subject.model).forward
    monkeypatch.setattr(type(subject.model), "forward", lambda *a, **k: read.append(k["input_ids"]) or forward(*a, **k))
    several = [each for each in questions() if len(each[1]) not in (1, 7)]
    subject._loglikelihood_tokens(several, disable_tqdm=True)
    padded = sum(each.numel() for each in read)
    each_with_its_prompt = sum(len(prompt) + len(answer) - 1 for _, prompt, answer in several)
    assert padded < each_with_its_prompt  # 50 tokens of prompts and 9 of answers, and padding


def test_a_model_whose_memory_gives_other_numbers_reads_each_prompt_with_its_answer(monkeypatch):
    subject = scorer("llama")
    read = Scorer._read
    wrong = lambda self, tokens, seen, places, **named: read(self, tokens, seen, places + 3 * (places > 4), **named)
    monkeypatch.setattr(Scorer, "_read", wrong)
    plain = HFLM(subject.model, tokenizer=subject.tokenizer, max_length=32, batch_size=4)
    wanted = plain._loglikelihood_tokens(questions(), disable_tqdm=True)
    assert subject._loglikelihood_tokens(questions(), disable_tqdm=True) == wanted and subject.shares is False


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted():
    subject = scorer("llama")
    long = [(None, [*range(1, 41)], [5, 6]), (None, [*range(1, 41)], [7])]
    found = subject._loglikelihood_tokens(long + questions(), disable_tqdm=True)
    assert subject.cut == 2
    assert found[0][0] == pytest.approx(alone(subject.model, [*range(10, 41)], [5, 6])[0], rel=1e-5)
