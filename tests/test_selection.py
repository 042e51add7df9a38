"""A report over a part of the runs and metrics, by name; a name that nothing has is one line, with what there is."""

import csv

import pytest

from experiments.files.disk import write_json
from experiments.report import main
from experiments.reporting.selection import part
from experiments.runs.record import read
from tests.runs import BOOLQ, DENSE, MEAN, PPL, RTE, change, metrics, put


@pytest.fixture
def runs(tmp_path):
    """Two models, two texts of calibration, a method that reads none, and a multirun over two of the runs."""
    data = {text: {"name": text, "sequences": 8, "length": 64, "sha256": text} for text in ("c4", "books")}
    put(tmp_path, "dense", metrics=DENSE, sparsity=0.0)
    put(tmp_path, "magnitude", metrics=metrics(31.0), identity="m")
    put(tmp_path, "wanda", metrics=metrics(24.0), data=data["c4"], identity="a", sweep="last")
    put(tmp_path, "wanda", "2of4", metrics(26.0), data=data["books"], identity="b")
    put(tmp_path, "wanda", metrics=metrics(9.0), model="other", data=data["c4"], identity="o")
    change(put(tmp_path, "ria", "2of4", metrics(25.0), data=data["c4"], identity="r"), metrics={PPL: 25.0})
    put(tmp_path, "ria", status="failed", error="no memory", identity="f")
    jobs = [{"identity": identity, "folder": f"demo/{identity}"} for identity in "br"]
    write_json(tmp_path / "multirun" / "first.json", {"sweep": "first", "jobs": jobs})
    return tmp_path


def rows(folder, **wanted):
    table = part(read([folder]), wanted).table
    pruned = [row for row in table.rows if row.method != "dense"]
    return ["".join(row.record.manifest["identity"] for row in pruned), [*table.metrics]]


@pytest.mark.parametrize(
    ("wanted", "identities"),
    [
        ({"model": ["demo"]}, "brma"),
        ({"model": ["demo", "other"]}, "brmao"),
        ({"method": ["ria", "magnitude"]}, "rm"),
        ({"pattern": ["2:4"]}, "br"),
        ({"sweep": ["first"]}, "br"),
        ({"sweep": ["last"]}, "a"),
        ({"calibration": ["c4"]}, "rmao"),  # what reads no data is held against each calibration
        ({"calibration": ["8 x 64 of books"]}, "bm"),
        ({"calibration": ["c4"], "model": ["demo"], "pattern": ["2of4"]}, "r"),
        ({"metric": ["ppl"]}, "brmao"),
        ({"metric": ["acc/rte"]}, "bmao"),
        ({"metric": ["acc/rte"], "model": ["demo"], "method": ["wanda"]}, "ba"),
    ],
)
def test_a_report_is_over_the_runs_that_have_one_name_of_each_option(runs, wanted, identities):
    assert sorted(rows(runs, **wanted)[0]) == sorted(identities)
    table = part(read([runs]), wanted).table
    models = {row.model for row in table.rows}
    assert models == {row.model for row in table.rows if row.method == "dense"}, "the dense model stands beside them"
    assert table.notes[0].startswith("a part of all runs and metrics: --")


def test_metrics_are_named_by_key_without_the_window_or_by_family(runs):
    assert rows(runs, metric=["ppl/text"])[1] == rows(runs, metric=[PPL])[1] == rows(runs, metric=["ppl"])[1] == [PPL]
    assert rows(runs, metric=["acc"])[1] == [MEAN, BOOLQ, RTE]
    found = part(read([runs]), {"metric": [PPL, "acc/rte", "acc/boolq"]})
    assert found.table.short == found.metrics == [PPL, BOOLQ, RTE], "what was named is in short tables too"
    assert part(read([runs]), {"metric": ["acc"]}).table.short == [MEAN]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "dem"], "--model dem: no run has it, did you mean demo?; there are demo, other"),
        (["--sweep", "firts"], "--sweep firts: no run has it, did you mean first?; there are first, last"),
        (["--metric", "ppl/txet"], "--metric ppl/txet: no run has it, did you mean ppl/text?; there are acc,"),
        (["--calibration", "c5"], "--calibration c5: no run has it, did you mean c4?; there are 8 x 64 of books,"),
        (["--model", "other", "--pattern", "2of4"], "no run has all of --model other --pattern 2of4"),
        (["--model="], "--model : no run has it; there are demo, other"),
    ],
)
def test_what_nothing_has_ends_with_one_line_and_nothing_is_written(runs, words, said, capsys):
    before = sorted(runs.rglob("*"))
    assert main([str(runs), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}") and sorted(runs.rglob("*")) == before


def test_a_part_never_overwrites_the_report_over_all(runs, capsys):
    assert main([str(runs), "--csv"]) == 0
    whole = (runs / "report.csv").read_text()
    assert main([str(runs), "--csv", "--method", "ria,magnitude", "--method", "wanda", "--metric", "ppl/text"]) == 0
    assert (runs / "report.csv").read_text() == whole
    (part,) = runs.glob("report-*/report.csv")
    assert str(part) in capsys.readouterr().out
    lines = list(csv.DictReader(part.read_text().splitlines()))
    assert {line["method"] for line in lines} == {"dense", "magnitude", "wanda", "ria"} and MEAN not in lines[0]
    assert sum(line["status"] == "failed" for line in lines) == 1, "a failed run of the part is told of"
