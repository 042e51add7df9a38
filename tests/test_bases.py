"""What a data source, an evaluation and a tracker are given by their base class, so that a fourth one is short."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import get_class

from experiments.composing.groups import CONF
from experiments.data.windows import Source
from experiments.evals.evaluator import Evaluator
from experiments.evals.perplexity import Perplexity
from experiments.running.footprint import ASSUMED, amount, evaluated
from experiments.running.preflight import data
from experiments.trackers.tracker import Tracker

GROUPS = {"data": Source, "eval": Evaluator, "tracker": Tracker}
OPTIONS = [(group, file) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "file"), OPTIONS, ids=lambda value: getattr(value, "stem", value))
def test_every_option_is_of_its_kind(group, file):
    settings = yaml.safe_load(file.read_text())
    if file.stem not in settings and group == "eval":
        return  # a suite, of options
    settings = settings if group == "data" else settings[file.stem]
    assert issubclass(get_class(settings["_target_"]), GROUPS[group])


@dataclass(frozen=True)
class Counting(Source):
    """0 to 999, and 1000 to 1999 where it is evaluated."""

    sequences: int = 5
    length: int = 20
    seed: int = 0
    name: str = "counting"

    def stream(self, tokenizer, part):
        return torch.arange(1000) + (1000 if part == "evaluation" else 0)


def test_a_source_that_has_a_stream_has_windows():
    drawn, rows = Counting().calibration(None, 64), Counting().evaluation(None, 30)
    assert drawn.shape == (5, 20) and (drawn.diff() == 1).all() and len(drawn[:, 0].unique()) == 5
    assert Counting().calibration(None, 16).shape == (5, 16)
    assert torch.equal(rows.flatten(), torch.arange(1000, 1990)) and rows.shape == (33, 30)


def test_what_a_source_does_not_know_is_assumed():
    source = Counting()
    parts = SimpleNamespace(data=source, evaluators={"own": Evaluator()}, method=SimpleNamespace(calibrated=True))
    data(parts, limit=64)
    assert amount(source, 16) == (5, 16) and evaluated(Perplexity(source, None, 40), 64) == (ASSUMED, 40, True)
    assert evaluated(Perplexity(source, None, 40, windows=7), 64) == (7, 40, True)
