"""Every causal LM of transformers as a tiny random model, and whether it is walked, pruned and saved as it runs.

`python -m tests.zoo` tries all of them and writes experiments/tables/families.md; names after it: only these, no table.
"""

import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from prune.network import Network
from prune.prune import prune
from tests.small import model_of, names
from tests.tiny import tokens, wanda

TABLE = Path(__file__).parents[1] / "experiments/tables/families.md"
HEAD = """# Causal LMs of transformers {}, as tiny random models

Made by `python -m tests.zoo`; `pytest -m slow tests/test_zoo.py` holds it. {} model types: {}.

Works: the dense loss of the walk is transformers' own, Wanda at 50 % removes half of the weights to the weight, and the
pruned and the saved model have the walk's loss in transformers' own forward. Unheard are linears of modules that never
run (cross-attention without an encoder), or that no token reached; they are pruned by magnitude. Not causal: logits
depend on later tokens, so that no perplexity is one. Not built: no tiny model can be made here. No language model: what
AutoModelForCausalLM has under that name does not write text by itself.

| model type | result | in words |
|---|---|---|
{}
"""
SECONDS = 60  # for one model
DRAFTS = ("no language model", "drafts for another model, whose keys and values it is given")
AUDIO = ("no language model", "writes audio in several codebooks, by a configuration of its own")
REASONS = {  # in plain words, of those whose building fails
    "gemma3n": ("not built", "its image tower needs timm, which is not installed"),
    "gemma4_assistant": DRAFTS,
    "gemma4_unified_assistant": DRAFTS,
    "musicgen": AUDIO,
    "musicgen_melody": AUDIO,
}


@torch.no_grad()
def losses(model: Any, data: Tensor) -> Tensor:
    """transformers' own mean cross-entropy of each sequence."""
    logits = torch.cat([model(input_ids=row[None], use_cache=False).logits for row in data])
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), data[:, 1:], reduction="none"
    ).mean(1)


@torch.no_grad()
def causal(model: Any, data: Tensor) -> bool:
    """Whether no logit depends on a later token."""
    other = data.clone()
    other[:, -1] = (other[:, -1] + 1) % 90 + 1
    one, two = (model(input_ids=each[:1], use_cache=False).logits[:, :-1] for each in (data, other))
    return torch.allclose(one, two, atol=1e-5)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(kind: str) -> tuple[str, str]:
    """(what came of it, in words): works, not causal, refused, not built, no language model, wrong, or failed."""
    data = tokens(4, 16)
    try:
        with at_most(SECONDS):
            model = model_of(kind)
            own = losses(model, data)
    except Exception as error:
        return REASONS.get(kind, ("not built", said(error)))
    if not causal(model, data):
        return "not causal", "its logits depend on later tokens"
    try:
        with at_most(SECONDS):
            return walked(model, own, data)
    except ValueError as error:
        return "refused", said(error)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {said(error)}"


def walked(model: Any, own: Tensor, data: Tensor) -> tuple[str, str]:
    """A model that builds: walked, pruned by Wanda, saved and loaded again."""
    subject = Network(model)
    found = subject.losses(data)
    if not torch.allclose(found, own, rtol=1e-5, atol=1e-5):
        return "wrong", f"dense loss {found.mean():.6f}, transformers' own {own.mean():.6f}"
    solved = {name: p for block in prune(subject, data, wanda()) for name, p in block.linears.items()}
    total = sum(p.mask.numel() for p in solved.values())
    removed = sum(int((~p.mask).sum()) for p in solved.values())
    if removed != round(total / 2):
        return "wrong", f"{removed} of {total} weights removed"
    found = subject.losses(data)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder).eval()
    for which, other in (("the pruned model", model), ("the saved model", again)):
        if not torch.allclose(found, losses(other, data), rtol=1e-5, atol=1e-5):
            return "wrong", f"{which} has loss {losses(other, data).mean():.6f}, walked {found.mean():.6f}"
    return "works", described(subject, solved)


def described(subject: Network, solved: dict[str, Any]) -> str:
    """How many matrices were pruned, unheard ones that are no experts among them, and why others were skipped."""
    places = subject.matrices()
    unseen = sum("unseen" in p.notes and places[name].expert is None for name, p in solved.items())
    words = [f"{len(solved)} matrices"]
    if unseen:
        words.append(f"{unseen} unheard")
    if reasons := {reason.rpartition(", ")[2] for reason in subject.skipped().values()}:
        words.append(f"skipped: {'; '.join(sorted(reasons))}")
    return ", ".join(words)


def said(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if len(line) < 200 else f"{line[:200]} ..."


def table(found: dict[str, tuple[str, str]]) -> str:
    """The page, in Markdown."""
    count = Counter(result for result, _ in found.values())
    lines = [f"| {kind} | {result} | {words.replace('|', '/')} |" for kind, (result, words) in found.items()]
    counts = ", ".join(f"{result} {number}" for result, number in count.most_common())
    return HEAD.format(transformers.__version__, len(found), counts, "\n".join(lines))


def main(asked: list[str]) -> None:
    """Tries them and prints a line for each; writes the table if all were tried."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found = {}
    for kind in asked or names():
        found[kind] = tried(kind)
        print(kind, *found[kind], sep="\t", flush=True)
    if not asked:
        TABLE.write_text(table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
