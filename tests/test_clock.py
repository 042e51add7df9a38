"""A clock tells how long each stage of pruning took, and changes nothing."""

import time

import pytest
import torch

from prune.clock import Clock, clocked, stage
from prune.prune import prune
from tests.tiny import network, sparsegpt, tokens


@stage("inner")
def inner(seconds: float) -> None:
    time.sleep(seconds)


def test_a_stage_inside_another_one_is_not_counted_twice():
    with clocked(Clock()) as clock, stage("outer"):
        time.sleep(0.03)
        inner(0.06)
        inner(0.06)
    assert clock.seconds["outer"] == pytest.approx(0.03, abs=0.02)
    assert clock.seconds["inner"] == pytest.approx(0.12, abs=0.02)


def test_an_error_closes_the_stage_it_leaves():
    with clocked(Clock()) as clock:
        with pytest.raises(KeyError), stage("broken"):
            raise KeyError
        with stage("next"):
            pass
    assert set(clock.seconds) == {"broken", "next"} and not clock._open


def test_the_device_is_waited_for_at_both_ends_of_a_stage():
    calls = []
    with clocked(Clock(lambda: calls.append("settled"))), stage("a"):
        calls.append("work")
    assert calls == ["settled", "work", "settled"]


def test_pruning_is_the_same_beside_a_clock_and_its_stages_are_all_there():
    plain = [solved.linears for solved in prune(network(), tokens(), sparsegpt())]
    with clocked(Clock()) as clock:
        timed = [solved.linears for solved in prune(network(), tokens(), sparsegpt())]
    stages = {"survey", "calibrate", "statistics", "allocate", "select", "update", "propagate", "write"}
    assert set(clock.seconds) == stages and all(seconds > 0 for seconds in clock.seconds.values())
    for one, other in zip(plain, timed, strict=True):
        assert all(torch.equal(one[name].weight, other[name].weight) for name in one)
