"""Only runs of one model that were calibrated alike are judged against each other, and what differs is named."""

import pytest

from experiments.comparing.differences import metrics as compared
from experiments.reporting.findings import Findings
from experiments.reporting.formats import paper
from experiments.runs.calibration import calibrations
from experiments.runs.record import read
from tests.runs import PPL, losses, metrics, put


def run(top, method, value, sequences=8, length=256, seed=0, sha256="", path="/t/text", **manifest):
    """A run that read so many windows (none: magnitude), and whose windows of evaluation tell its methods apart."""
    data = {"name": "text", "sequences": sequences, "length": length, "sha256": sha256 or f"{sequences}-{seed}"}
    settings = {"path": path, "sequences": sequences, "length": length, "seed": seed}
    config = {"model": {"path": "demo"}, "seed": seed, "data": settings} | manifest.pop("config", {})
    manifest |= {"data": data if sequences else None, "config": config}
    folder = put(top, method, metrics=metrics(value), identity=f"{sequences}-{length}-{seed}", **manifest)
    losses(folder, [3.0 + value / 100, 3.1 + value / 100, 3.2 + value / 100])
    return folder


def names(top):
    records = read([top])
    return {record.manifest["method"]: name for record, name in zip(records, calibrations(records), strict=True)}


def test_runs_of_other_calibration_are_named_and_never_judged_against_each_other(tmp_path):
    run(tmp_path, "wanda", 24.0)
    run(tmp_path, "sparsegpt", 20.0, 16, 512)
    findings = Findings(read([tmp_path]))
    assert not findings.bold and {contest.verdict for contest in findings.contests} == {"the only one here"}
    said = "not alike in all rows: calibration is 16 x 512 of text (sparsegpt); 8 x 256 of text (wanda)"
    assert findings.table.notes == [f"demo: {said}"] and f"; {said}." in paper(findings)
    (perplexity,) = [metric for metric in compared(*read([tmp_path])) if metric.key == PPL]
    assert perplexity.verdict == "not judged" and perplexity.difference == 4.0
    assert perplexity.unequal == "calibrated with 16 x 512 of text in A, 8 x 256 of text in B"


def test_what_reads_no_data_is_held_against_each_calibration_and_bold_only_where_it_wins_all(tmp_path):
    run(tmp_path, "magnitude", 22.0, 0)
    run(tmp_path, "wanda", 24.0)
    run(tmp_path, "sparsegpt", 20.0, 16, 512)
    findings = Findings(read([tmp_path]))
    best = {contest.calibration: contest.best.method for contest in findings.contests if contest.metric == PPL}
    assert best == {"8 x 256 of text": "magnitude", "16 x 512 of text": "sparsegpt"}
    assert [folder.name.split("-")[0] for folder, metric in findings.bold if metric == PPL] == ["sparsegpt"]


def test_one_calibration_is_the_same_windows_or_another_seed_of_one_text(tmp_path):
    run(tmp_path, "a", 20.0)
    run(tmp_path, "b", 20.0, path="/elsewhere/text")  # the same windows
    run(tmp_path, "c", 20.0, seed=1)  # others, as the seed draws them
    run(tmp_path, "d", 20.0, sha256="other")  # the text was replaced
    run(tmp_path, "e", 20.0, 0)
    text = "8 x 256 of text"
    assert names(tmp_path) == {"a": text, "b": text, "c": text, "d": f"{text} [2]", "e": None}


def test_masks_that_were_taken_over_are_calibrated_as_what_made_them_was(tmp_path):
    given = {"given": {"names": {"method": "wanda"}, "config": {}}}
    run(tmp_path, "wanda+given-wanda", 19.0, 0, config=given)
    run(tmp_path, "sparsegpt", 20.0, 16, 512)
    assert names(tmp_path) == {"wanda+given-wanda": "that of wanda", "sparsegpt": "16 x 512 of text"}
    assert {contest.verdict for contest in Findings(read([tmp_path])).contests} == {"the only one here"}


@pytest.mark.parametrize(
    ("config", "said"), [({"granularity": "submodule"}, "granularity is submodule (barber); block (wanda)"), ({}, "")]
)
def test_what_else_differs_between_methods_is_named(tmp_path, config, said):
    run(tmp_path, "wanda", 24.0, config={"granularity": "block"})
    run(tmp_path, "barber", 20.0, config={"granularity": "block"} | config)
    notes = Findings(read([tmp_path])).table.notes
    assert said in "".join(notes) and bool(notes) == bool(said)


def test_a_seed_that_only_one_of_two_methods_has_is_named(tmp_path):
    for seed in (0, 1):
        run(tmp_path, "wanda", 24.0, seed=seed)
    run(tmp_path, "ria", 24.0)
    assert Findings(read([tmp_path])).table.notes == ["demo: not alike in all rows: data.seed is 0 (ria); 0, 1 (wanda)"]


def test_other_model_files_are_not_judged(tmp_path):
    run(tmp_path, "wanda", 24.0, model_content="1" * 64)
    run(tmp_path, "ria", 24.0, model_content="2" * 64)
    (perplexity,) = [metric for metric in compared(*read([tmp_path])) if metric.key == PPL]
    assert (perplexity.unequal, perplexity.error is None) == ("other model files", False)
