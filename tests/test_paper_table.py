"""The table that papers print: methods as rows, budgets as columns, with the numbers and verdicts of the long one."""

import re
from types import SimpleNamespace

import pytest

from experiments.reporting.findings import Findings
from experiments.reporting.formats import markdown, paper
from experiments.reporting.page import page
from experiments.reporting.paper_table import COLUMNS, first_tables, paper_tables
from experiments.running.multirun import summary
from experiments.runs.record import read
from tests.figures import on_grids, record
from tests.runs import BOOLQ, MEAN, PPL, RTE, change, losses, metrics, put

BUDGETS = (("2of4", 0.5), ("unstructured", 0.5), ("unstructured", 0.6))


def sweep(top):
    """Three methods at three budgets but for one; the windows of the best are clearly better."""
    for shift, method in enumerate(("magnitude", "sparsegpt", "wanda")):
        for place, (pattern, sparsity) in enumerate(BUDGETS):
            if (method, pattern) != ("sparsegpt", "2of4"):
                value = 20.0 + 3 * place + (shift - 1) ** 2
                folder = put(top, method, pattern, metrics(value), sparsity=sparsity)
                losses(folder, [3.0 + value / 100, 3.1 + value / 100, 3.2 + value / 100])


def cells(line: str, mark: str) -> list[str]:
    return [cell.strip() for cell in line.strip(f"{mark} \\").split(mark)]


def test_rows_are_methods_columns_are_budgets_and_a_dash_is_where_no_run_is(tmp_path):
    sweep(tmp_path)
    first, *_ = paper_tables(findings := Findings(read([tmp_path])))["demo"]
    assert (first.metric, first.dense, first.budgets) == (PPL, 17.5, list(BUDGETS))
    assert first.title == f"demo: {PPL} (lower is better)"
    assert first.lines == {
        "magnitude": [(21.0, False), (24.0, False), (27.0, False)],
        "sparsegpt": [(None, False), (23.0, True), (26.0, True)],
        "wanda": [(21.0, False), (24.0, False), (27.0, False)],
    }
    rows = [cells(line, "|") for line in markdown(findings, []).splitlines() if line.startswith("|")]
    assert rows[0] == ["method", "2:4 50 %", "unstructured 50 %", "unstructured 60 %"]
    assert ["dense", "17.500", "17.500", "17.500"] in rows
    assert ["sparsegpt", "-", "**23.000**", "**26.000**"] in rows
    assert r"sparsegpt & -- & $\mathbf{23.000}$ & $\mathbf{26.000}$ \\" in paper(findings).splitlines()
    assert r"dense & \multicolumn{3}{c}{$17.500$} \\" in paper(findings).splitlines()
    html = re.sub(r"\s*\n\s*", "", page(findings, [], tmp_path))
    assert '<th scope="row">sparsegpt</th><td class="number">&ndash;</td><td class="number"><strong>23.000</s' in html
    assert re.split(r"\s{2,}", first_tables(findings)[0].splitlines()[7]) == ["sparsegpt", "-", "*23.000", "*26.000"]


def test_a_dense_model_that_a_run_measured_beside_its_own_is_not_bold_with_it(tmp_path):
    for method, value in (("aaa", 18.0), ("wanda", 24.0)):  # the dense row is of the first run
        losses(put(tmp_path, method, metrics=metrics(value)), [3.0 + value / 100, 3.1 + value / 100])
    html = page(Findings(read([tmp_path])), [], tmp_path)
    assert html.count("<strong>18.000</strong>") == 1 and "<strong>17.500" not in html


def test_the_metric_that_most_runs_share_comes_first_and_the_mean_before_its_tasks(tmp_path):
    sweep(tmp_path)
    for folder in (tmp_path / "demo").glob("*0.6-*"):
        change(folder, metrics={BOOLQ: 0.5, RTE: 0.5, MEAN: 0.5})
    tables = paper_tables(findings := Findings(read([tmp_path])))["demo"]
    assert [table.metric for table in tables] == [MEAN, PPL, BOOLQ, RTE]
    assert tables[0].title == f"demo: {MEAN} % (higher is better)" and len(tables[1].budgets) == 2
    text = paper(findings)
    assert r"accuracy (\%) $\uparrow$, mean, by method and budget" in text and "boolq, by method" not in text


@pytest.mark.parametrize(
    "runs",
    [
        [("wanda", "2of4", 0.5)],
        [("wanda", "2of4", 0.5), ("ria", "2of4", 0.5)],
        [("wanda", "2of4", 0.5), ("wanda", "unstructured", 0.5)],
        [("wanda", "2of4", 0.5), ("ria", "4of8", 0.5), ("owl", "unstructured", 0.5)],
    ],
)
def test_where_no_numbers_stand_side_by_side_there_is_no_such_table(tmp_path, runs):
    for method, pattern, sparsity in runs:
        put(tmp_path, method, pattern, metrics(20.0), sparsity=sparsity)
    findings = Findings(read([tmp_path]))
    assert not paper_tables(findings) and "by method and budget" not in paper(findings)
    assert "Methods by budget" not in page(findings, [], tmp_path)


def test_many_budgets_are_parted_and_every_number_is_in_one_part(tmp_path):
    for pattern in ("1of4", "unstructured"):
        for place in range(1, 10):
            put(tmp_path, "wanda", pattern, metrics(20.0 + place), sparsity=place / 10)
    tables = [table for table in paper_tables(Findings(read([tmp_path])))["demo"] if table.metric == PPL]
    assert max(len(table.budgets) for table in tables) <= COLUMNS
    assert all(len({pattern for pattern, _ in table.budgets}) == 1 for table in tables)
    values = [value for table in tables for value, _ in table.lines["wanda"]]
    assert values == [*range(21, 30), *range(21, 30)]


def test_what_rows_and_columns_hide_is_said_below(tmp_path):
    data = {"name": "text", "sequences": 8, "length": 64}
    for method, sequences, seeds in (("ria", 8, (0, 1)), ("wanda", 16, (0,))):
        for seed in seeds:
            config = {"model": {"path": "demo"}, "seed": seed, "data": {"sequences": sequences}}
            facts = {"data": data | {"sequences": sequences}, "config": config, "identity": str(seed)}
            folders = [
                put(tmp_path, method, "unstructured", metrics(20.0 + seed), sparsity=s, **facts) for s in (0.5, 0.6)
            ]
    change(folders[1], metrics=metrics(20.0) | {"audit/zeros": 0.43})
    (table, *_) = paper_tables(Findings(read([tmp_path])))["demo"]
    assert table.lines["ria"] == [(20.5, False), (20.5, False)]
    assert table.notes == [
        "not alike in all rows: calibration is 8 x 64 of text (ria); 16 x 64 of text (wanda)",
        "means over up to 2 seeds: ria",
        "removed, other than asked: 0.4300 by wanda at unstructured 60 %",
    ]


def test_a_row_over_two_versions_of_the_code_says_so(tmp_path):
    for code, sparsity in (("c1", 0.5), ("c2", 0.6), ("c2", 0.7)):
        made = {"metric": {"code": code}, "allocator": {"sparsity": sparsity}, "model": {"path": "1"}}
        put(tmp_path, "wanda", metrics=metrics(20.0), sparsity=sparsity, content=made)
    (table, *_) = paper_tables(Findings(read([tmp_path])))["demo"]
    assert table.notes == ["wanda is not of one make in all columns: metric.code"]


def test_one_setting_in_two_folders_is_in_two_rows(tmp_path):
    sweep(tmp_path / "a")
    put(tmp_path / "b", "wanda", "2of4", metrics(99.0))
    (table, *_) = paper_tables(Findings(read([tmp_path])))["demo"]
    assert table.lines["wanda"][0] == (21.0, False) and table.lines["wanda, again"] == [
        (99.0, False),
        *[(None, False)] * 2,
    ]


def test_settings_of_a_method_are_one_row_whatever_the_pattern(tmp_path):
    """Only one pattern has both texts: its rows are those of the other pattern, too."""
    for text, pattern, sparsity in (("a", *BUDGETS[0]), ("a", *BUDGETS[1]), ("b", *BUDGETS[1]), ("a", *BUDGETS[2])):
        data = {"_target_": "experiments.data.files.TextFile", "path": f"/t/{text}.jsonl.gz"}
        config = {"model": {"path": "demo"}, "data": data, "pattern": {"_target_": pattern}}
        put(tmp_path, "wanda", pattern, metrics(20.0), sparsity=sparsity, config=config, identity=text)
    (table, *_) = paper_tables(Findings(read([tmp_path])))["demo"]
    assert {name: [value for value, _ in values] for name, values in table.lines.items()} == {
        "wanda (data=a)": [20.0, 20.0, 20.0], "wanda (data=b)": [None, 20.0, None],
    }  # fmt: skip


def test_a_multirun_ends_with_its_methods_by_budget(tmp_path):
    sweep(tmp_path)
    job = lambda folder: SimpleNamespace(words=(f"experiment={folder.name}",), run=SimpleNamespace(folder=folder))
    jobs = list(map(job, sorted((tmp_path / "demo").iterdir())))
    assert f"\n\ndemo: {PPL} (lower is better)\n\nmethod" in summary(jobs)
    assert "is better" not in summary(jobs[:2])


def test_there_is_a_column_of_bits_where_runs_are_quantised(tmp_path):
    coded = [on_grids(record("gptq", 20.0 + share, sparsity=share)) for share in (0.5, 0.25)]
    plain = [record("wanda", 15.0 + share, sparsity=share) for share in (0.5, 0.25)]
    findings = Findings([*coded, *plain])
    ((first, *_),) = paper_tables(findings).values()
    few, many = (f"{run.bits.linears.masked:.3f}" for run in coded)
    assert float(few) < float(many) and first.bits == {"dense": "16.000", "gptq": f"{few} to {many}", "wanda": ""}
    lines = [re.split(r"\s{2,}", line.strip()) for line in first_tables(findings)[0].splitlines()]
    assert ["gptq", f"{few} to {many}", "20.250", "20.500"] in lines and ["wanda", "15.250", "15.500"] in lines
    assert "note: bits: per weight of the pruned matrices, with grids and masks" in first_tables(findings)[0]
    assert r"dense & 16.000 & \multicolumn{2}{c}{$10.000$} \\" in paper(findings)
    assert f'<td class="number">{few} to {many}</td>' in page(findings, [], tmp_path)
