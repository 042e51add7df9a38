"""The benchmark measures what is pruned, beside a floor that no run can be under by much."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from experiments import bench
from experiments.benchmarking import costs, methods
from experiments.benchmarking.costs import Case, Cost, Speed
from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.runs import machine, provenance
from prune.clock import clocked, stage
from tests import tiny

CASE = Case("small", 1, 2, 32)
SPEED = Speed(7e10, 7e10, 7e10, 7e10, 2e10)
MADE = ("small x1, 2 x 32", "wanda", "2026-11-30T12:00:00+00:00", "0123456789")
COST = Cost(*MADE, 2.0, {"select": 0.5}, (2, 0), 1e9, 1.0, 1.6, 3_000_000, None, 1_000_000, SPEED)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return list(
        costs.costs(CASE, ["magnitude", "sparsegpt", "barber"], "cpu", "float32", tmp_path_factory.mktemp("bench"))
    )


@pytest.mark.slow
def test_every_method_is_measured_with_its_stages_passes_and_operations(found):
    magnitude, sparsegpt, barber = found
    assert [cost.method for cost in found] == ["magnitude", "sparsegpt", "barber"]
    assert (magnitude.passes, sparsegpt.passes) == ((0, 0), (2, 0)) and barber.passes[1] == 1
    assert all(cost.seconds == pytest.approx(sum(cost.stages.values())) for cost in found)
    weights = 4 * 512**2 + 3 * 512 * 1376
    assert magnitude.operations == 0 and sparsegpt.operations > 2 * 2 * 2 * 32 * weights, "two passes, two per weight"
    assert sparsegpt.needed == 4 * (weights + 3 * 512**2 + 1376**2 + 2 * 32 * 512), (
        "weights, Gram matrices, activations"
    )
    assert magnitude.of_forwards is None and all(cost.of_forwards > 0 for cost in (sparsegpt, barber))
    assert all(cost.floor > 0 for cost in found) and min(sparsegpt.host, barber.host) > 1e6, (
        "of each, not of all before"
    )


@pytest.mark.slow
def test_settings_behind_a_method_are_measured_with_it(tmp_path):
    short, long = costs.costs(Case("small", 1, 2, 8), ["besa", "besa allocator.epochs=3"], "cpu", "float32", tmp_path)
    assert [short.passes, long.passes] == [(3, 1), (5, 3)] and long.method == "besa allocator.epochs=3"


def test_a_record_keeps_the_shortest_time_of_each_case(tmp_path):
    file, facts = tmp_path / "r.json", machine.facts("cpu") | {"versions": provenance.versions()}
    methods.keep(file, COST, facts)
    methods.keep(file, replace(COST, seconds=3.0), facts)
    assert methods.read(file)[COST.case, "wanda"].seconds == 2.0
    methods.keep(file, replace(COST, seconds=1.5), facts)
    methods.keep(file, replace(COST, method="admm"), facts)
    kept = methods.read(file)
    assert kept[COST.case, "wanda"].seconds == 1.5 and len(kept) == 2
    assert json.loads(file.read_text())["machine"] == facts
    page = file.with_suffix(".md").read_text()
    assert facts["chip"] in page and "| wanda" in page and "| admm" in page and "70.0" in page, "for people"


def test_the_tables_say_how_much_faster_what_memory_is_needed_and_where_the_seconds_go():
    earlier = {(COST.case, "wanda"): replace(COST, seconds=3.0)}
    header, _, line, _, title, _, names, _, stages = methods.table([COST], earlier).splitlines()
    cell = lambda name: line[: header.index(name) + len(name)].split()[-1]  # numbers end where their header does
    assert (cell("ratio"), cell("faster"), cell("of needed"), cell("of forwards")) == ("2.00", "1.50", "3.00", "1.25")
    assert title == "seconds by stage" and names.split()[2:] == ["select"] and stages.split()[-1] == "0.50"


@pytest.mark.slow
def test_a_measurement_is_shown_beside_the_best_of_earlier_ones_in_outputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "methods --blocks 1 --sequences 1 --length 16 --methods magnitude"
    said = [(bench.main(line.split()), capsys.readouterr().out)[1].splitlines()[0].split() for _ in range(2)]
    assert "faster" not in said[0] and "faster" in said[1]
    (file,) = Path("outputs/bench").glob("*.json")
    assert [name for _, name in methods.read(file)] == ["magnitude"]


def test_cpu_time_has_no_seconds_in_which_nothing_was_computed():
    with clocked(costs.CPUClock()) as clock, stage("asleep"):
        time.sleep(0.2)
    assert clock.seconds["asleep"] < 0.1


def test_mistakes_get_one_line(capsys, tmp_path):
    assert bench.main(["methods", "--case", "no-model", "--methods", "wanda"]) == 2
    assert bench.main(["methods", "--methods", "wnda", "--blocks", "1", "--sequences", "1", "--length", "8"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: ") and "not there" in told[0] and "wanda" in told[1]


def test_a_model_that_is_read_from_its_files_is_measured_too(monkeypatch, tmp_path):
    """As the real ones of ../shared are."""
    small = tiny.network()
    small.model.save_pretrained(tmp_path / "data/models/tiny")
    (tmp_path / "parity").mkdir()
    save_file({"tokens": tiny.tokens()}, tmp_path / "parity/tiny-calib.safetensors")
    monkeypatch.setattr(costs, "SHARED", tmp_path)
    (cost,) = costs.costs(Case("tiny", None, None, None), ["wanda"], "cpu", "float32", tmp_path)
    assert cost.passes == (2, 0) and cost.of_forwards > 0


def test_smollm2_is_measured_on_as_many_of_its_tokens_as_are_asked_for_and_whole(shared, tmp_path, capsys):
    line = ["methods", "--case", "smollm2"]
    (case,) = methods.cases(bench.parser().parse_args([*line, "--sequences", "3", "--length", "64"]))
    lines = case.overrides(tmp_path, "float32")
    assert case.name == "smollm2, 3 x 64" and "model.path=smollm2" in lines
    with composing(lines):
        config = compose_job([*lines, "experiment=wanda"]).config
    assert case.tokens(config).shape == (3, 64)
    assert replace(case, cpu=True).name == "smollm2, 3 x 64, CPU time"
    assert bench.main([*line, "--blocks", "1"]) == 2
    assert "error: --blocks=1: smollm2 is a real model, measured whole" in capsys.readouterr().err
