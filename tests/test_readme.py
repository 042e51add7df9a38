"""What the README promises: its example is a working method, its commands exist, its options are all there."""

import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

from experiments import command
from prune.metrics.magnitude import Magnitude
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from tests.test_updates import linear
from tests.tiny import random

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def test_the_example_method_is_what_it_says(monkeypatch):
    module = types.ModuleType("prune.metrics.power")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(example("python"), module.__dict__)  # the README's own code
    settings = yaml.safe_load(example("yaml"))
    assert settings.pop("_target_") == "prune.metrics.power.Power"
    assert settings == {"power": module.Power().power}
    weight, x = random(6, 16), random(40, 16, seed=1) * torch.arange(1, 17)
    for power, same in ((0.0, Magnitude()), (1.0, Wanda())):
        scores = [linear(weight, x, metric, Unstructured()).score() for metric in (module.Power(power), same)]
        torch.testing.assert_close(*scores)


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)`?", README)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


COMMANDS = re.findall(r"experiments\.run ((?:-m )?experiment=[^`\n]*)", README.replace("\\\n", " "))


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_its_commands_compose(line):
    assert command.jobs(shlex.split(line, comments=True))
