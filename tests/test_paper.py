r"""The LaTeX tables have the table's numbers, print every name as it stands, and compile."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.console.grid import escape
from experiments.reporting.findings import Findings
from experiments.reporting.formats import paper
from experiments.runs.record import read

ODD = r"a_b & 50% {of} #1 $x$ ^~\ <i> | q±1"
PPL = "ppl/text_2@128"


def put(top: Path, method: str, metrics: dict, seed=0, sparsity=0.5, model="demo", pattern="2of4", **manifest) -> str:
    """Writes a run's folder; returns its name."""
    folder = top / model / f"{method}-{pattern}-{sparsity}-{seed}"
    folder.mkdir(parents=True)
    names = {"model": model, "method": method, "pattern": pattern, "sparsity": sparsity, "identity": "0" * 10}
    config = {"model": {"path": model}, "seed": seed, "metric": {"_target_": method}}
    names |= {"status": "done", "config": config, "finished": f"2026-11-2{seed}T10:00:00+00:00"}
    (folder / "manifest.json").write_text(json.dumps(names | manifest))
    dense = {PPL: 17.5, "ppl_stderr/text_2@128": 0.25, "acc/boolq": 0.75, "acc_norm/arc": 0.5}
    results = {"metrics": metrics | {"audit/zeros": sparsity}, "dense": dense}
    (folder / "results.json").write_text(json.dumps(results | {"layers": [], "protocol": {}}))
    return folder.name


def cells(text: str) -> list[list[str]]:
    """The cells of every line of a tabular; one over several columns has empty ones behind it."""
    spread = lambda match: match[2] + " & " * (int(match[1]) - 1)
    text = re.sub(r"\\multicolumn\{(\d)\}\{c\}\{(.*?)\}(?= [&\\])", spread, text)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in lines]


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one method, a single run of another that diverged, and accuracies."""
    for seed, value in ((0, 24.0), (1, 26.0)):
        put(tmp_path, "wanda", {PPL: value, "ppl_stderr/text_2@128": 0.5, "acc/boolq": 0.6, "acc_norm/arc": 0.4}, seed)
    put(tmp_path, "a_b", {PPL: 1.5e7, "acc/boolq": 0.5}, sparsity=0.7, pattern="unstructured")
    put(tmp_path, "nan", {PPL: float("nan")}, sparsity=0.7, pattern="unstructured")
    return tmp_path


def test_rows_are_means_with_their_intervals_and_the_dense_model_comes_first(runs):
    found = Findings(read([runs]))
    (wanda,) = [group.means[PPL] for group in found.groups if group.method == "wanda"]
    perplexity, accuracy = [table for table in paper(found).split(r"\end{table}") if "-budgets-" not in table][:2]
    assert cells(perplexity) == [
        ["Method", "Pattern", "Sparsity", "Seeds", r"text\_2@128"],
        ["dense", "", "", "1", r"$17.500 \pm 0.490$"],
        ["wanda", "2of4", "0.500", "2", rf"$25.000 \pm {wanda.half:.3f}$"],
        [r"a\_b", "unstructured", "0.700", "1", r"$1.50 \times 10^{7}$"],
        ["nan", "unstructured", "0.700", "1", r"$\mathrm{NaN}$"],
    ]
    assert [row[4:] for row in cells(accuracy)[:3]] == [
        ["boolq", "arc (norm.)"],
        ["$75.00$", "$50.00$"],
        [r"$60.00 \pm 0.00$", r"$40.00 \pm 0.00$"],
    ]
    assert r"accuracy (\%) $\uparrow$" in accuracy and "norm.: by the length" in accuracy
    assert perplexity.count(r"\midrule") == 3, "dense, 2:4 and unstructured are set apart"


def test_only_the_cells_that_won_are_bold(runs):
    found = Findings(read([runs]))
    assert "mathbf" not in paper(found)
    found.bold = {(runs / "demo" / "wanda-2of4-0.5-0", PPL)}
    text = paper(found)
    assert re.findall(r"\\mathbf\{([^}]*)\}", text) == ["25.000", "25.000"], "by budget and in full"
    assert text.count("significantly better") == 1


def test_every_line_of_a_tabular_has_its_columns_and_every_brace_an_end(runs):
    text = paper(Findings(read([runs])))
    for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        assert {len(row) for row in cells(tabular[1])} == {len(tabular[0])}
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_comments_name_the_code_and_the_newest_run(runs):
    text = paper(Findings(read([runs])))
    assert text.startswith("% needs \\usepackage{booktabs}\n% newest run of 2026-11-21T10:00:00+00:00\n")
    assert "% code: unknown code\n" in text


def test_odd_names_are_printed_as_they_stand_and_cannot_leave_a_comment(tmp_path):
    assert "\n" not in escape("two\nlines")
    put(tmp_path, "wanda", {PPL: 20.0}, model="evil\n\\input{x}", commit="c\n\\input{y}")
    text = paper(Findings(read([tmp_path])))
    assert [line for line in text.splitlines() if line.startswith(r"\input")] == []
    assert r"\input{" not in "".join(line for line in text.splitlines() if not line.startswith("%"))


def test_every_table_has_a_label_of_its_own_in_ascii_whatever_the_models_are_called(tmp_path):
    names = ["模型", "模型二", "a_b", "a-b", "a b", "A-b", "ü", "é"]
    for name in names:
        put(tmp_path, "wanda", {PPL: 20.0}, model=name)
    labels = re.findall(r"\\label\{(.*)\}", paper(Findings(read([tmp_path]))))
    perplexities = [label for label in labels if label.endswith("-ppl")]
    assert len(set(perplexities)) == len(names) and len(set(labels)) == len(labels)
    assert "tab:a-b-ppl" in labels and all(re.fullmatch("[A-Za-z0-9:.-]+", label) for label in labels)


def test_pdflatex_takes_it(runs, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex (texlive-latex-recommended)")
    put(runs, "m", {PPL: 20.0}, model=ODD.replace("/", ""))
    found = Findings(read([runs]))
    found.bold = {(runs / "demo" / "wanda-2of4-0.5-0", PPL)}
    text = paper(found)
    (tmp_path / "x.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + text + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
