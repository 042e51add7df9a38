"""The demo's tasks, in text held out from training.

`stdlib`: which of four beginnings does this continuation follow? `stdlib_complete`: which word comes next?
"""

import random
import re

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

COMPLETE = {  # answered by writing: the first word of what is written, which must be the text's own
    "output_type": "generate_until",
    "doc_to_text": "{{beginning}}",
    "doc_to_target": "{{word}}",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 8},
    "filter_list": [
        {
            "name": "none",
            "filter": [{"function": "regex", "regex_pattern": r"^\s*(\S+)"}, {"function": "take_first"}],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}


def beginnings(count: int = 250, seed: int = 0) -> list[dict]:
    """`count` rows {"beginning": 24 words as they stand, line breaks included, "word": the one that follows, letters}.

    Raises ValueError when the held-out text has fewer than that.
    """
    size, words_after = BEGINNING + CONTINUATION, {}
    for document in documents("heldout"):
        words = list(re.finditer(r"\S+", document))
        for first, last, following in zip(words[::size], words[size - 1 :: size], words[size::size], strict=False):
            if (word := following.group()).isalpha():
                words_after.setdefault(document[first.start() : last.end()], word)
    if len(words_after) < count:
        raise ValueError(f"task stdlib_complete: the held-out text has {len(words_after)} passages, {count} asked for")
    drawn = random.Random(seed).sample(list(words_after.items()), count)
    return [{"beginning": beginning, "word": word} for beginning, word in drawn]


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
