"""What a run of now wrote is sealed: edited by hand, with its seal or without, it is told, and is not believed."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import compare, report, status
from experiments.runs import difference
from experiments.runs.record import load
from tests.answers import answer, place, run
from tests.faults import workplace
from tests.test_hostile import MANIFEST, told, unsaved  # noqa: F401 - the last is a fixture


@pytest.mark.parametrize("sealed", [True, False])
def test_results_that_were_edited_by_hand_are_not_believed_with_a_seal_or_without(tmp_path, sealed):
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    copy = shutil.copytree(run, tmp_path / "out" / "model" / run.name)
    assert load(copy).status == "done"
    results = json.loads((copy / "results.json").read_text())
    key = next(key for key in results["metrics"] if key.startswith("ppl/"))
    results["metrics"][key] /= 2
    if not sealed:
        del results["sha256"]
    (copy / "results.json").write_text(json.dumps(results))
    record = load(copy)
    assert record.status == "unreadable" and record.error.startswith("results.json is not as it was written")
    lines = [told(report.main, tmp_path / "out"), told(compare.main, copy, run)]
    assert [code for code, _ in lines] == [0, 2]
    assert all("results.json is not as it was written" in text for _, text in lines)


@pytest.mark.parametrize("names", [(), ("sha256",)])
def test_a_manifest_that_was_edited_by_hand_names_no_number(tmp_path, names):
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    copy = shutil.copytree(run, tmp_path / "out" / "model" / run.name)
    (copy / MANIFEST).write_text((copy / MANIFEST).read_text().replace("magnitude", "mine"))
    without(copy / MANIFEST, *names)
    record = load(copy)
    assert record.status == "unreadable" and "is not as it was written; the same command makes it again" in record.error
    code, text = told(status.main, tmp_path / "out")
    assert code == 1 and "1 unreadable" in text and "is not as it was written" in text


def without(file: Path, *names: str) -> None:
    """Takes entries out of a JSON file."""
    kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in names}
    file.write_text(json.dumps(kept))


def test_a_step_without_its_seal_tells_nothing_of_a_run_of_now_and_all_of_an_older_one(tmp_path):
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    copy = shutil.copytree(run, tmp_path / "run")
    (step,) = (copy / "steps").glob("perplexity-*.json")
    outcome = lambda: difference.outcome(load(copy), "ppl/tokens@32")
    whole = outcome()
    without(step, "sha256")
    assert whole and outcome() == {}
    without(copy / MANIFEST, "content", "sha256")
    assert outcome()["details"] == whole["details"]


def test_results_edited_by_hand_are_told_and_put_together_again(tmp_path):
    here = place(tmp_path)
    first, said = answer("experiment=magnitude", here)
    file = run(said) / "results.json"
    for forged in (lambda told: told["metrics"].update({"ppl/tokens@32": 1.0}), lambda told: told.pop("sha256")):
        told = json.loads(file.read_text())
        forged(told)
        file.write_text(json.dumps(told))
        assert "sha256" not in told or load(file.parent).status == "unreadable"
        again, said = answer("experiment=magnitude", here)
        assert again["metrics"] == first["metrics"] and "results.json is not as it was written" in said
