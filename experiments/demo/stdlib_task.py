"""The demo's zero-shot task, in text held out from training: which of four beginnings does this continuation follow?"""

import random

from experiments.data.stdlib import documents

BEGINNING, CONTINUATION, CHOICES = 12, 12, 4  # words, words, beginnings per question

# For lm-eval, in the form of its Winogrande: the prompts differ, the text that is scored after them is the same.
# The other way round (one beginning, four continuations) the words of a continuation alone mostly decide its score.
RECIPE = {
    "output_type": "multiple_choice",
    "doc_to_choice": "{{beginnings}}",
    "doc_to_text": "{{answer}}",
    "doc_to_target": "{{continuation}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}


def questions(count: int = 250, seed: int = 0) -> list[dict]:
    """`count` rows {"beginnings": four texts, "answer": index of the true one, "continuation": text}; chance is 25 %.

    The wrong beginnings are true ones of other questions. Raises ValueError when the held-out text has fewer passages
    than that.
    """
    passages = _passages()
    if len(passages) < count:
        raise ValueError(f"task stdlib: the held-out text has {len(passages)} passages, {count} questions asked for")
    generator = random.Random(seed)
    drawn = generator.sample(passages, count)
    return [_question(passage, drawn, generator) for passage in drawn]


def _passages() -> list[tuple[str, str]]:
    """(beginning, continuation) of each stretch of text, in the text's order, no beginning twice."""
    size, continuations = BEGINNING + CONTINUATION, {}
    for document in documents("heldout"):
        words = document.split()
        for start in range(0, len(words) - size + 1, size):
            middle = start + BEGINNING
            continuations.setdefault(" ".join(words[start:middle]), " ".join(words[middle : start + size]))
    return list(continuations.items())


def _question(passage: tuple[str, str], drawn: list[tuple[str, str]], generator: random.Random) -> dict:
    true, continuation = passage
    beginnings = generator.sample([other for other, _ in drawn if other != true], CHOICES - 1)
    answer = generator.randrange(CHOICES)
    beginnings.insert(answer, true)
    return {"beginnings": beginnings, "answer": answer, "continuation": continuation}
