"""The demo's zero-shot task: which of four continuations belongs to this beginning, in text held out from training?"""

import random

from experiments.data.stdlib import documents

BEGINNING, CONTINUATION, CHOICES = 24, 12, 4  # words, words, answers per question

# lm-eval's description of the task; the data file is added where the task is run.
RECIPE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{beginning}}",
    "doc_to_choice": "{{continuations}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
    ],
    "metadata": {"version": 1.0},
}


def questions(count: int = 200, seed: int = 0) -> list[dict]:
    """`count` rows {"beginning": text, "continuations": four texts, "answer": index of the true one}.

    The wrong continuations are true ones of other questions and as many words long: chance is 25 %, and neither length
    nor style gives the answer away. Raises ValueError when the held-out text has fewer than `count` passages.
    """
    passages = _passages()
    if len(passages) < count:
        raise ValueError(f"task stdlib: the held-out text has {len(passages)} passages, {count} questions asked for")
    generator = random.Random(seed)
    drawn = generator.sample(passages, count)
    return [_question(passage, drawn, generator) for passage in drawn]


def _passages() -> list[tuple[str, str]]:
    """(beginning, continuation) of each stretch of text, in the text's order, no continuation twice."""
    size, found = BEGINNING + CONTINUATION, {}
    for document in documents("heldout"):
        words = document.split()
        for start in range(0, len(words) - size + 1, size):
            beginning, continuation = words[start : start + BEGINNING], words[start + BEGINNING : start + size]
            found.setdefault(" ".join(continuation), " ".join(beginning))
    return [(beginning, continuation) for continuation, beginning in found.items()]


def _question(passage: tuple[str, str], drawn: list[tuple[str, str]], generator: random.Random) -> dict:
    beginning, true = passage
    continuations = generator.sample([other for _, other in drawn if other != true], CHOICES - 1)
    answer = generator.randrange(CHOICES)
    continuations.insert(answer, true)
    return {"beginning": beginning, "continuations": continuations, "answer": answer}
