"""The tables of parity: released numbers stand beside runs with the released settings, those of SmolLM2 too."""

import json

import pytest
from safetensors.torch import load_file

from experiments import table as reproduction
from experiments.reproduction import cells, parity
from experiments.reproduction.cells import Outcome
from tests.test_table import CODE, cell, lines


def load(name):
    """The YAML of a table."""
    return cells.load(reproduction.TABLES / f"{name}.yaml")


def test_the_released_numbers_of_smollm2_are_those_of_its_table_at_the_same_tokens(shared):
    spec = load("parity_smollm2")
    rows = json.loads((shared / "parity" / "smollm2-135m.json").read_text())["rows"]
    assert {c.method for c in parity.cells(spec)} == {row["method"] for row in rows}
    tokens = {
        name: load_file(shared / "parity" / "smollm2" / f"{name}.safetensors")["tokens"] for name in ("calib", "eval")
    }
    protocol = {"length": tokens["calib"].shape[1], "window": tokens["eval"].shape[1]}
    for row in rows:
        assert {f"data.sequences={row['sequences']}", f"eval.perplexity.windows={row['windows']}"} <= {
            *spec["overrides"]
        }
        assert {name: row[name] for name in protocol} == protocol
    ours = {cell("wanda", model="smollm2"): Outcome(54.0, 23.08, 0.5, CODE)}
    text = parity.files(spec, ours)[".md"]
    assert lines(text, "wanda")[0][2:] == ["54.0000", "54.1772", "-0.33", "0.500000", "0.500000", "yes (1 %)"]
    assert "Dense: ours 23.0800, released 23.0841." in text


@pytest.mark.parametrize(("typed", "judged"), [("data.sequences=8", ""), ("batch=2", "yes (1 %)")])
def test_runs_with_other_settings_than_the_released_ones_stand_alone(shared, typed, judged):
    ours = {cell("wanda"): Outcome(5.6, 2.6354, 0.5, CODE)}
    text = parity.files(load("parity") | {"typed": (typed,)}, ours)[".md"]
    assert lines(text, "wanda")[0][-1] == judged
    assert ("so nothing is compared: data.sequences=8." in text, "released not compared" in text) == (not judged,) * 2
