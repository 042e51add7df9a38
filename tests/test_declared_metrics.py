"""What an evaluation declares of its own numbers is what every reader goes by: direction, unit, columns, pictures."""

import json

import pytest

from experiments.console import families
from experiments.console.text import digits
from experiments.figures import curves
from experiments.figures.values import sign, spread
from experiments.reporting.findings import Findings
from experiments.reporting.formats import markdown, paper
from experiments.reproduction.cells import Outcome
from experiments.reproduction.methods import quality
from experiments.runs.difference import paired_error
from experiments.runs.protocol import compared
from experiments.runs.record import Record, load
from experiments.summary.rows import column_title, readable, render
from experiments.summary.seeds import grouped
from tests.runs import change, metrics, put

OWN = {
    "far": {"title": "distance", "higher": False, "percent": False, "main": True, "difference": False},
    "near": {"title": "nearness", "higher": True, "percent": True, "main": False, "difference": True},
}
FAR, NEAR = "far/text@128", "near/text@128"


@pytest.fixture(autouse=True)
def forgotten():
    """What a test declares is unknown to the next one."""
    before = dict(families.KNOWN)
    yield
    families.KNOWN.clear()
    families.KNOWN.update(before)


def pair(top):
    """Two runs with numbers of these families; the first one is farther."""
    for method, far, near in (("magnitude", 2.0, 0.5), ("wanda", 1.0, 0.75)):
        own = {FAR: far, "far_stderr/text@128": 0.1, NEAR: near, "near_stderr/text@128": 0.01}
        folder = put(top, method, metrics=metrics(20.0, **own))
        told = json.loads((folder / "results.json").read_text())
        change(folder, families=OWN, step=told["step"] | dict.fromkeys((FAR, NEAR), "distance-1"))
        yield load(folder)


def test_a_declared_family_is_compared_in_its_own_direction_and_unit(tmp_path):
    findings = Findings(list(pair(tmp_path)))
    first = compared(findings.records[0].results)
    assert first.index("ppl/text@128") < first.index(FAR) < first.index(NEAR) < first.index("acc/mean")
    best = {contest.metric: contest.best.method for contest in findings.contests}
    assert best[FAR] == best[NEAR] == "wanda"
    assert (sign(FAR), sign(NEAR)) == (1, -1)
    assert digits(FAR, 1.25) == "1.25000" and digits(NEAR, 0.75) == "75.00" and column_title(NEAR) == f"{NEAR} %"
    assert FAR in readable(findings.metrics) and NEAR not in readable(findings.metrics)


def test_what_is_left_of_the_dense_quality_goes_by_the_direction_that_is_declared():
    families.learn(OWN)
    left = families.recovery
    assert left("ppl/x", 20.0, 10.0) == 0.5 and left("ppl/x", float("inf"), 10.0) == 0
    assert left("acc/x", 0.3, 0.4) == pytest.approx(0.75) and left(NEAR, 0.5, 1.0) == 0.5 and left(NEAR, 0.0, 1.0) == 0
    families.learn({"bits": {"title": "bits per byte"}})
    assert left("bits/x", 4.0, 1.0) == 0.25
    for key, value, dense in (
        (FAR, 2.0, 0.0),
        (FAR, 2.0, 1.0),
        (NEAR, 0.1, 0.0),
        ("audit/x", 0.5, 0.5),
        ("ppl/x", 1.0, None),
    ):
        assert left(key, value, dense) is None
    outcome = lambda value: Outcome(
        record=Record(None, {}, {"dense": {NEAR: 0.0, FAR: 0.0}}, "done"), metrics={NEAR: value, FAR: value}
    )
    for metric in (NEAR, FAR):
        assert quality(metric, [outcome(0.5), outcome(0.25)])["recovery"] is None


def test_what_has_no_difference_to_the_dense_model_stands_alone_with_its_own_interval(tmp_path):
    findings = Findings(list(pair(tmp_path)))
    header = render(findings.table).splitlines()[0].split()
    assert header[header.index(FAR) + 1] != "difference" and header[header.index("ppl/text@128") + 1] == "difference"
    wanda = next(group for group in grouped(findings.table) if group.method == "wanda")
    assert spread(wanda, FAR) == (1.0, pytest.approx(0.196))


def test_the_formats_of_the_report_say_what_it_is(tmp_path):
    findings = Findings(list(pair(tmp_path)))
    text = markdown(findings, [])
    assert "`far/...` distance (lower is better), `near/...` nearness (higher is better)" in text
    table = paper(findings).partition(r"pruned and dense: distance $\downarrow$")[2].partition(r"\end{table}")[0]
    assert "wanda" in table and "\ndense" not in table, "a divergence from the dense model has no row for it"


def test_one_family_cannot_be_two_things(tmp_path):
    first, second = pair(tmp_path)
    change(second.folder, families={"far": OWN["far"] | {"higher": True}})
    again = load(second.folder)
    assert first.status == "done" and again.status == "unreadable" and "metrics far/...: " in again.error


def test_scores_of_windows_are_paired_as_those_of_examples_are():
    first, second = ({"details": {"scores": {FAR: values}}} for values in ([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]))
    assert paired_error(first, second, FAR) == 0


def test_curves_have_a_panel_for_it_beside_the_perplexity(tmp_path):
    every = curves.panels(Findings(list(pair(tmp_path))).groups)
    assert [panel.metric for panel in every.values()] == ["ppl/text@128", FAR]
    assert every[f"demo, {FAR}"].dense is None and every["demo, ppl/text@128"].dense == 17.5
    drawn = curves.draw(Findings(list(pair(tmp_path / "again"))).groups)
    labels = {axes.get_xlabel().replace("\n", " ") for axes in drawn.axes}
    assert labels == {"perplexity (lower is better)", "distance (lower is better)"}


def test_another_title_is_no_other_family(tmp_path):
    _, second = pair(tmp_path)
    change(second.folder, families={"far": OWN["far"] | {"title": "in other words"}})
    assert load(second.folder).status == "done" and families.KNOWN["far"].title == "distance"
