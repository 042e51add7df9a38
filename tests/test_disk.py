"""Files of a run: whole or not there, noticed when they were changed, made by one process at a time."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.files.disk import forget_unfinished, holder, intact, locked, once, read_json, write_json
from experiments.files.tensors import read_tensors, write_tensors
from tests.tiny import random

ROOT = Path(__file__).parents[1]
HOLD = "from experiments.files.disk import locked; from pathlib import Path; import sys, time\n"
HOLD += "with locked(Path(sys.argv[1]), False, 'the run'): print('in', flush=True); time.sleep(float(sys.argv[2]))"
COUNT = "from experiments.files.disk import once, sealed, shared; from pathlib import Path; import os, sys, time\n"
COUNT += "slow = lambda: time.sleep(0.5) or {'by': os.getpid()}\n"
COUNT += "file = Path(sys.argv[1])\n"
COUNT += "print(shared(file, lambda: sealed(file), lambda: once(file, slow))['by'])"


def process(code, *arguments):
    """Another Python that runs this code."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=-1, text=True)


def holding(path, seconds=60.0):
    """Another process that is inside the lock now."""
    other = process(HOLD, path, seconds)
    assert other.stdout.readline() == "in\n"
    other.stdout.close()
    return other


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def turn(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def foreign(file):
    """Well-formed, but not sealed."""
    if file.suffix == ".json":
        file.write_text('{"value": 8}')
    else:
        from safetensors.torch import save_file  # noqa: PLC0415

        save_file({"w": torch.ones(3)}, file)


DAMAGES = [cut, turn, empty, foreign]


def test_a_json_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", [circular := [], circular.append(circular)])
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    write_tensors({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    write_json(tmp_path / "a.json", {"x": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors({"w": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 1} and read_tensors(tmp_path / "a.safetensors")[0]["w"].sum() == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


def test_what_killed_processes_were_writing_is_removed(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / ".x.json.17.part").write_text("{")
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "config.json").write_text("{}")
    (tmp_path / "steps" / "y.json").write_text("{}")
    forget_unfinished(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == ["steps", "steps/y.json"]


def test_a_stored_step_is_not_computed_again(tmp_path):
    calls = []
    for _ in range(3):
        assert once(tmp_path / "steps" / "x.json", lambda: calls.append(1) or {"value": 7.1}) == {"value": 7.1}
    assert len(calls) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_computed_again_and_said_so_once(tmp_path, caplog, damage):
    file = tmp_path / "x.json"
    once(file, lambda: {"value": 7, "more": [1.5, None]})
    damage(file)
    with caplog.at_level(logging.WARNING, "experiments"):
        assert once(file, lambda: {"value": 9}) == once(file, dict) == {"value": 9}
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} is not as it was written; it is computed again"
    ]


def test_a_number_edited_by_hand_is_damage(tmp_path):
    once(tmp_path / "x.json", lambda: {"value": 7})
    told = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(told | {"value": 6}, indent=1))
    assert once(tmp_path / "x.json", lambda: {"value": 7}) == {"value": 7}


def test_tensors_of_every_kind_come_back_with_their_facts(tmp_path):
    kinds = {str(kind): random(3, 5).to(kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)}
    tensors = kinds | {"number": torch.tensor(1.5), "nothing": torch.zeros(0, 4), "turned": random(4, 6).T.contiguous()}
    write_tensors(tensors, tmp_path / "deep" / "a.safetensors", shapes={"w": [1, 2]}, none=None)
    found, facts = read_tensors(tmp_path / "deep" / "a.safetensors")
    assert found.keys() == tensors.keys() and facts == {"shapes": {"w": [1, 2]}, "none": None}
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_noticed_said_once_and_never_read(tmp_path, caplog, damage):
    file = tmp_path / "a.safetensors"
    assert not intact(file)
    write_tensors({"w": random(8, 8)}, file, fact=1)
    assert intact(file)
    damage(file)
    with caplog.at_level(logging.WARNING, "experiments"):
        assert not intact(file) and not intact(file)
        with pytest.raises(ValueError, match="expected a whole file as this project writes them"):
            read_tensors(file)
    assert len(caplog.records) == 1
    write_tensors({"w": random(8, 8)}, file, fact=1)
    assert intact(file)


def test_facts_are_under_the_seal_too(tmp_path):
    write_tensors({"w": torch.ones(2)}, tmp_path / "a.safetensors", target=0.5)
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content.replace(b'"0.5"', b'"0.6"'))
    assert not intact(tmp_path / "a.safetensors")


def test_a_second_process_is_refused_by_the_name_of_the_first_and_told_nothing_after_it_was_killed(tmp_path):
    lock = tmp_path / ".lock"
    assert holder(lock) is None
    other = holding(lock)
    assert holder(lock)["process"] == other.pid and holder(lock)["what"] == "the run"
    refused = pytest.raises(BlockingIOError, match=rf"the run is in use by process {other.pid} on .* since 20")
    with refused, locked(lock, wait=False, what="the run"):
        pytest.fail("two processes at once")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / ".lock.owner").exists(), "it could not tidy up"
    assert holder(lock) is None, "a dead process holds nothing"
    with locked(lock, wait=False, what="the run"):
        assert holder(lock)["process"] == os.getpid()
    assert holder(lock) is None and not (tmp_path / ".lock.owner").exists()


def test_who_waits_says_so_and_comes_in_when_the_other_ends(tmp_path, caplog):
    other = holding(tmp_path / ".lock", seconds=4.0)
    with caplog.at_level(logging.INFO, "experiments"), locked(tmp_path / ".lock", wait=True, what="the run"):
        assert other.wait(5) == 0
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"the run is in use by process {other.pid}") and said.endswith("; waiting for it")


def test_one_of_many_processes_computes_what_they_share(tmp_path):
    others = [process(COUNT, tmp_path / "dense.json") for _ in range(3)]
    said = {other.communicate()[0].strip() for other in others}
    assert said == {str(read_json(tmp_path / "dense.json")["by"])}
    assert int(said.pop()) in {other.pid for other in others}


def test_a_lock_asked_about_does_not_refuse_anybody(tmp_path):
    """`holder` takes the lock for an instant; whoever wants it meanwhile is patient."""
    asking = "from experiments.files.disk import holder; from pathlib import Path; import sys\n"
    asking += "print('in', flush=True)\nwhile True: holder(Path(sys.argv[1]))"
    with locked(tmp_path / ".lock", wait=False, what="x"):
        pass
    other = process(asking, tmp_path / ".lock")
    other.stdout.readline()
    other.stdout.close()
    start = time.perf_counter()
    while time.perf_counter() - start < 0.5:
        with locked(tmp_path / ".lock", wait=False, what="x"):
            pass
    other.kill()
    other.wait()
