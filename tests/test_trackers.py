"""Trackers: what they refuse, and that every logged number is on disk."""

import inspect
import json
from pathlib import Path

import pytest
import yaml

from experiments.trackers.jsonl import Jsonl
from experiments.trackers.wandb import COLUMNS, Wandb, tables

ROOT = Path(__file__).parents[1]


def test_jsonl_has_one_line_per_call_with_the_same_numbers(tmp_path):
    tracker = Jsonl()
    tracker.check()
    tracker.start(tmp_path, {"identity": "aaaa0001"})
    tracker.log({"block/error": 0.1}, step=3)
    tracker.log({"ppl/x@128": 1e30, "acc/x": float("inf")})
    assert (tmp_path / "metrics.jsonl").read_text().endswith("\n"), "on disk before the run ends"
    tracker.finish(tmp_path, "done")
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first.pop("time") <= second.pop("time")
    assert (first, second) == ({"step": 3, "block/error": 0.1}, {"ppl/x@128": 1e30, "acc/x": float("inf")})


def test_a_restarted_run_goes_on_behind_what_a_crash_left(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "block/error": 0.5}\n{"step": 1, "blo')
    tracker = Jsonl()
    tracker.start(tmp_path, {"identity": "aaaa0001"})
    tracker.log({"block/error": 0.25}, step=1)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"step": 0, "block/error": 0.5}', '{"step": 1, "blo']
    assert json.loads(lines[2])["restarted"] == "aaaa0001"
    assert json.loads(lines[3])["block/error"] == 0.25


@pytest.mark.parametrize(("name", "kind"), [("jsonl", Jsonl), ("wandb", Wandb)])
def test_every_parameter_is_in_the_yaml_with_its_default(name, kind):
    options = yaml.safe_load((ROOT / "conf" / "tracker" / f"{name}.yaml").read_text())[name]
    assert options.pop("_target_") == f"{kind.__module__}.{kind.__name__}"
    assert options == {key: value.default for key, value in inspect.signature(kind).parameters.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "ofline"}, "expected online, offline, disabled or null"),
        ({"project": "a/b"}, "expected a name without"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_run(options: dict, message):
    with pytest.raises(ValueError, match=message):
        Wandb(**options).check()


def test_the_table_of_matrices_has_bits_and_zeros_of_quantised_ones_beside_the_share_of_the_mask():
    plain = {"name": "h.0.q", "block": "h.0", "shape": [4, 8], "target": 0.5, "sparsity": 0.4375, "notes": {}}
    layers = [plain, plain | {"bits": 4, "grids": 1, "zeros": 0.625}]
    told = [dict(zip(COLUMNS["layers"], row, strict=True)) for row in tables({"layers": layers})["layers"]]
    assert [[row["sparsity"], row["bits"], row["zeros"]] for row in told] == [[0.4375, None, None], [0.4375, 4, 0.625]]
