"""Peaks of stages are those of each stage, and the mark that others read of the process stays the truth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs import machine

MIB = 2**20
STAGES = """
import json, time
from experiments.runs.machine import forget_peaks, peaks

def stage(mebibytes):
    forget_peaks("cpu")
    held = b"x" * (mebibytes << 20)
    time.sleep(0.2)
    del held
    return peaks("cpu")["host_peak"]

print(json.dumps([stage(20), stage(300), stage(100), stage(0), stage(400)]))
"""
# The kernel counts a process with what the one that started it held, so a small one stands between.
OUTSIDE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True)
print(done.stdout, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(not machine.NOW.exists(), reason="only Linux tells what is resident now")
def test_stages_have_their_own_peaks_and_an_outside_judge_sees_the_highest():
    words = [sys.executable, "-c", OUTSIDE, STAGES]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    text, outside = done.stdout.rsplit(maxsplit=1)
    small, large, middle, none, largest = json.loads(text)
    assert large - none == pytest.approx(300 * MIB, abs=8 * MIB)
    assert middle - none == pytest.approx(100 * MIB, abs=8 * MIB)
    assert small - none == pytest.approx(20 * MIB, abs=8 * MIB)
    assert largest - none == pytest.approx(400 * MIB, abs=8 * MIB)
    assert int(outside) == pytest.approx(largest, abs=8 * MIB)


def test_a_method_is_charged_with_what_it_holds_beyond_what_was_there(monkeypatch):
    samples, marks = iter([100, 100, 160, 120]), iter([500, 500])
    monkeypatch.setattr(machine, "sampler", machine.Sampler())
    monkeypatch.setattr(machine.Sampler, "start", lambda self: None)
    monkeypatch.setattr(machine, "resident", lambda: next(samples))
    monkeypatch.setattr(machine, "high_water", lambda: next(marks))
    machine.forget_peaks("cpu")
    for _ in range(2):
        machine.sampler.look()
    seen = machine.peaks("cpu")
    assert (seen["host_peak"], seen["device_peak"]) == (160, None), "a larger stage before does not count"


def test_the_highest_of_several_is_told_name_by_name():
    found = [{"host_peak": 3, "device_peak": None}, {"host_peak": 5, "device_peak": None}]
    assert machine.highest(found) == {"host_peak": 5, "device_peak": None}
