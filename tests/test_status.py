"""Where runs stand, told from their folders: those that run, fail, were killed, and those that never began."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import save_file

from experiments import status
from experiments.composing import command
from experiments.evals.perplexity import Perplexity
from experiments.files.disk import locked
from experiments.running import pipeline
from experiments.runs import machine
from experiments.runs.stores import BlockStore
from tests.tiny import network, tokens

ROOT = Path(__file__).parents[1]
BEGIN, END = "2026-01-01T10:00:00+00:00", "2026-01-01T10:00:{:02d}+00:00"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def run_folder(outputs, name, state, **facts):
    """A run as it leaves its folder."""
    manifest = {"identity": name, "status": state, "started": BEGIN, "model": "m", "method": "wanda"} | facts
    write(outputs / "m" / f"wanda-{name}" / "manifest.json", manifest)
    if state == "done":
        write(outputs / "m" / f"wanda-{name}" / "results.json", {})
    return outputs / "m" / f"wanda-{name}"


def sweep(outputs, name, *identities):
    jobs = [{"identity": each, "folder": f"m/wanda-{each}"} for each in identities]
    write(outputs / "multirun" / f"{name}.json", {"sweep": name, "jobs": jobs})


def asked(capsys, *arguments):
    """Exit code and what was printed."""
    code = status.main([str(each) for each in arguments])
    return code, capsys.readouterr().out


def rows(text):
    """Status and remark of each run by its name."""
    lines = [line.split(maxsplit=2) for line in text.split("\n\n")[0].splitlines()[2:]]
    return {Path(line[1]).name: (line[0], *line[2:]) for line in lines}


def test_all_done_is_exit_code_0_and_anything_else_is_1(tmp_path, capsys):
    run_folder(tmp_path, "a", "done", finished=END.format(30))
    code, text = asked(capsys, tmp_path)
    assert code == 0 and rows(text) == {"wanda-a": ("done", "30 s")} and "all runs: 1 done" in text
    run_folder(tmp_path, "b", "failed", error="the disk is full")
    code, text = asked(capsys, tmp_path)
    assert code == 1 and next(iter(rows(text).items())) == ("wanda-b", ("failed", "the disk is full"))


def test_every_state_is_told_with_its_reason_and_what_needs_a_person_comes_first(tmp_path, capsys):
    run_folder(tmp_path, "a", "done", finished=END.format(10), error="no such task")
    run_folder(tmp_path, "b", "failed", error="interrupted; the same command goes on from here", blocks=4)
    run_folder(tmp_path, "c", "failed", error="NaN in layer 2")
    run_folder(tmp_path, "d", "running", blocks=4)
    broken = run_folder(tmp_path, "e", "done")
    (broken / "manifest.json").write_text('{"status": ')
    lost = run_folder(tmp_path, "f", "done")
    (lost / "results.json").unlink()
    sweep(tmp_path, "grid", "a", "c", "x")
    code, text = asked(capsys, tmp_path)
    found = rows(text)
    assert code == 1
    assert [found[name][0] for name in found] == sorted((v[0] for v in found.values()), key=status.ORDER.index)
    assert found["wanda-a"] == ("done", "10 s; a later command failed: no such task")
    assert found["wanda-b"] == ("interrupted", "block 1 of 4: stopped; the same command goes on from there")
    assert found["wanda-c"] == ("failed", "NaN in layer 2")
    assert found["wanda-d"][0] == "interrupted" and "killed, or its machine is gone" in found["wanda-d"][1]
    assert found["wanda-e"][0] == "unreadable" and "manifest.json is not JSON" in found["wanda-e"][1]
    assert found["wanda-f"][0] == "unreadable" and "results.json is missing" in found["wanda-f"][1]
    assert found["wanda-x"] == ("missing", "asked for by grid")
    assert "1 done, 1 missing, 2 interrupted, 2 unreadable, 1 failed, 7 in all" in text


def test_the_time_left_is_what_is_left_over_what_runs_now(tmp_path, capsys):
    for name, seconds in (("a", 10), ("b", 30)):
        run_folder(tmp_path, name, "done", finished=END.format(seconds))
    sweep(tmp_path, "grid", "a", "b", "c", "d", "e", "f")
    assert "grid: 2 done, 4 missing, 6 in all; about 80 s left when it is started again" in asked(capsys, tmp_path)[1]
    for name, solved in (("c", 0), ("d", 2)):
        folder = run_folder(tmp_path, name, "running", blocks=4)
        for block in range(solved):
            write(folder / "steps" / "blocks" / f"{block}.json", {"seconds": 1.5})
    (tmp_path / "m" / "wanda-d" / "steps" / "blocks" / "2.json").write_text('{"sec')
    hold = [locked(tmp_path / "m" / f"wanda-{name}" / ".lock", False, name) for name in "cd"]
    with hold[0], hold[1]:
        text = asked(capsys, tmp_path)[1]
    assert "2 done, 2 running, 2 missing, 6 in all; about 35 s left\n" in text, "3.5 runs of 20 s, two at once"
    assert rows(text)["wanda-c"][1].startswith(f"block 1 of 4; process {os.getpid()} on ")
    assert rows(text)["wanda-d"][1].startswith(f"block 3 of 4, 3.0 s left for its blocks; process {os.getpid()} on ")


def test_a_run_known_under_another_name_is_not_missing(tmp_path, capsys):
    folder = run_folder(tmp_path, "a", "done", finished=END.format(10))
    folder.rename(folder.with_name("wanda+zero-a"))
    sweep(tmp_path, "grid", "a", "a")
    code, text = asked(capsys, tmp_path)
    assert code == 0 and "grid: 1 done, 1 in all" in text


def test_one_sweep_can_be_asked_for_alone(tmp_path, capsys):
    run_folder(tmp_path, "a", "done", finished=END.format(10))
    run_folder(tmp_path, "b", "failed", error="bad")
    sweep(tmp_path, "first", "a")
    sweep(tmp_path, "second", "b")
    code, text = asked(capsys, tmp_path, "--sweep", "first")
    assert code == 0 and set(rows(text)) == {"wanda-a"} and "second" not in text and "all runs" not in text
    assert asked(capsys, tmp_path, "--sweep", "second")[0] == 1
    assert status.main([str(tmp_path), "--sweep", "frist"]) == 2
    assert "no such sweep" in (error := capsys.readouterr().err) and "did you mean first?" in error


def test_a_folder_without_runs_and_a_damaged_sweep_are_one_line(tmp_path, capsys):
    assert status.main([str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert status.main([str(tmp_path)]) == 2
    assert "no runs in" in capsys.readouterr().err
    run_folder(tmp_path, "a", "done", finished=END.format(10))
    sweep(tmp_path, "grid", "a")
    (tmp_path / "multirun" / "grid.json").write_text("[1, 2]")
    code, text = asked(capsys, tmp_path)
    assert code == 1 and rows(text)["grid.json"] == ("unreadable", "grid.json is not a JSON object")


def test_watching_looks_again_until_all_is_done(tmp_path, capsys, monkeypatch):
    machine.forget_peaks("cpu")  # its thread looks on, as after any run of this process
    run_folder(tmp_path, "a", "failed", error="bad")
    finish = lambda _: run_folder(tmp_path, "a", "done", finished=END.format(10))
    monkeypatch.setattr(time, "sleep", finish)
    Event().wait(10 * machine.PERIOD)
    code, text = asked(capsys, tmp_path, "--watch", "5")
    assert code == 0 and text.index("bad") < text.index("all runs: 1 done")


def test_two_hundred_runs_are_told_without_torch(tmp_path):
    for number in range(200):
        folder = run_folder(tmp_path, f"{number:03}", "done", finished=END.format(10), config={"x": list(range(500))})
        for block in range(8):
            write(folder / "steps" / "blocks" / f"{block}.json", {"seconds": 1.0})
    code = (
        "import sys; from experiments import status; sys.exit(status.main(sys.argv[1:]) + 4 * ('torch' in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0 and "200 done" in answer.stdout


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    network().model.save_pretrained(folder / "model")
    save_file({"tokens": tokens()}, folder / "tokens.safetensors")
    named = ["model=local", f"model.path={folder}/model", "data=tokens", f"data.path={folder}/tokens.safetensors"]
    return [*named, "eval=[]", "tracker=[]", "device=cpu", "experiment=wanda"]


def prune_slowly(job):
    """A run whose blocks take long, in a process of its own."""
    torch.set_num_threads(1)
    save = BlockStore.save
    BlockStore.save = lambda self, solved: (time.sleep(0.5), save(self, solved))
    pipeline.run(job.run)


def test_a_real_run_is_running_then_interrupted_when_it_is_killed_then_done(settings, tmp_path, capsys):
    run = command.jobs([*settings, f"outputs={tmp_path}"])[0]
    process = multiprocessing.get_context("fork").Process(target=prune_slowly, args=(run,))
    process.start()
    while not list(tmp_path.glob("*/*/steps/blocks/*.json")):
        assert process.is_alive(), "it ended before it could be killed"
        time.sleep(0.01)
    code, text = asked(capsys, tmp_path)
    [(state, said)] = rows(text).values()
    assert (code, state) == (1, "running") and said.startswith("block 2 of 3, ")
    assert f"process {process.pid} on " in said
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    code, text = asked(capsys, tmp_path)
    [(state, said)] = rows(text).values()
    assert (code, state) == (1, "interrupted") and "killed" in said and said.startswith("block ")
    pipeline.run(run.run)
    assert asked(capsys, tmp_path)[0] == 0


def test_a_real_run_is_at_its_evaluation_when_it_measures(settings, tmp_path, capsys, monkeypatch):
    tokens = next(word for word in settings if word.startswith("data.path=")).replace("data.", "eval.perplexity.")
    words = [*(word for word in settings if word != "eval=[]"), "eval=[perplexity]", tokens, f"outputs={tmp_path}"]
    run, measure, told = command.jobs(words)[0].run, Perplexity.__call__, []

    def measuring(*arguments):
        told.append(next(iter(rows(asked(capsys, tmp_path)[1]).values()))[1].partition(";")[0])
        return measure(*arguments)

    monkeypatch.setattr(Perplexity, "__call__", measuring)
    pipeline.run(run)
    assert told == ["at dense perplexity", "at perplexity"]


def test_a_real_failure_is_told_with_its_reason(settings, tmp_path, capsys):
    run = command.jobs([*settings, f"outputs={tmp_path}", "data.length=100"])[0]
    with pytest.raises(ValueError) as error:
        pipeline.run(run.run)
    code, text = asked(capsys, tmp_path)
    assert code == 1 and list(rows(text).values()) == [("failed", str(error.value))]
