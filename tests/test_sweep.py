"""A multirun: what is still to do, who does it, and what is told of it. The runs are real ones of a small model."""

import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from experiments import run
from experiments.composing import command
from experiments.files.disk import now, seal, write_json
from experiments.running import multirun, pipeline
from experiments.runs import folder, identity
from experiments.runs.results import finished
from tests.test_run import arguments, damaged, read  # noqa: F401 - the first is a fixture


def start(monkeypatch, capfd, *asked):
    """A command line in this process: its exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["run", *map(str, asked)])
    code = run.main()
    return code, *capfd.readouterr()


def test_a_multirun_runs_what_is_missing_and_nothing_twice(arguments, tmp_path, monkeypatch, capfd):  # noqa: F811
    asked = ["-m", "metric=magnitude,wanda,wanda", "device=cpu", f"outputs={tmp_path}", *arguments]
    code, out, told = start(monkeypatch, capfd, *asked)
    assert code == 0, told
    assert "0 of 2 runs are done already" in told
    assert "[1/2] metric=magnitude" in out and "[2/2] metric=wanda\n" in out
    plan = json.loads(next((tmp_path / "multirun").glob("*.json")).read_text())
    assert [entry["method"] for entry in plan["jobs"]] == ["magnitude+zero", "wanda"]
    for entry in plan["jobs"]:
        manifest = read(tmp_path / entry["folder"], "manifest.json")
        assert manifest["identity"] == entry["identity"] and manifest["sweep"] == plan["sweep"]
        assert " -m " not in manifest["command"].removeprefix("python -m"), "the command of this run alone"
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*") if path.is_file()}
    table = out[out.rindex("\n\nmodel") :]
    names = [line.split()[1] for line in table.splitlines() if line.startswith("small")]
    assert names == ["dense", "metric=magnitude", "metric=wanda"], "the runs of this multirun, in its order"
    named = []
    with monkeypatch.context() as patch:
        patch.setattr(folder, "content", lambda config: named.append(config) or identity.content(config))
        code, out, told = start(patch, capfd, *asked)
    assert (code, out) == (0, table.removeprefix("\n")), told
    assert len(named) == 3, "each line of the three is hashed once, with its files and its code"
    assert "2 of 2 runs are done already" in told
    assert written == {path: path.stat().st_mtime_ns for path in written}
    again = json.loads(next((tmp_path / "multirun").glob("*.json")).read_text())
    assert again["started"] == plan["started"] and again["jobs"] == plan["jobs"]
    (tmp_path / plan["jobs"][0]["folder"] / "results.json").unlink()
    code, out, told = start(monkeypatch, capfd, *asked)
    assert code == 0 and "1 of 2 runs are done already" in told and "[1/2]" in out and "[2/2]" not in out


def test_a_failed_run_is_named_and_its_siblings_finish(arguments, tmp_path, monkeypatch, capfd):  # noqa: F811
    models = f"model.path={damaged(tmp_path / 'broken')},{arguments[1].removeprefix('model.path=')}"
    asked = ["experiment=magnitude", "device=cpu", "eval=[]", "tracker=[]", f"outputs={tmp_path / 'out'}"]
    code, _, told = start(monkeypatch, capfd, "-m", *asked, *arguments[:1], models, *arguments[2:5])
    assert code == 1 and "1 of 2 runs are done" in told and "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("failed: magnitude unstructured 0.5: ") and "NaN" in last
    failed = Path(last.rpartition("(")[2].rstrip(")"))
    assert (
        read(failed, "manifest.json")["status"] == "failed"
        and "Traceback" in read(failed, "manifest.json")["traceback"]
    )


def test_an_ablation_runs_shares_its_runs_and_ends_with_a_table(arguments, tmp_path, monkeypatch, capfd):  # noqa: F811
    rest = ["experiment=magnitude", "eval=[perplexity]", "tracker=[]", "device=cpu", f"outputs={tmp_path}", *arguments]
    assert start(monkeypatch, capfd, "scope=row", *rest)[0] == 0
    code, out, said = start(monkeypatch, capfd, "ablate=scope", *rest)
    assert code == 0 and "1 of 2 runs are done already" in said, said
    rows = [line.split() for line in out.splitlines() if line.startswith("small ")]
    assert [row[1:3] for row in rows[1:]] == [["scope=row", "unstructured"], ["scope=matrix", "unstructured"]]
    assert all(abs(float(row[4]) - float(rows[0][3]) - float(row[7])) < 0.002 for row in rows[1:]), "less the dense one"
    [plan] = (tmp_path / "multirun").glob("*.json")
    assert "ablate=scope" in read(plan.parent, plan.name)["command"]
    commands = [read(path.parent, "manifest.json")["command"] for path in tmp_path.glob("*/*/manifest.json")]
    assert len(commands) == 2 and not any("ablate" in line or " -m " in line[10:] for line in commands)
    assert run.main() == 0 and "2 of 2 runs are done already" in capfd.readouterr().err


def test_another_name_for_one_run_is_the_same_run(arguments):  # noqa: F811
    jobs = command.jobs(["-m", "seed=1,2", "sparsity=0.5,0.50", *arguments])
    assert len({each.run.manifest["identity"] for each in jobs}) == 2


def test_all_runs_of_a_multirun_share_their_outputs(arguments, tmp_path, monkeypatch, capfd):  # noqa: F811
    code, _, told = start(monkeypatch, capfd, "-m", f"outputs={tmp_path}/a,{tmp_path}/b", "device=cpu", *arguments)
    assert code == 2 and "outputs: expected one folder for all runs of a multirun" in told
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_multirun_does_not_depend_on_who_runs_it():
    sweep = lambda *words: command.jobs(["-m", *words])[0].names.sweep
    assert sweep("seed=1,2") == sweep("seed=1,2", "hydra/launcher=joblib") != sweep("seed=1,3")


def test_a_preset_sweeps_without_a_flag_and_the_command_line_has_the_last_word():
    alphas = lambda *more: [each.config["metric"]["alpha"] for each in command.jobs(["experiment=gblm", *more])]
    assert alphas("ablate=alpha") == [0.001, 1, 10, 100, 1000, 100000]
    assert alphas("ablate=alpha", "metric.alpha=5,7") == [5, 7]
    with pytest.raises(ValueError, match="ablate=alpa: no such option, did you mean alpha"):
        alphas("ablate=alpa")


def test_a_setting_that_some_jobs_do_not_have_is_told_with_those_jobs():
    experiments = "admm, alps, best, gptq, mixed, mixed_joint, sparsegpt, sparsegpt_joint"
    belongs = rf"no such setting here; update=admm, alps, refit, sparsegpt has it \(experiment={experiments}\)$"
    with pytest.raises(ValueError, match=rf"^experiment=wanda: update\.damping: {belongs}"):
        command.jobs(["-m", "experiment=wanda,sparsegpt", "update.damping=0.1"])
    with pytest.raises(ValueError, match=r"^sparsty: no such setting, did you mean sparsity\?"):
        command.jobs(["-m", "sparsty=1,2"])


class Dying:
    """A launcher, one process of which dies the first time, with this status in each run's manifest."""

    def __init__(self, jobs, statuses):
        self.jobs, self.statuses, self.calls = jobs, statuses, []

    def launch(self, lines, first):
        self.calls.append((lines, first))
        if len(self.calls) == 1:
            for job, status in zip(self.jobs, self.statuses, strict=True):
                if status:
                    write_json(job.run.folder / "manifest.json", {"status": status, "started": now()})
            raise RuntimeError("a worker was killed")


def test_what_a_dead_process_left_is_launched_once_more_and_what_ended_is_not(arguments, tmp_path):  # noqa: F811
    words = ["-m", "seed=1,2,3,4", f"outputs={tmp_path}", "hydra/launcher=joblib", *arguments]
    jobs = command.jobs(words)
    launcher = Dying(jobs, ["done", "running", None, "failed"])
    multirun.launch_batch(launcher, jobs, 0)
    words = [job.handed_over for job in jobs]
    assert launcher.calls == [(words, 0), ([words[1]], 1), ([words[2]], 2)]
    with pytest.raises(ValueError, match="hydra/launcher=joblib: a worker was killed"):
        multirun.launch_batch(Dying(jobs, [None] * 4), jobs, 0)


class Process:
    """What submitit has of a process that it started: it ends at the n-th look, and leaves a manifest."""

    def __init__(self, job, looks, manifest):
        self.job, self.looks, self.manifest = job, looks, manifest
        self.paths = SimpleNamespace(stdout=f"/logs/{looks}_0_log.out")

    def done(self):
        self.looks -= 1
        if not self.looks:
            seal(self.job.run.folder / "manifest.json", self.job.run.manifest | self.manifest)
        return self.looks <= 0


def test_submitit_says_where_logs_are_at_once_and_of_each_run_what_became_of_it_when_it_ends(
    arguments,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
):
    core = pytest.importorskip("submitit")
    jobs = command.jobs(["-m", "seed=1,2", f"outputs={tmp_path}", "hydra/launcher=submitit_local", *arguments])
    multirun.note(jobs, "typed")
    ended = {"status": "failed", "error": "no room on the disk", "started": now(), "finished": now()}
    processes = [Process(jobs[0], 3, ended), Process(jobs[1], 2, ended | {"error": "NaN"})]
    monkeypatch.setattr(core.AutoExecutor, "map_array", lambda *_: processes)
    monkeypatch.setattr(multirun, "PERIOD", 0.0)
    with multirun.patient("submitit_local", jobs):
        assert core.AutoExecutor(folder=tmp_path / "logs", cluster="local").map_array(None) == processes
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] seed=1: log /logs/3_0_log.out",
        "[2/2] seed=2: log /logs/2_0_log.out",
        "[2/2] seed=2: failed (NaN), 1 at work",
        "[1/2] seed=1: failed (no room on the disk), 0 at work",
    ]


def test_a_run_that_was_done_meanwhile_under_another_name_is_found(arguments, tmp_path):  # noqa: F811
    lines = ["metric=wanda", "experiment=wanda"]  # compared in the matrix, they are no published method
    words = ["device=cpu", f"outputs={tmp_path}", *arguments]
    one, other = (command.jobs([line, "scope=matrix", *words])[0] for line in lines)
    assert one.run.folder != other.run.folder
    assert one.run.manifest["identity"] == other.run.manifest["identity"]
    pipeline.run(one.run)
    assert finished(other.run) and other.run.folder == one.run.folder


@pytest.mark.slow
def test_memory_comes_back_between_the_jobs_of_one_process(arguments, tmp_path):  # noqa: F811
    seen = []
    for each in command.jobs(
        ["-m", "seed=1,2,3,4,5,6", "experiment=sparsegpt", "device=cpu", f"outputs={tmp_path}", *arguments]
    ):
        pipeline.run(each.run)
        gc.collect()
        seen.append(psutil.Process().memory_info().rss / 2**20)
    assert seen[-1] - seen[1] < 30, f"resident MiB after each job: {seen}"
