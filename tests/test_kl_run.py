"""Runs that are held against the dense model's predictions: made once, kept sealed, planned, listed, and compared."""

import json
import shutil

import pytest

from experiments import cache
from experiments.comparing.differences import metrics
from experiments.console import families
from experiments.evals.kl import KL
from experiments.runs import provenance
from experiments.runs.record import load, read
from experiments.summary.rows import arrange, render
from tests.answers import answer, place, run
from tests.faults import VOCABULARY, ask, settings

WORDS = "eval=[kl] eval.kl.path={here}/tokens.safetensors eval.kl.top=8 eval.kl.drawn=4"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A place in which two methods were run."""
    folder = place(tmp_path_factory.mktemp("kl"))
    for method in ("magnitude", "wanda"):
        ask_for(folder, f"experiment={method}")
    return folder


def ask_for(here, words):
    return answer(f"{words} {WORDS.format(here=here)}", here)


def predictions(here):
    (file,) = (here / "out" / "cache" / "predictions").glob("*.safetensors")
    return file


def without_errors(numbers):
    return {key.partition("/")[0]: value for key, value in numbers.items() if "_stderr" not in key}


def test_the_dense_model_is_asked_once_for_all_runs(here, monkeypatch):
    monkeypatch.setattr(KL, "reference", lambda *_: pytest.fail("it was there"))
    found, said = ask_for(here, "experiment=random")
    assert without_errors(found["metrics"]).keys() == {"kl", "kl_median", "kl_p99", "top1", "top5", "kl_gap"}
    assert found["metrics"]["kl/tokens@32"] > 0 and not found["dense"]
    assert len(list(predictions(here).parent.glob("*.safetensors"))) == 1 and "dense kl" not in said


def test_the_dense_model_may_be_held_against_itself_too(here, tmp_path, monkeypatch):
    monkeypatch.setattr(KL, "dense", True)
    shutil.copytree(here, tmp_path / "dense")
    found, _ = ask_for(tmp_path / "dense", "experiment=sparsegpt")
    assert found["dense"]["kl/tokens@32"] == 0 < found["metrics"]["kl/tokens@32"]


def test_the_first_windows_alone_are_as_far_as_those_windows_are(here, tmp_path):
    there = tmp_path / "few"
    shutil.copytree(here, there)
    whole, said = ask_for(there, "experiment=wanda")
    few = ask_for(there, "experiment=wanda eval.kl.windows=3")[0]
    file = run(said) / "steps" / f"{whole['step']['kl/tokens@32']}.json"
    each = json.loads(file.read_text())["details"]["scores"]["kl/tokens@32"]
    assert few["metrics"]["kl/tokens@32@first3"] == pytest.approx(sum(each[:3]) / 3, rel=1e-5)
    assert few["metrics"]["kl/tokens@32"] == whole["metrics"]["kl/tokens@32"] and len(each) == 8


def test_at_sparsity_0_the_divergence_is_0_and_the_agreement_whole(here):
    for words in ("experiment=dense", "experiment=magnitude sparsity=0"):
        numbers = without_errors(ask_for(here, words)[0]["metrics"])
        assert numbers == {"kl": 0, "kl_median": 0, "kl_p99": 0, "kl_gap": 0, "top1": 1, "top5": 1}


@pytest.mark.slow
def test_predictions_that_were_altered_are_made_again_with_the_same_numbers(here, tmp_path):
    there = tmp_path / "again"
    shutil.copytree(here, there)
    before = ask_for(there, "experiment=wanda")[0]["metrics"]
    shutil.rmtree(run(ask_for(there, "experiment=wanda")[1]))
    content = bytearray(predictions(there).read_bytes())
    content[-1] ^= 1
    predictions(there).write_bytes(content)
    found, said = ask_for(there, "experiment=wanda")
    assert "is not as it was written; it is computed again" in said and found["metrics"] == before


def test_they_are_as_large_as_was_planned_and_the_cache_lists_and_removes_them(here, tmp_path, capsys):
    there = tmp_path / "listed"
    shutil.copytree(here, there)
    (entry,) = [entry for entry in cache.entries(there / "out", True) if entry.kind == "predictions"]
    assert "eval=kl, " in entry.what and not entry.wrong
    planned = KL(None, None, 32, top=8, drawn=4).reference_size(8, 32, VOCABULARY)
    assert planned < entry.size < planned + 2000
    assert cache.main([str(there / "out"), "--clean", "predictions"]) == 0
    assert "removed 1 of 1 entries" in capsys.readouterr().out and not entry.path.exists()


def test_tables_show_it_alone_and_two_runs_are_compared_over_the_same_windows(here):
    records = [record for record in read([here / "out"]) if record.manifest["method"] in ("magnitude", "wanda")]
    header = render(arrange(records[:2])).splitlines()[0]
    assert "kl/tokens@32" in header and "top1/tokens@32 %" in header and "difference" not in header
    told = {metric.key: metric for metric in metrics(*(load(record.folder) for record in records[-2:]))}
    assert told["kl/tokens@32"].paired and told["kl_p99/tokens@32"].paired and told["top1/tokens@32"].paired


def test_each_of_its_numbers_is_vouched_for_by_a_process_that_made_none_of_them(here, monkeypatch):
    folder = run(ask_for(here, "experiment=wanda")[1])
    monkeypatch.setattr(families, "KNOWN", {name: families.KNOWN[name] for name in families.EVERYWHERE})
    lines = {line.name: line.wrong for line in provenance.check(folder)}
    assert {"kl/tokens@32", "kl_median/tokens@32", "top1/tokens@32"} <= lines.keys() and not any(lines.values())


def test_a_wrong_setting_is_one_line(here):
    found = ask(*settings(f"experiment=wanda {WORDS.format(here=here)} eval.kl.top=3 outputs={here}/none", here))
    assert found.code == 2 and "eval.kl.top: expected a whole number of at least 5, found 3" in found.err
    assert not (here / "none").exists()


def test_every_window_is_kept_beside_the_number(here):
    folder = run(ask_for(here, "experiment=wanda")[1])
    (step,) = [json.loads(file.read_text()) for file in (folder / "steps").glob("kl-*.json")]
    for key, values in step["details"]["scores"].items():
        assert step["metrics"][key] == pytest.approx(sum(values) / len(values))
