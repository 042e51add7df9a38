"""Runs of an older version (d5b4afa, 2026-11-22: no seals, no content) are read as they were written.

The archive holds four runs of that version on a model of one layer: dense, magnitude, and Wanda with two seeds.
"""

import csv
import json
import tarfile
from pathlib import Path

import pytest

from experiments import compare, report, status
from experiments.runs.record import read, with_histograms

ARCHIVE = Path(__file__).parent / "runs-d5b4afa.tar.gz"
PPL = "ppl/eval@64"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    top = tmp_path_factory.mktemp("outputs")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(top, filter="data")
    return top


def test_every_run_is_done_and_has_the_numbers_that_its_files_have(outputs):
    records = read([outputs])
    assert [record.status for record in records] == ["done"] * 4
    for record in records:
        told = json.loads((record.folder / "results.json").read_text())
        told["metrics"]["audit/zeros"] = told["metrics"].pop("audit/sparsity")  # what it counts, in other words
        assert record.results["metrics"] == told["metrics"] and record.sparsity == told["metrics"]["audit/zeros"]
        assert len(with_histograms(record.folder)) == len(told["layers"]) == 7


def test_a_report_has_a_row_for_each_and_figures(outputs, tmp_path, capsys):
    assert report.main([str(outputs), "--to", str(tmp_path)]) == 0
    rows = {row["folder"]: row for row in csv.DictReader((tmp_path / "report.csv").read_text().splitlines())}
    told = {str(record.folder): record.results["metrics"][PPL] for record in read([outputs])}
    assert {folder: float(rows[folder][PPL]) for folder in told} == told
    shown = capsys.readouterr().out
    assert "wanda (seed=0)" in shown and "wanda (seed=1)" in shown and "note:" not in shown
    assert {"histograms.png", "seeds.png", "block-error.png"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }


def test_two_of_them_are_compared_over_the_same_windows_and_by_their_masks(outputs, capsys):
    assert compare.main(["magnitude", "36ccdc8243", "--outputs", str(outputs)]) == 0
    shown = capsys.readouterr().out
    assert "pairs  significant" in shown and "self_attn.q_proj" in shown and "not there" not in shown


def test_their_status_is_done(outputs, capsys):
    assert status.main([str(outputs)]) == 0
    assert "4 done, 4 in all" in capsys.readouterr().out
