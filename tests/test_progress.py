"""What a person sees of a run that works: a bar for every pass over a model, what it is, its length and time left."""

import io
import time
import weakref
from collections import deque
from dataclasses import replace

import pytest
import torch
from tqdm import tqdm

from experiments.console import bars
from experiments.evals import zeroshot
from experiments.running import pipeline
from prune.allocators.alphapruning import AlphaPruning
from prune.allocators.owl import OWL
from prune.allocators.sensitivity import Sensitivity
from prune.progress import shown_by
from prune.prune import prune
from tests.test_cache import jobs, small  # noqa: F401 - a fixture
from tests.tiny import Memory, network, tokens, wanda


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch):
    """The bars that were shown, as their passes asked for them: (name, total, unit)."""
    asked = []

    def bar(things, what, total, unit, known):
        asked.append((bars.named(what), total, unit))
        count = 0
        for thing in things:
            count += 1
            yield thing
        assert count == total, "what a bar counts is what its pass has"

    monkeypatch.setattr(bars, "bar", bar)
    return asked


@pytest.fixture
def drawn(monkeypatch):
    """The bars that tqdm draws, on a terminal."""
    made = []
    monkeypatch.setattr(bars, "tqdm", lambda *a, **k: made.append(tqdm(*a, file=Terminal(), **k)) or made[-1])
    return made


def test_every_pass_of_a_run_has_a_bar_of_its_own_that_says_what_it_is(small, tmp_path, shown):  # noqa: F811
    for job in jobs(
        small, tmp_path, "metric=gblm", "allocator=sensitivity", "save_model=true", "eval=[perplexity,audit]"
    ):
        pipeline.run(job.run)
    windows = next(total for name, total, _ in shown if name == "dense perplexity: head")
    passes = lambda who, n: [
        (f"{who}: forward", 3, "block"),
        (f"{who}: head", n, "sequence"),
        (f"{who}: backward", 3, "block"),
    ]
    measured = lambda who: [(who, 3, "block"), (f"{who}: head", windows, "batch")]
    expected = [
        *measured("dense perplexity"),
        *passes("LossGradient", 6),
        *passes("HessianTrace", 6),
        ("prune", 3, "block"),
    ]
    expected += [("save", 4, "file"), *measured("pruned perplexity"), ("pruned audit", 3, "block")]
    assert shown == expected


@pytest.mark.parametrize("allocator", [OWL(0.5), AlphaPruning(0.5), Sensitivity(0.5)], ids=lambda a: type(a).__name__)
def test_the_bar_of_pruning_begins_behind_what_is_learned_of_the_dense_model(allocator):
    method, begun = replace(wanda(), allocator=allocator), []
    ended = lambda things, *_: (yield from things) or begun.append("end")
    bar = lambda things, *a: begun.append("begin") or ended(things)
    with shown_by(bar):
        for solved in prune(network(), tokens(), method):
            begun.append(solved.block)
    first = begun.index("model.layers.0")
    assert begun[:first].count("begin") == begun[:first].count("end") + 1, "that of pruning alone is open"
    assert begun[first - 1] == "begin" and begun[first:] == [*(f"model.layers.{k}" for k in range(3)), "end"]


def test_a_pass_goes_on_behind_blocks_that_were_solved_before():
    store, asked = Memory(), []
    for solved in prune(network(), tokens(), wanda(), done=store):
        if solved.block.endswith("1"):
            break
    with shown_by(lambda things, what, total, unit, known: asked.append((total, known)) or things):
        assert len(list(prune(network(), tokens(), wanda(), done=store))) == 3
    assert asked == [(3, 2)]


def test_time_left_is_that_of_blocks_that_are_still_to_be_solved(drawn):
    for number in bars.bar(range(24), "", 24, "block", 20):
        if number >= 20:
            time.sleep(0.2)
        if number == 22:
            told = drawn[0].format_dict
            left = (told["total"] - told["n"]) / (told["rate"] or (told["n"] - told["initial"]) / told["elapsed"])
            assert told["n"] == 22 and left == pytest.approx(2 * 0.2, rel=0.5), "two blocks, two tenths each"


def test_a_bar_keeps_nothing_of_what_has_passed():
    def made():
        for _ in range(3):
            thing = torch.zeros(1)
            seen.append(weakref.ref(thing))
            yield thing
            del thing
            assert seen[-1]() is None, "the next one would be made beside it"

    seen = []
    deque(bars.bar(made(), "", 3, "block", 0), 0)


def test_a_bar_is_called_by_its_stage_and_by_the_part_of_it(drawn):
    with bars.labelled("pruned zeroshot"):
        zeroshot._bar(total=3, disable=False, desc="Running generate_until requests").close()
        zeroshot._bar(range(3), disable=False, desc="Tokenizing inputs").close()
        with bars.labelled("inner"):
            list(bars.bar([], "", 0, "block", 0))
    assert [bar.desc for bar in drawn] == [
        "pruned zeroshot: generate_until",
        "pruned zeroshot: tokenizing inputs",
        "inner",
    ]


def test_nothing_is_drawn_where_there_is_no_terminal(capsys):
    with bars.labelled("dense perplexity"):
        assert list(bars.bar(range(30), "head", 30, "batch", 10)) == list(range(30))
        zeroshot._bar(range(3), disable=False, desc="Tokenizing inputs").close()
    assert capsys.readouterr() == ("", "")
