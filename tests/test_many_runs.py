"""A report over thousands of runs."""

import time

import pytest

from experiments.report import write
from experiments.reporting.findings import Findings
from experiments.runs.record import read
from tests.runs import many


@pytest.mark.slow
def test_a_report_over_three_thousand_runs_is_small_soon_made_and_writes_details_when_asked(tmp_path, browser):
    many(tmp_path, 3000)
    start = time.process_time()
    write(Findings(read([tmp_path])), tmp_path)
    assert time.process_time() - start < 50  # 25 on a machine at rest
    report = tmp_path / "report.html"
    assert report.stat().st_size < 6e6
    tab = browser.new_page()
    tab.goto(report.as_uri())
    assert tab.inner_text("#shown") == "73 rows" and tab.locator("tr.member").count() == 3000
    runs = tab.locator("details.run")
    assert runs.count() == 3000 and tab.locator("details.run dl").count() == 0
    tab.goto(report.as_uri() + "#run-demo-method7-unstructured-0.5-0000002911")
    tab.locator("details.run:target dl").wait_for()
    assert "0000002911" in tab.locator("details.run:target dl").inner_text()
    assert tab.locator("details.run dl").count() == 1
