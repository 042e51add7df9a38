"""W&B shows what the run's folder holds, read back by wandb's own reader, and never stops or litters a run."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from experiments.files.disk import seal
from experiments.trackers.wandb import Wandb, scalars, tables
from tests.offline import last, of, recorded, rows_of

ROOT = Path(__file__).parents[1]
BINS = [0] * 60
COUNTS = {
    "removed": [*BINS[:10], 3, 1, *BINS[:48]],
    "kept": [*BINS[:11], 1, *BINS[:47], 3],
}  # of 8 weights that were seen
CONFIG = {
    "model": {"path": "demo"},
    "metric": {"_target_": "prune.metrics.wanda.Wanda"},
    "allocator": {"_target_": "prune.allocators.uniform.Uniform", "sparsity": 0.5},
    "update": {"_target_": "prune.updates.sparsegpt.SparseGPT", "damping": 0.01},
    "data": {"sequences": 8, "seed": 4},
    "seed": 3,
}
RESULTS = {
    "metrics": {"ppl/stdlib@128": 21.25, "ppl_stderr/stdlib@128": 0.5, "acc/stdlib": 0.625},
    "dense": {"ppl/stdlib@128": 17.5, "ppl_stderr/stdlib@128": 0.25, "acc/stdlib": 0.75},
    "layers": [
        {
            "name": "h.0.q",
            "block": "h.0",
            "shape": [4, 8],
            "sparsity": 0.5,
            "target": 0.5,
            "notes": {"dead_columns": 3},
        },
        {"name": "h.1.q", "block": "h.1", "shape": [4, 8], "sparsity": 0.4375, "target": 0.5, "notes": {}},
    ],
    "blocks": [{"block": "h.0", "error": 0.125, "seconds": 1.5}, {"block": "h.1", "error": None, "seconds": 2.5}],
    "notes": {"dead_columns": 3},
    "seconds": {"load": 1.0, "prune": 4.0},
    "memory": {"host_peak": 1024, "device_peak": None},
    "stage_memory": {"prune": {"host_peak": 512, "device_peak": None}},
}
# Two runs after each other in one process, the second fails; prints what they changed in the environment.
JOBS = """
import logging, os, sys, json
from pathlib import Path
from experiments.trackers.wandb import Wandb
logging.basicConfig(level="INFO", format="%(message)s")
before = dict(os.environ)
for folder in map(Path, sys.argv[2:]):
    manifest = json.loads((folder / "manifest.json").read_text())
    tracker = Wandb(**json.loads(sys.argv[1]))
    tracker.check()
    tracker.start(folder, manifest)
    tracker.log({"block/error": 0.25}, step=0)
    tracker.log({"block/error": 0.125}, step=1)
    tracker.finish(folder, manifest["status"])
print(json.dumps(sorted(name for name in os.environ | before if os.environ.get(name) != before.get(name))))
"""


def run_folder(folder: Path, identity: str, status: str = "done", **more) -> Path:
    """A run's folder as the runner leaves it."""
    folder.mkdir(parents=True)
    names = {"name": f"wanda-2of4-0.5-{identity}", "identity": identity, "method": "wanda", "pattern": "2of4"}
    facts = {"model": "demo", "sparsity": 0.5, "commit": "c0ffee" * 3, "dirty": False, "sweep": "sweep-1"}
    data = {"name": "stdlib", "sequences": 8, "length": 128, "sha256": "d1" * 32}
    manifest = names | facts | {"config": CONFIG, "data": data, "status": status} | more
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if status == "done":
        seal(folder / "results.json", RESULTS)
        counted = RESULTS["layers"][0] | {"histograms": {"weight": COUNTS}}
        for row, name in ((counted, "h.0"), (RESULTS["layers"][1], "h.1")):
            rows = folder / "steps" / "blocks" / f"{name}.json"
            rows.parent.mkdir(parents=True, exist_ok=True)
            seal(rows, {"layers": [row]})
    return folder


def run_jobs(home: Path, options: dict, *folders: Path, **environment: str) -> subprocess.CompletedProcess:
    """The jobs in a process of their own, with a home and a working directory that are empty."""
    (home / "work").mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    place = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": str(ROOT),
        "NETRC": str(home / "none"),
    }
    command = [sys.executable, "-c", JOBS, json.dumps(options), *map(str, folders)]
    done = subprocess.run(
        command,
        env=kept | place | environment,
        cwd=home / "work",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """Folder, records of wandb's reader for a finished and a failed run, what changed in the environment, the home."""
    top = tmp_path_factory.mktemp("wandb")
    good = run_folder(top / "good", "aaaa0001")
    bad = run_folder(top / "bad", "bbbb0002", "failed", method="dense", sweep=None)
    done = run_jobs(top / "home", {"mode": "offline"}, good, bad)
    reader = top / "reader"
    reader.mkdir()
    return good, recorded(good, reader), recorded(bad, reader), done, top / "home"


def test_an_offline_run_carries_names_configuration_and_group(mirrored):
    _, records, _, _, _ = mirrored
    (run,) = of(records, "run")
    assert (run["run_id"], run["display_name"]) == ("aaaa0001", "wanda-2of4-0.5-aaaa0001")
    assert (run["project"], run["run_group"], run["job_type"]) == ("pruning", "sweep-1", "prune")
    assert run["tags"] == ["wanda", "2of4", "demo"]
    assert run["config"]["update"]["settings"] == CONFIG


def test_the_summary_has_every_number_of_the_results(mirrored):
    _, records, _, _, _ = mirrored
    summary = last(records)
    assert {name: summary[name] for name in RESULTS["metrics"]} == RESULTS["metrics"]
    assert {name: summary[f"dense/{name}"] for name in RESULTS["dense"]} == RESULTS["dense"]
    assert (summary["difference/ppl/stdlib@128"], summary["difference/acc/stdlib"]) == (21.25 - 17.5, 0.625 - 0.75)
    assert (summary["seconds/prune"], summary["memory/host_peak"], summary["notes/dead_columns"]) == (4.0, 1024, 3)
    assert summary["memory/prune/host_peak"] == 512
    assert not any("difference/ppl_stderr" in name or "device_peak" in name for name in summary)


def test_logged_curves_keep_their_steps(mirrored):
    _, records, _, _, _ = mirrored
    items = [entry["item"] for entry in of(records, "history") if "block/error" in entry["item"]]
    assert [(item["step"], item["block/error"]) for item in items] == [(0, 0.25), (1, 0.125)]


def test_blocks_stages_and_histograms_are_tables(mirrored):
    folder, _, _, _, _ = mirrored
    assert rows_of(folder, "blocks") == [
        {"block": "h.0", "error": 0.125, "seconds": 1.5},
        {"block": "h.1", "error": None, "seconds": 2.5},
    ]
    assert rows_of(folder, "stages") == [
        {"stage": "load", "seconds": 1.0, "host peak": None, "device peak": None},
        {"stage": "prune", "seconds": 4.0, "host peak": 512, "device peak": None},
    ]
    bins = rows_of(folder, "histograms")
    assert [(row["matrix"], row["of"]) for row in bins] == [("q", "weight")] * 60, "the method had no score"
    shares = {place: (row["removed"], row["kept"]) for place, row in enumerate(bins) if row["removed"] or row["kept"]}
    assert shares == {10: (3 / 8, 0), 11: (1 / 8, 1 / 8), 59: (0, 3 / 8)}
    edges = [(row["from"], row["to"]) for row in bins]
    assert [edges[0], edges[-1]] == [(0, pytest.approx(10**-3.9)), (pytest.approx(10**1.9), None)]
    assert edges[10] == (pytest.approx(10**-3), pytest.approx(10**-2.9))


def test_a_run_of_older_code_has_the_tables_that_its_results_tell():
    old = {key: value for key, value in RESULTS.items() if key != "stage_memory"}
    found = tables(old)
    assert len(found["layers"]) == len(found["blocks"]) == 2
    assert found["stages"] == [["load", 1.0, None, None], ["prune", 4.0, None, None]]
    assert tables({"metrics": {}}) == {"layers": [], "blocks": [], "stages": []}
    assert "memory/prune/host_peak" not in scalars(old)


def test_the_table_and_the_manifest_are_kept_with_the_run(mirrored):
    folder, records, _, _, _ = mirrored
    rows = rows_of(folder, "layers")
    expected = {
        "layer": "h.0.q",
        "block": "h.0",
        "out": 4,
        "in": 8,
        "target": 0.5,
        "sparsity": 0.5,
        **{"bits": None, "zeros": None},
    }
    assert rows[0] == expected | {"notes": '{"dead_columns": 3}'}
    (artifact,) = [a for a in of(records, "artifact") if a["type"] == "manifest"]
    assert artifact["name"] == "manifest-aaaa0001"
    for entry in artifact["manifest"]["contents"]:
        assert folder in Path(entry["local_path"]).parents, "an upload later needs the bytes that were there"
        assert Path(entry["local_path"]).read_bytes() == (folder / entry["path"]).read_bytes()
    assert [entry["path"] for entry in artifact["manifest"]["contents"]] == ["manifest.json", "results.json"]


def test_a_failed_run_is_marked_failed_and_is_a_run_of_its_own(mirrored):
    _, good, bad, _, _ = mirrored
    assert [record.get("exit_code", 0) for record in of(good, "exit")] == [0]
    assert [record["exit_code"] for record in of(bad, "exit")] == [1]
    (run,) = of(bad, "run")
    assert (run["run_id"], run["job_type"], run.get("run_group", "")) == ("bbbb0002", "dense", "")
    assert "ppl/stdlib@128" not in last(bad)


def test_nothing_is_left_outside_the_runs_folder(mirrored):
    _, _, _, done, home = mirrored
    assert [str(path) for path in home.rglob("*")] == [str(home / "work")]
    assert set(json.loads(done.stdout)) <= {"WANDB_SERVICE"}  # wandb's own: the address of its process
    assert done.stderr.count("recorded offline; to upload: wandb sync --yes") == len(done.stderr.splitlines()) == 2


def test_an_unreachable_server_costs_one_line_and_the_run_is_recorded_offline(tmp_path):
    folder = run_folder(tmp_path / "run", "cccc0003")
    server = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = run_jobs(tmp_path / "home", {"timeout": 1}, folder, **server)
    assert [line for line in done.stderr.splitlines() if "online failed" in line] == done.stderr.splitlines()[:1]
    assert last(recorded(folder, tmp_path))["ppl/stdlib@128"] == 21.25


def test_online_without_a_key_says_so_and_records_offline(tmp_path):
    folder = run_folder(tmp_path / "run", "dddd0004")
    done = run_jobs(tmp_path / "home", {"mode": "online"}, folder)
    assert "no API key" in done.stderr.splitlines()[0]
    assert [record.get("exit_code", 0) for record in of(recorded(folder, tmp_path), "exit")] == [0]


@pytest.mark.parametrize("mode", ["offline", "online", None])
def test_a_wandb_that_cannot_be_used_costs_one_line(tmp_path, monkeypatch, caplog, mode):
    monkeypatch.setattr(wandb, "setup", lambda **_: 1 / 0)
    folder = run_folder(tmp_path / "run", "eeee0005")
    tracker = Wandb(mode=mode)
    tracker.start(folder, json.loads((folder / "manifest.json").read_text()))
    tracker.log({"block/error": 0.5}, step=0)
    tracker.finish(folder, "done")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "not mirrored" in caplog.text


def test_a_disabled_wandb_writes_nothing(tmp_path, caplog):
    folder = run_folder(tmp_path / "run", "ffff0006")
    tracker = Wandb(mode="disabled")
    tracker.check()
    tracker.start(folder, json.loads((folder / "manifest.json").read_text()))
    tracker.log({"block/error": 0.5})
    tracker.finish(folder, "done")
    assert not caplog.records
    assert not (folder / "wandb").exists()
