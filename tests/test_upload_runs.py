"""A finished run that was not tracked becomes the W&B run that tracking makes of it, once; read back by wandb."""

import json
import shutil
import tarfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from experiments import upload
from experiments.runs.record import Record
from experiments.trackers.wandb import Wandb, configuration
from tests.offline import configured, last, of, recorded, rows_of
from tests.runs import change
from tests.test_old_runs import ARCHIVE
from tests.test_wandb import CONFIG, RESULTS, run_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Records of a run as it was tracked, then of the same run uploaded; the folder; what the command said, twice."""
    top = tmp_path_factory.mktemp("runs")
    tracked = run_folder(top / "tracked" / "a", "aaaa0001")
    later = top / "outputs" / "a"
    shutil.copytree(tracked, later)
    run_folder(top / "outputs" / "b", "bbbb0002", "failed")
    tracker, manifest = Wandb(mode="offline"), json.loads((tracked / "manifest.json").read_text())
    tracker.start(tracked, manifest)
    for step, error in enumerate((0.25, 0.125)):
        tracker.log({"block/error": error}, step)
    tracker.finish(tracked, "done")
    said = []
    for _ in range(2):
        with redirect_stdout(StringIO()) as out:
            assert upload.main([str(top / "outputs")]) == 0
        said.append(out.getvalue().splitlines())
    return [recorded(folder, top) for folder in (tracked, later)], later, said


def test_it_has_the_names_the_group_and_the_configuration_of_the_tracked_one(runs):
    (tracked, later), _, _ = runs
    (one,), (other,) = of(tracked, "run"), of(later, "run")
    names = ("run_id", "display_name", "project", "run_group", "job_type", "tags")
    assert {name: one[name] for name in names} == {name: other[name] for name in names}
    assert configured(tracked) == configured(later) and other["run_group"] == "sweep-1"


def test_charts_group_by_plain_keys_beside_all_settings(runs):
    (_, later), _, _ = runs
    plain = {"method": "wanda", "model": "demo", "pattern": "2of4", "sparsity": 0.5, "commit": "c0ffee" * 2}
    plain |= {"metric": "wanda", "allocator": "uniform", "update": "sparsegpt", "seed": 3, "data_seed": 4}
    assert configured(later) == {**plain, "calibration": "8 x 128 of stdlib", "settings": CONFIG}


def test_the_parts_of_a_run_are_those_that_made_its_masks_and_its_weights():
    given = {"names": {"method": "owl"}, "config": CONFIG | {"allocator": {"_target_": "prune.allocators.owl.OWL"}}}
    own = CONFIG | {"metric": {"_target_": "prune.metrics.random.Random"}, "given": given}
    own |= {"update": {"_target_": "mine.parts.Barber"}}
    record = Record(Path(), {"method": "barber", "config": own}, {}, "done")
    assert record.parts == {"metric": "wanda", "allocator": "owl", "update": "barber"}
    assert configuration(record)["given"] == "owl"
    assert Record(Path(), {"method": "dense", "config": CONFIG}, {}, "done").parts == {}, "they remove nothing"


def test_it_has_the_numbers_the_curves_and_the_tables_of_the_tracked_one(runs):
    (tracked, later), folder, _ = runs
    plain = [
        {name: value for name, value in last(records).items() if not name.startswith("_") and "path" not in name}
        for records in (tracked, later)
    ]
    assert plain[1] == plain[0] | {"block/seconds": 2.5}, "the tracked one was told of no seconds"
    curves = [entry["item"] for entry in of(later, "history") if "block/seconds" in entry["item"]]
    assert [(item["step"], item.get("block/error"), item["block/seconds"]) for item in curves] == [
        (0, 0.125, 1.5),
        (1, None, 2.5),
    ]
    for table in ("layers", "blocks", "stages", "histograms"):
        assert rows_of(folder, table) == rows_of(folder.parents[1] / "tracked" / "a", table)


def test_the_second_command_makes_no_second_run_and_says_where_the_first_waits(runs):
    _, folder, said = runs
    (recording,) = (folder / "wandb").glob("offline-run-*")
    lines = [f"recorded offline: wanda-2of4-0.5-aaaa0001 {recording}", "1 recorded offline, 1 left out, failed"]
    lines.append(f"to upload: find {folder.parent} -name 'offline-run-*' -exec wandb sync --yes {{}} +")
    assert said == [lines, lines]


def test_what_was_uploaded_is_left_alone_until_it_has_other_numbers(runs, tmp_path, capsys):
    _, folder, _ = runs
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    (recording,) = (again / "wandb").glob("offline-run-*")
    (recording / "run-aaaa0001.wandb.synced").touch()  # as `wandb sync` does
    assert upload.main([str(again)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["1 there already"]
    change(again, metrics=RESULTS["metrics"] | {"ppl/other@128": 30.5})
    shutil.rmtree(recording)
    assert upload.main([str(again)]) == 0
    records = recorded(again, tmp_path)
    assert last(records)["ppl/other@128"] == 30.5
    assert [run["run_id"] for run in of(records, "run")] == ["aaaa0001"]


def test_a_run_of_an_older_version_has_its_numbers_and_goes_where_it_is_asked_to(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.rglob("wanda-*36ccdc8243")
    assert upload.main([str(folder), "--project", "old", "--entity", "us"]) == 0
    records = recorded(folder, tmp_path)
    (run,) = of(records, "run")
    assert (run["project"], run["entity"], run["run_id"]) == ("old", "us", "36ccdc8243")
    stored = json.loads((folder / "results.json").read_text())
    stored["metrics"]["audit/zeros"] = stored["metrics"].pop("audit/sparsity")  # as it is called now
    assert {name: last(records)[name] for name in stored["metrics"]} == stored["metrics"]
    assert configured(records)["metric"] == "wanda" and configured(records)["calibration"] == "8 x 64 of text"


@pytest.mark.parametrize(
    ("status", "words", "line"),
    [
        ("failed", [], "no finished run in {}: expected one, found 1 failed"),
        ("done", ["--project", "a/b"], "tracker.wandb.project=a/b: expected a name without any of /\\#?%:"),
        ("done", [], "W&B is disabled: nothing was uploaded; unset WANDB_MODE, or set it to online or offline"),
    ],
)
def test_what_cannot_be_uploaded_is_one_line(tmp_path, monkeypatch, capsys, status, words, line):
    run_folder(tmp_path / "run", "cccc0003", status)
    monkeypatch.setattr(Wandb, "wanted", lambda _: "disabled")
    assert upload.main([str(tmp_path), *words]) == 2
    assert capsys.readouterr().err == f"error: {line.format(tmp_path)}\n"
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_run_that_wandb_fails_at_is_said_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    folders = [run_folder(tmp_path / name, identity) for name, identity in (("a", "dddd0004"), ("b", "eeee0005"))]
    opened = Wandb.open

    def refused(self, folder, described):
        return 1 / 0 if described["id"] == "dddd0004" else opened(self, folder, described)

    monkeypatch.setattr(Wandb, "open", refused)
    assert upload.main([str(tmp_path)]) == 1
    ends = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert ends[:3] == ["failed", "recorded offline", "1 failed, 1 recorded offline"]
    assert [(folder / "wandb" / "mirrored.json").exists() for folder in folders] == [False, True]
