"""The table of what chains and dense targets give back: its runs, and the share of the gap that a method closes."""

from math import exp, log
from pathlib import Path

import pytest

from experiments import table as reproduction
from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.reproduction import cells, methods
from experiments.reproduction.cells import Cell, Outcome
from experiments.runs.record import Record

KEY, DENSE, ADMM = "ppl/text@256", 10.0, 20.0


@pytest.fixture
def best(shared, tmp_path):
    return cells.load(reproduction.TABLES / "best.yaml", [f"outputs={tmp_path}"])


def outcomes(ends: dict[str, list[float]], windows: dict[str, int] | None = None, dense: float = DENSE):
    """Runs at 50 % on stories-260k that measured these perplexities, by method and seed."""
    found = {}
    for method, values in ends.items():
        sequences = (windows or {}).get(method, 128)
        data = {"name": "text", "sequences": sequences, "length": 256, "sha256": str(sequences)}
        manifest = {"data": data, "config": {"data": {"sequences": sequences, "seed": 0}}}
        record = Record(Path("run"), manifest, {"dense": {KEY: dense}}, "done")
        cells_of = {Cell("stories-260k", method, "50%", seed, ()): value for seed, value in enumerate(values)}
        found |= {cell: Outcome(value, record=record, metrics={KEY: value}) for cell, value in cells_of.items()}
    return found


def row(text: str, method: str) -> str:
    """What the block of shares says of a method at 50 %."""
    block = text.partition("share of admm's remaining log-perplexity gap that is closed")[2].partition("##")[0]
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in block.splitlines() if line.startswith("|")]
    return next((cells[1] for cells in rows if cells[0] == method), "no row")


def between(share: float, start: float = ADMM) -> float:
    """The perplexity that closes this share of the gap from `start` to the dense one, on a scale of logarithms."""
    return exp(log(start) + share * (log(DENSE) - log(start)))


def test_the_share_is_of_the_log_perplexity_that_admm_loses_paired_by_seed(best):
    starts = [ADMM, 25.0, 40.0]
    ends = {name: [between(s, a) for s, a in zip(shares, starts, strict=True)] for name, shares in {
        "admm": [0.0] * 3, "admm+target": [0.5, 0.6, 0.7], "alps": [-0.25] * 3, "best": [1.0] * 3,
    }.items()}  # fmt: skip
    files = methods.files(best, outcomes(ends))
    assert row(files[".md"], "admm") == "0.0 ± 0.0 %" and row(files[".md"], "best") == "100.0 ± 0.0 %"
    assert row(files[".md"], "alps") == "-25.0 ± 0.0 %"
    assert row(files[".md"], "admm+target") == f"60.0 ± {100 * 4.3027 * 0.1 / 3**0.5:.1f} %"
    assert row(files[".md"], "sparsegpt") == ""
    header, *lines = files[".csv"].splitlines()
    told = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert {line["method"]: round(float(line["closed"]), 9) for line in told}["admm+target"] == 0.6
    assert "log-perplexity gap that is closed" in files[".tex"]


def test_one_seed_has_no_interval_and_a_seed_without_a_partner_does_not_count(best):
    ends = {"admm": [ADMM], "best": [between(0.5), 1.0]}
    assert row(methods.files(best, outcomes(ends))[".md"], "best") == "50.0 %"


def test_no_share_where_admm_loses_nothing_or_the_windows_are_others(best):
    ends = {"admm": [ADMM], "best": [15.0]}
    for found in (outcomes(ends, dense=21.0), outcomes(ends, windows={"best": 64}), outcomes({"best": [15.0]})):
        assert row(methods.files(best, found)[".md"], "best") in ("", "no row")


def test_its_cells_are_runs_of_their_own_and_what_their_names_say(best):
    every = methods.cells(best)
    assert len({cell.overrides for cell in every}) == len(every) == 4 * 3 * 12 * 4
    chosen = {cell.method: cell for cell in every} | {(c.model, c.budget): c for c in every if c.method == "best"}
    with composing():
        for cell in chosen.values():
            job = compose_job(list(cell.overrides))
            first, *words = ("admm+target+reconstruct" if cell.method == "best" else cell.method).split("+")
            assert job.config["update"]["_target_"].lower().endswith(f".{first}"), cell
            assert list(job.config["then"]) == [word for word in words if word == "reconstruct"], cell
            assert job.config["correction"] == (0.5 if "target" in words else 0.0), cell
            assert job.config["pattern"].get("m", 0) == {"2:4": 4, "4:8": 8}.get(cell.budget, 0)
            assert job.config["data"]["sequences"] == 128 and (cell.method != "best" or job.names.method == "best")
