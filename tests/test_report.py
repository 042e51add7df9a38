"""Tables, pictures and the report say what the runs' JSON says, and never more."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from experiments import plot, table
from experiments.archive import read
from experiments.panels import sparsities
from experiments.report import main, report

PPL, BOOLQ, RTE, MEAN = "ppl/text@128", "acc/boolq", "acc/rte", "acc/mean"
DENSE = {PPL: 17.5, "ppl_stderr/text@128": 0.25, BOOLQ: 0.75, RTE: 0.6, MEAN: 0.675}


def put(
    top: Path, method: str, pattern="unstructured", metrics=None, path="demo", sha256="a1", version=2.0, **manifest
) -> Path:
    """Writes a run's folder as the runner does; metrics None leaves results.json out."""
    names = {"model": "demo", "method": method, "pattern": pattern, "sparsity": 0.5, "identity": "0" * 10} | manifest
    sparsity = names["sparsity"]
    folder = top / names["model"] / f"{method}-{pattern}-{sparsity:g}-{names['identity']}"
    folder.mkdir(parents=True)
    content = {"name": folder.name, "config": {"model": {"path": path}}, "status": "done"} | names
    (folder / "manifest.json").write_text(json.dumps(content))
    if metrics is None:
        return folder
    tasks = {"boolq": {"version": version}, "rte": {"version": 1.0}}
    results = {
        "metrics": metrics | {"audit/sparsity": sparsity + 1e-4},
        "dense": DENSE,
        "protocol": {"perplexity-1": {"sha256": sha256}, "zeroshot-1": {"tasks": tasks, "mean_over": list(tasks)}},
        "step": {key: "perplexity-1" if key.startswith("ppl") else "zeroshot-1" for key in metrics},
        "layers": [
            {"name": "h.0.q", "block": "h.0", "shape": [2, 4], "sparsity": sparsity, "target": 0.5, "notes": {}}
        ],
        "blocks": [{"block": "h.0", "error": 0.25, "seconds": 1.0}],
    }
    results |= {"skipped": {"lm_head": "outside the blocks"}, "notes": {"dead_columns": 3}}
    results |= {"seconds": {"prune": 1.25}, "memory": {"host_peak": 4096, "device_peak": None}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def metrics(perplexity: float, **changed: float) -> dict[str, float]:
    """Metrics of a run whose accuracies are the dense ones less 0.1."""
    accuracies = {BOOLQ: 0.65, RTE: 0.5, MEAN: 0.575}
    return {PPL: perplexity, "ppl_stderr/text@128": 0.5, **accuracies, "acc_stderr/boolq": 0.05, **changed}


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
    first, *others = table.arrange(read([tmp_path])).rows
    assert (first.method, first.sparsity, first.values[PPL].value, first.values[PPL].error) == (
        "dense",
        0.0,
        17.5,
        0.25,
    )
    put(tmp_path, "dense", metrics=DENSE, sparsity=0.0)
    again = table.arrange(read([tmp_path])).rows
    assert [row.method for row in again] == ["dense", "magnitude", "wanda"]
    assert again[0].values == first.values
    assert [row.values for row in again[1:]] == [row.values for row in others]


def test_runs_without_results_are_listed_with_their_reason(runs):
    text = report([runs], runs)
    for where in (text, (runs / "report.md").read_text()):
        assert f"failed: {runs}/demo/magnitude-unstructured-0.5-0000000000: layer h.0.q has NaN weights" in where
        assert f"running: {runs}/demo/slow-unstructured-0.5-0000000000\n" in where
        assert "half-unstructured-0.5-0000000000: results.json is not JSON" in where
        assert "bare-unstructured-0.5-0000000000: manifest.json has no method, pattern, sparsity" in where
    statuses = {row["folder"].split("/")[-1].split("-")[0]: row["status"] for row in lines(runs) if row["folder"]}
    assert [statuses[name] for name in ("magnitude", "slow", "half", "bare")] == [
        "failed",
        "running",
        *["unreadable"] * 2,
    ]


def test_numbers_of_different_protocols_get_columns_of_their_own(tmp_path):
    put(tmp_path, "magnitude", metrics=metrics(31.0))
    put(tmp_path, "wanda", metrics=metrics(24.0), sha256="b2", version=3.0)
    found = table.arrange(read([tmp_path]))
    columns = {row.method: set(row.values) for row in found.rows}
    assert columns["magnitude"] == {PPL, BOOLQ, RTE, MEAN}
    assert columns["wanda"] == {f"{PPL} [2]", f"{BOOLQ} [2]", RTE, f"{MEAN} [2]"}, "only rte is the same task in both"
    assert f"demo: {PPL} [2] is not comparable with {PPL}: sha256 b2 instead of a1" in found.notes
    assert f"demo: {BOOLQ} [2] is not comparable with {BOOLQ}: tasks.boolq.version 3.0 instead of 2.0" in found.notes
    assert found.rows[0].values[f"{PPL} [2]"].value == DENSE[PPL], "the dense model was measured both ways"


def test_models_that_share_a_name_but_not_a_folder_are_different_models(tmp_path):
    put(tmp_path, "magnitude", metrics=metrics(31.0), model="llama", path="/a/llama")
    put(tmp_path, "wanda", metrics=metrics(24.0), model="llama", path="/b/llama")
    found = table.arrange(read([tmp_path]))
    assert [(row.model, row.method) for row in found.rows] == [
        ("llama", "dense"), ("llama", "magnitude"), ("llama [2]", "dense"), ("llama [2]", "wanda"),
    ]  # fmt: skip
    assert found.notes == ["llama [2] is not comparable with llama: path /b/llama instead of /a/llama"]


def test_models_measured_on_different_tokens_share_a_column_with_a_note(tmp_path):
    put(tmp_path, "wanda", metrics=metrics(24.0), model="one")
    put(tmp_path, "wanda", metrics=metrics(26.0), model="two", sha256="b2")
    (note,) = table.arrange(read([tmp_path])).notes
    assert note.startswith(f"{PPL}: not the same for all models in sha256")


def test_the_terminal_shows_the_mean_accuracy_and_markdown_every_task(runs):
    found = table.arrange(read([runs]))
    terminal, markdown = table.render(found), table.render(found, markdown=True)
    assert f"{MEAN} %" in terminal and f"{BOOLQ} %" not in terminal and "2 more metrics" in terminal
    assert all(f"{key} %" in markdown for key in (MEAN, BOOLQ, RTE))
    (row,) = [line for line in markdown.splitlines() if "| wanda" in line]
    assert [cell.strip() for cell in row.split("|")[1:13]] == [
        "demo", "wanda", "unstructured", "0.5001", "24.062 ± 0.500", "+6.562", "57.50", "-10.00",
        "65.00 ± 5.00", "-10.00", "50.00", "-10.00",
    ]  # fmt: skip


def test_one_run_ends_with_dense_pruned_and_difference(runs):
    text = table.single(runs / "demo" / "wanda-unstructured-0.5-0000000000")
    cells = {line.split()[0]: line.split() for line in text.splitlines()}
    assert cells[PPL] == [PPL, "17.500", "24.062", "±", "0.500", "+6.562"]
    assert cells[BOOLQ][2:] == ["75.00", "65.00", "±", "5.00", "-10.00"]
    facts = ("sparsity 0.5001, prune 1.2 s", "dead columns: 3", "skipped lm_head: outside the blocks")
    assert all(fact in text for fact in facts)
    assert "NaN weights" in table.single(runs / "demo" / "magnitude-unstructured-0.5-0000000000")
    assert "difference" not in table.single(runs / "demo" / "dense-unstructured-0-0000000000")


def test_sparsity_falls_back_on_the_matrices_weighted_by_size(tmp_path):
    folder = put(tmp_path, "wanda", metrics=metrics(24.0))
    results = json.loads((folder / "results.json").read_text())
    del results["metrics"]["audit/sparsity"]
    results["layers"] = [{"shape": [2, 4], "sparsity": 0.25}, {"shape": [4, 6], "sparsity": 0.75}]
    (folder / "results.json").write_text(json.dumps(results))
    (record,) = read([tmp_path])
    assert record.sparsity == (8 * 0.25 + 24 * 0.75) / 32


@pytest.mark.parametrize("width", [640, 1280])
def test_pictures_decode_and_have_the_asked_width(tmp_path, width):
    for number in range(9):  # more methods than colours
        put(tmp_path, f"method{number}", "2of4", metrics(20.0 + number))
        put(tmp_path, f"method{number}", metrics=metrics(19.0 + number), sparsity=0.3)
    put(tmp_path, "method0", metrics=metrics(math.inf), sparsity=0.7)
    put(tmp_path, "method0", metrics=metrics(1e7), sparsity=0.6, identity="1")
    put(tmp_path, "lone", metrics=metrics(math.nan), model="other")
    records = read([tmp_path])
    assert plot.sparsity_perplexity(records, tmp_path / "curves.png", width)
    assert plot.layers(next(r.results for r in records if r.results), tmp_path / "layers.png", width)
    for name in ("curves.png", "layers.png"):
        with Image.open(tmp_path / name) as image:
            image.load()
            assert (image.format, image.size[0]) == ("PNG", width)
    assert not list(tmp_path.glob("*.tmp"))


def test_there_is_no_picture_of_nothing(tmp_path):
    put(tmp_path, "wanda", metrics={BOOLQ: 0.5})
    (tmp_path / "sparsity-perplexity.png").write_bytes(b"of an earlier report")
    report([tmp_path], tmp_path)
    assert not (tmp_path / "sparsity-perplexity.png").exists()
    assert "![" not in (tmp_path / "report.md").read_text()
    assert not plot.layers({"layers": []}, tmp_path / "layers.png")


def test_experts_share_a_line_of_the_heat_map_weighted_by_size():
    expert = lambda name, shape, sparsity: {"name": name, "block": "h.7", "shape": shape, "sparsity": sparsity}
    found = sparsities([expert("h.7.mlp.experts.0.w1", [2, 4], 0.25), expert("h.7.mlp.experts.1.w1", [4, 6], 0.75)])
    assert found == {"mlp.experts.*.w1": {"h.7": (8 * 0.25 + 24 * 0.75) / 32}}


def test_the_report_is_the_same_whatever_the_order_of_the_folders(tmp_path):
    put(tmp_path / "a", "wanda", metrics=metrics(24.0))
    put(tmp_path / "b", "magnitude", "2of4", metrics(31.0))
    files = []
    for order in ("ab", "ba", "aab"):
        report([tmp_path / name for name in order], tmp_path / "to")
        files.append({path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()})
    assert files[0] == files[1] == files[2]
    assert set(files[0]) == {"report.md", "report.csv", "sparsity-perplexity.png"}


def test_the_command_writes_into_the_first_folder_and_says_what(runs, capsys):
    assert main([str(runs), str(runs / "demo")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split()[:4] == ["model", "method", "pattern", "sparsity"]
    for name in ("report.md", "report.csv", "sparsity-perplexity.png"):
        assert str(runs / name) in printed.splitlines()[-1] and (runs / name).stat().st_size


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_without_runs_the_command_ends_with_one_line_and_status_1(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "experiments.report", str(tmp_path / folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert str(tmp_path / folder) in done.stderr
