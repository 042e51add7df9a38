"""Tables and the report say what the runs' JSON says, and never more."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import report as reports
from experiments.figures.catalogue import FIGURES
from experiments.report import FORMATS, find, main, write
from experiments.reporting.findings import Findings
from experiments.runs.record import read
from experiments.summary import rows
from experiments.trackers import upload
from tests.runs import BOOLQ, DENSE, MEAN, PPL, RTE, change, losses, metrics, put


@pytest.fixture(autouse=True)
def one_figure(monkeypatch):
    """The first figure stands for all: drawing takes seconds, and test_figures.py looks at each of them."""
    monkeypatch.setattr(reports, "FIGURES", FIGURES[:1])


def report(folders: list[Path], to: Path, *formats: str) -> str:
    """Writes the report in these formats, or the CSV alone; returns what the terminal shows."""
    found = Findings(find(folders))
    write(found, to, formats or ("csv",))
    return rows.render(found.table)


def lines(folder: Path) -> list[dict[str, str]]:
    """The rows of a report.csv."""
    return list(csv.DictReader((folder / "report.csv").read_text().splitlines()))


@pytest.fixture
def runs(tmp_path):
    """A dense model, two pruned ones, a failed, a running and two unreadable runs."""
    put(tmp_path, "dense", metrics=DENSE, sparsity=0.0)
    put(tmp_path, "wanda", metrics=metrics(24.0625))
    put(tmp_path, "sparsegpt", "2of4", metrics(1 / 3 * 100))
    put(tmp_path, "magnitude", status="failed", error="layer h.0.q has NaN weights")
    put(tmp_path, "slow", status="running")
    put(tmp_path, "half", metrics={}).joinpath("results.json").write_text('{"metrics": {"ppl/te')
    put(tmp_path, "bare").joinpath("manifest.json").write_text('{"model": "demo"}')
    return tmp_path


def test_the_csv_has_the_numbers_of_the_json(runs):
    report([runs], runs)
    rows = {row["method"]: row for row in lines(runs)}
    for record in read([runs]):
        if record.status == "done":
            row = rows[record.manifest["method"]]
            shown = {key: float(row[key]) for key in (PPL, BOOLQ, RTE, MEAN)}
            assert shown == {key: record.results["metrics"][key] for key in shown}
            assert float(row[f"{PPL} stderr"]) == record.results["metrics"]["ppl_stderr/text@128"]
    pruned = rows["sparsegpt"]
    assert (float(pruned["asked"]), float(pruned["sparsity"])) == (0.5, 0.5001)
    assert (float(pruned["seconds/prune"]), float(pruned["memory/host_peak"])) == (1.25, 4096)


def test_differences_are_pruned_minus_dense(runs):
    report([runs], runs)
    for row in lines(runs):
        if row["method"] in ("wanda", "sparsegpt"):
            for key in (PPL, BOOLQ, RTE, MEAN):
                assert float(row[f"{key} dense"]) == DENSE[key]
                assert float(row[f"{key} difference"]) == float(row[key]) - DENSE[key]


def test_the_dense_model_comes_first_with_or_without_a_run_of_its_own(tmp_path):
    put(tmp_path, "wanda", metrics=metrics(24.0))
    put(tmp_path, "magnitude", metrics=metrics(31.0))
    first, *others = rows.arrange(read([tmp_path])).rows
    value = first.values[PPL]
    assert (first.method, first.sparsity, value.value, value.error) == ("dense", 0.0, 17.5, 0.25)
    put(tmp_path, "dense", metrics=DENSE, sparsity=0.0)
    again = rows.arrange(read([tmp_path])).rows
    assert [row.method for row in again] == ["dense", "magnitude", "wanda"]
    assert again[0].values == first.values
    assert [row.values for row in again[1:]] == [row.values for row in others]


def test_runs_without_results_are_listed_with_their_reason(runs):
    text = report([runs], runs, "markdown", "csv")
    for where in (text, (runs / "report.md").read_text()):
        assert f"failed: {runs}/demo/magnitude-unstructured-0.5-0000000000: layer h.0.q has NaN weights" in where
        assert f"interrupted: {runs}/demo/slow-unstructured-0.5-0000000000: before its first block: killed" in where
        assert "half-unstructured-0.5-0000000000: results.json is not JSON" in where
        assert "bare-unstructured-0.5-0000000000: manifest.json has no method, pattern, sparsity" in where
    statuses = {row["folder"].split("/")[-1].split("-")[0]: row["status"] for row in lines(runs) if row["folder"]}
    assert [statuses[name] for name in ("magnitude", "slow", "half")] == ["failed", "interrupted", "unreadable"]
    assert statuses["bare"] == "unreadable"


def test_numbers_of_different_protocols_get_columns_of_their_own(tmp_path):
    put(tmp_path, "magnitude", metrics=metrics(31.0))
    put(tmp_path, "wanda", metrics=metrics(24.0), sha256="b2", version=3.0)
    found = rows.arrange(read([tmp_path]))
    columns = {row.method: set(row.values) for row in found.rows}
    assert columns["magnitude"] == {PPL, BOOLQ, RTE, MEAN}
    assert columns["wanda"] == {f"{PPL} [2]", f"{BOOLQ} [2]", RTE, f"{MEAN} [2]"}, "only rte is the same task in both"
    assert f"demo: {PPL} [2] is not comparable with {PPL}: sha256 b2 instead of a1" in found.notes
    assert f"demo: {BOOLQ} [2] is not comparable with {BOOLQ}: tasks.boolq.version 3.0 instead of 2.0" in found.notes
    assert found.rows[0].values[f"{PPL} [2]"].value == DENSE[PPL], "the dense model was measured both ways"


def test_models_that_share_a_name_but_not_a_folder_are_different_models(tmp_path):
    put(tmp_path, "magnitude", metrics=metrics(31.0), model="llama", path="/a/llama")
    put(tmp_path, "wanda", metrics=metrics(24.0), model="llama", path="/b/llama")
    found = rows.arrange(read([tmp_path]))
    assert [(row.model, row.method) for row in found.rows] == [
        ("llama", "dense"), ("llama", "magnitude"), ("llama [2]", "dense"), ("llama [2]", "wanda"),
    ]  # fmt: skip
    assert found.notes == ["llama [2] is not comparable with llama: path /b/llama instead of /a/llama"]


def test_models_measured_on_different_tokens_share_a_column_with_a_note(tmp_path):
    put(tmp_path, "wanda", metrics=metrics(24.0), model="one")
    put(tmp_path, "wanda", metrics=metrics(26.0), model="two", sha256="b2")
    (note,) = rows.arrange(read([tmp_path])).notes
    assert note.startswith(f"{PPL}: not the same for all models in sha256")


def test_the_terminal_shows_the_mean_accuracy_and_markdown_every_task(runs):
    found = rows.arrange(read([runs]))
    terminal, markdown = rows.render(found), rows.render(found, markdown=True)
    assert f"{MEAN} %" in terminal and f"{BOOLQ} %" not in terminal and "2 more metrics" in terminal
    assert all(f"{key} %" in markdown for key in (MEAN, BOOLQ, RTE))
    (row,) = [line for line in markdown.splitlines() if "| wanda" in line]
    assert [cell.strip() for cell in row.split("|")[1:13]] == [
        "demo", "wanda", "unstructured", "0.5001", "24.062 ± 0.500", "+6.562", "57.50", "-10.00",
        "65.00 ± 5.00", "-10.00", "50.00", "-10.00",
    ]  # fmt: skip


def test_one_run_ends_with_dense_pruned_and_difference(runs):
    text = rows.single(runs / "demo" / "wanda-unstructured-0.5-0000000000")
    cells = {line.split()[0]: line.split() for line in text.splitlines()}
    assert cells[PPL] == [PPL, "17.500", "24.062", "±", "0.500", "+6.562", "72.7"]
    assert cells[BOOLQ][2:] == ["75.00", "65.00", "±", "5.00", "-10.00", "86.7", "2.0"]
    assert " ".join(cells["metric"][4:] + cells[MEAN][4:]) == "recovery % task version -10.00 85.2"  # two versions
    facts = ("sparsity 0.5001, prune 1.2 s", "dead columns: 3", "not pruned, outside the blocks: lm_head")
    assert all(fact in text for fact in facts)
    assert "NaN weights" in rows.single(runs / "demo" / "magnitude-unstructured-0.5-0000000000")
    assert not {"difference", "recovery"} & {*rows.single(runs / "demo" / "dense-unstructured-0-0000000000").split()}


def test_sparsity_falls_back_on_the_matrices_weighted_by_size(tmp_path):
    folder = put(tmp_path, "wanda", metrics=metrics(24.0))
    matrix = {"block": "h.0", "notes": {}}
    quarter = matrix | {"name": "h.0.q", "shape": [2, 4], "sparsity": 0.25}
    change(folder, metrics={}, layers=[quarter, matrix | {"name": "h.0.k", "shape": [4, 6], "sparsity": 0.75}])
    (record,) = read([tmp_path])
    assert record.sparsity == (8 * 0.25 + 24 * 0.75) / 32


def test_figures_of_an_earlier_report_that_have_nothing_to_show_now_are_gone(tmp_path):
    put(tmp_path, "wanda", metrics={BOOLQ: 0.5})
    old = [tmp_path / "figures" / f"sparsity-perplexity.{ending}" for ending in ("png", "pdf", "svg")]
    old[0].parent.mkdir()
    for file in old:
        file.write_bytes(b"of an earlier report")
    report([tmp_path], tmp_path, "html", "markdown")
    assert not any(file.exists() for file in old)
    texts = [(tmp_path / name).read_text() for name in ("report.md", "report.html")]
    assert "![" not in texts[0] and "<figure" not in texts[1]
    assert all(
        "Not drawn: Perplexity, and divergence from the dense model, against sparsity (needs two settings" in text
        for text in texts
    )


def test_the_report_is_the_same_whatever_the_order_of_the_folders(tmp_path):
    put(tmp_path / "a", "wanda", metrics=metrics(24.0))
    put(tmp_path / "b", "magnitude", "2of4", metrics(31.0))
    files = []
    for order in ("ab", "baa"):
        report([tmp_path / name for name in order], tmp_path / "to", *FORMATS)
        files.append({path.name: path.read_bytes() for path in (tmp_path / "to").rglob("*.*")})
    assert files[0] == files[1]
    pictures = {f"sparsity-perplexity.{ending}" for ending in ("png", "pdf", "svg")}
    assert set(files[0]) == {"report.html", "report.md", "report.csv", "report.tex"} | pictures
    assert "](figures/sparsity-perplexity.png)" in files[0]["report.md"].decode()


def test_the_command_writes_all_formats_or_those_asked_for_and_says_what(runs, tmp_path, capsys):
    assert main([str(runs), str(runs / "demo")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[:4] == ["model", "method", "pattern", "sparsity"]
    for name in FORMATS.values():
        assert str(runs / name) in printed.splitlines()[-1] and (runs / name).stat().st_size
    assert f"1 figure as png, pdf, svg in {runs / 'figures'}" in printed.splitlines()[-1]
    assert main([str(runs), "--to", str(tmp_path / "to"), "--csv", "--latex"]) == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["report.csv", "report.tex"]
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path}/to/report.csv, {tmp_path}/to/report.tex"


def test_the_latex_table_is_bold_where_the_page_is(tmp_path):
    for name, value in (("wanda", 24.0), ("sparsegpt", 21.0)):
        losses(put(tmp_path, name, metrics=metrics(value)), [3.0, 3.1, 3.2])
    report([tmp_path], tmp_path, "latex", "html")
    assert [
        line.split("&")[0].strip() for line in (tmp_path / "report.tex").read_text().splitlines() if "mathbf" in line
    ] == ["sparsegpt"]
    assert "<strong>21.000</strong>" in (tmp_path / "report.html").read_text()


def test_an_upload_gets_every_file_and_its_failure_is_one_line(runs, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(upload, "upload", lambda files, name: seen.append((files, name)) or "W&B: somewhere")
    assert main([str(runs), "--csv", "--wandb"]) == 0
    assert seen == [([runs / "report.csv"], runs.name)] and capsys.readouterr().out.endswith("\nW&B: somewhere\n")

    def fail(files, name):
        raise OSError("W&B: no network")

    monkeypatch.setattr(upload, "upload", fail)
    assert main([str(runs), "--csv", "--wandb"]) == 2
    assert capsys.readouterr().err == "error: W&B: no network\n"


def test_a_mistyped_option_ends_with_status_2_and_an_interruption_with_130(runs, monkeypatch, capsys):
    assert main([str(runs), "--htlm"]) == 2
    assert "--htlm is not expected, did you mean --html?" in capsys.readouterr().err

    def interrupt(folders):
        raise KeyboardInterrupt

    monkeypatch.setattr(reports, "find", interrupt)
    assert main([str(runs)]) == 130


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_without_runs_the_command_ends_with_one_line_and_status_2(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / folder)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert str(tmp_path / folder) in printed.err


def test_reading_runs_loads_no_torch():
    slow = ("torch", "wandb", "hydra")
    asked = f"import sys, experiments.report; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout == "[]\n", done.stderr
