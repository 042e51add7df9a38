"""What a method costs is its cost from nothing, whatever of it lay in the cache or was done by an earlier command."""

import json
from pathlib import Path

import pytest

from experiments.compare import main as compare
from experiments.console.text import size
from experiments.files.disk import seal, sealed
from experiments.reporting.details import stages
from experiments.reproduction.methods import cost
from experiments.running import pipeline
from experiments.runs import machine
from experiments.runs.folder import Run
from experiments.runs.record import load
from experiments.runs.stores import BlockStore
from experiments.summary.rows import single
from experiments.trackers.wandb import scalars
from tests.answers import answer, place, run
from tests.faults import ask, settings

ON_LINUX = pytest.mark.skipif(not machine.NOW.exists(), reason="only Linux tells what is resident now")
LONG = 1000.0  # seconds that this test says making took


def retold(file, **facts):
    """Seals a file anew with other facts; None leaves one out."""
    told = {name: fact for name, fact in (sealed(file) | facts).items() if fact is not None}
    seal(file, told)


@pytest.fixture
def twice(tmp_path):
    """A place where gradients were found for one run, and what sealed them."""
    here = place(tmp_path)
    first, _ = answer("experiment=gblm eval=[]", here)
    (sealed_by,) = here.glob("out/cache/surveys/LossGradient-*/complete.json")
    return here, first, sealed_by


def test_what_was_found_in_the_cache_is_charged_to_every_method_that_needs_it(twice, capsys):
    here, first, sealed_by = twice
    made = json.loads(sealed_by.read_text())
    assert first["saved"] == {"prune": 0.0} and 0 < made["seconds"] < first["seconds"]["prune"]
    retold(sealed_by, seconds=LONG, peaks={"host_peak": 2**40, "device_peak": None})
    second, said = answer("experiment=gblm metric.alpha=7 eval=[]", here)
    assert LONG - 1 < second["seconds"]["prune"] < LONG + 60
    assert LONG - 60 < second["saved"]["prune"] <= LONG
    assert second["stage_memory"]["prune"]["host_peak"] == second["memory"]["host_peak"] == 2**40
    assert second["stage_memory"]["prune"]["host_added"] is None, "these gradients do not say what they added"
    assert "prune 16.7 min (16.7 min of it spent earlier)" in said
    assert scalars(second)["saved/prune"] == second["saved"]["prune"]
    folders = [str(folder.parent) for folder in here.glob("out/*/gblm*/manifest.json")]
    assert compare(folders) == 0 and "16.7 min of prune were spent earlier" in capsys.readouterr().out


def test_a_survey_that_does_not_say_what_it_cost_makes_the_cost_unknown(twice):
    here, _, sealed_by = twice
    retold(sealed_by, seconds=None, peaks=None)
    results, said = answer("experiment=gblm metric.alpha=7 eval=[]", here)
    assert "prune" not in results["seconds"] and "prune" not in results["stage_memory"]
    assert results["seconds"]["prune at least"] > 0 and "prune at least" in said
    assert "seconds/prune" not in scalars(results)


def test_a_run_of_an_earlier_version_does_not_say_what_it_found_so_its_cost_is_the_least(twice):
    here = twice[0]
    answer("experiment=wanda eval=[]", here)
    for folder in (file.parent for file in here.glob("out/*/*/results.json")):
        retold(folder / "results.json", saved=None)
        told, said = load(folder).results["seconds"], single(folder)
        assert (
            ("prune at least" in told) == ("prune at least" in said) == ("gblm" in folder.name) == ("prune" not in told)
        )


@pytest.mark.parametrize("method", ["wanda", "gblm"])
def test_a_run_that_was_killed_is_charged_with_the_blocks_that_it_had_solved(tmp_path, monkeypatch, method):
    here, words = place(tmp_path), f"experiment={method} eval=[]"

    def killed(record, solved, *_):
        raise ValueError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "tabulate_block", killed)
        assert ask(*settings(f"{words} outputs={here / 'out'}", here)).code == 1
    (block,) = here.glob("out/*/*/blocks/*.safetensors")
    solved = BlockStore(block.parents[1]).load(block.stem)
    solved.seconds = LONG
    BlockStore(block.parents[1]).save(solved)
    results, _ = answer(words, here)
    assert LONG - 1 < results["saved"]["prune"] <= LONG + 60
    assert results["saved"]["prune"] < results["seconds"]["prune"] < LONG + 60


def test_a_method_that_takes_over_masks_costs_what_they_cost_too(tmp_path, capsys):
    here = place(tmp_path)
    answer("update=sparsegpt given=wanda eval=[]", here)
    (masks,) = here.glob("out/*/wanda-*")
    seconds = sealed(masks / "results.json")["seconds"]
    retold(masks / "results.json", seconds=seconds | {"prune": LONG}, stage_memory={"prune": {"host_peak": 2**40}})
    results, said = answer("update=sparsegpt given=wanda update.damping=0.1 eval=[]", here)
    assert results["given"] == {"prune": LONG} and LONG < results["seconds"]["prune"] < LONG + 60
    assert results["stage_memory"]["prune"]["host_peak"] == 2**40 and not results["saved"].get("prune")
    assert "(16.7 min of it spent on the masks that are given)" in said
    built = run(said)
    assert [row[1] for row in stages(load(built)) if "masks" in row[0]] == ["1000.00"]
    assert compare([str(built), str(masks)]) == 0
    assert "A: 16.7 min of prune were spent on the masks that are given" in capsys.readouterr().out
    retold(built / "results.json", given=None)  # as an earlier version left it
    assert "prune" not in load(built).results["seconds"] and "prune at least" in single(built)


def test_one_part_of_a_cost_that_nobody_knows_makes_it_the_least_whatever_else_is_known():
    run = Run(Path(), {}, seconds={"prune": 4.0}, memory={"prune": {"host_peak": 1}})
    for seconds in (1.0, None, 2.0, None):
        run.charge("prune", seconds)
    run.charge("prune", 3.0, {"host_peak": 9}, given=True)
    assert (run.seconds, run.saved, run.given) == ({"prune at least": 5.0}, {}, {})
    assert run.memory == {"prune at least": {"host_peak": 1}}


@ON_LINUX
def test_what_was_resident_before_is_told_beside_the_peak(tmp_path):
    results, said = answer("experiment=magnitude eval=[]", place(tmp_path))
    peak, before = (size(results["memory"][name]) for name in ("host_peak", "host_before"))
    assert f"peak memory {peak} ({before} before it began)" in said


def test_another_evaluation_of_a_run_leaves_its_cost(tmp_path):
    here, words = place(tmp_path), "experiment=wanda save_model=true"
    before, _ = answer(f"{words} eval=[]", here)
    after, _ = answer(f"{words} eval=[audit]", here)
    assert after["seconds"]["prune"] == before["seconds"]["prune"]


@ON_LINUX
def test_what_ran_before_in_the_process_and_is_free_is_not_in_the_peak_of_a_run(tmp_path):
    here = place(tmp_path)
    answer("experiment=magnitude eval=[]", here)  # imports what it needs
    rubble = [bytes([k % 256]) * 1000 for k in range(300_000)]
    last = rubble[-1]  # the heap cannot shrink below it
    before = machine.resident()
    del rubble
    results, _ = answer("experiment=magnitude eval=[]", here, "other")
    memory, prune = results["memory"], results["stage_memory"]["prune"]
    assert prune["host_added"] == prune["host_peak"] - memory["host_before"]
    assert last and memory["host_before"] < before - 200 * 2**20 and memory["host_before"] <= memory["host_peak"]


class Cell:
    def __init__(self, seconds):
        self.record = type("Told", (), {"results": {"seconds": seconds, "memory": {}}})


def test_a_table_of_costs_goes_by_the_runs_whose_cost_is_known():
    known, least = Cell({"prune": 4.0}), Cell({"prune at least": 1.0})
    assert cost([known, least, Cell({"prune": 6.0})])["seconds"] == 5.0
    assert cost([least])["seconds"] is None and cost([least])["at_least"] == 1.0
