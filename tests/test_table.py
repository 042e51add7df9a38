"""The tables that the project fills itself: what is run, what is judged, and what a reader is told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hydra import initialize
from safetensors.torch import load_file
from transformers import AutoTokenizer

from experiments import table as reproduction
from experiments.composing.job import compose_job
from experiments.reproduction import cells, methods, parity
from experiments.reproduction.cells import NOT_RUN, Cell, Outcome
from experiments.runs.record import Record

CODE = "abc1234, torch 2.13, transformers 5.23"


@pytest.fixture
def table(shared, tmp_path):
    """A table's YAML as the command reads it, with its outputs in a temporary folder."""
    return lambda name: cells.load(reproduction.TABLES / f"{name}.yaml", [f"outputs={tmp_path}"])


def cell(method: str, budget: str = "0.5", model: str = "babyllama-1m", seed: int = 0) -> Cell:
    return Cell(model, method, budget, seed, ())


def done(perplexity: float) -> Outcome:
    """A run that measured this."""
    record = Record(Path("run"), {}, {"dense": {"ppl/text@256": 2.6}}, "done")
    return Outcome(perplexity, 2.6, 0.5, CODE, record=record, metrics={"ppl/text@256": perplexity})


def lines(text: str, *words: str) -> list[list[str]]:
    """The cells of the Markdown rows that begin with these words."""
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if row[: len(words)] == list(words)]


def test_every_released_number_is_in_the_table_of_parity(table, shared):
    spec = table("parity")
    reference = json.loads((shared / "parity" / "reference.json").read_text())
    found = {(c.model, c.method, spec["budgets"][c.budget]["released"]["target"], c.budget == "2:4")
             for c in parity.cells(spec)}  # fmt: skip
    rows = {(m, r["method"], r["target"], r["nm"] == "2:4") for m, entry in reference.items() for r in entry["rows"]}
    assert rows <= found
    assert {place[1] for place in found - rows} <= {"mixed"}


@pytest.mark.parametrize("name", ["parity", "order"])
def test_every_cell_is_a_run_of_its_own_and_stands_in_it_as_the_table_says(table, name):
    spec = table(name)
    every = reproduction.KINDS[spec["kind"]].cells(spec)
    assert len({c.overrides for c in every}) == len(every)
    with initialize(version_base="1.3", config_path="../conf"):
        for one in ({c.method: c for c in every} | {c.budget: c for c in every}).values():
            config = compose_job(list(one.overrides)).config
            budget = {"2:4": 0.5, "realised": config["sparsity"]}.get(one.budget) or float(one.budget)
            assert config["allocator"]["sparsity"] == budget, one
            assert config["pattern"].get("m", 0) == (4 if one.budget == "2:4" else 0), one
            assert (config["seed"], config["batch"], config["model"]["device"]) == (one.seed, 16, spec["device"])
            assert Path(config["model"]["path"]).is_dir() and Path(config["data"]["path"]).is_file()


def test_what_the_released_run_ended_with_is_asked_of_ours(table):
    asked = {(c.model, c.method): c.overrides for c in parity.cells(table("parity")) if c.budget == "realised"}
    assert "sparsity=0.490957" in asked["babyllama-1m", "besa-row"]
    assert "sparsity=0.463596" in asked["wiki-llama-3m", "besa-layer"]


def test_a_difference_is_judged_where_the_sparsities_are_the_same(table):
    ours = {
        cell("wanda"): Outcome(5.6, 2.6354, 0.5, CODE),  # released 5.5723
        cell("admm"): Outcome(3.2, 2.6354, 0.5, CODE),  # released 3.1037
        cell("sparsegpt", "0.75"): Outcome(15.0, 2.6354, 0.75, CODE),  # released 16.4312 at 0.750049
        cell("besa-row"): Outcome(4.0, 2.6354, 0.5, CODE),  # released 4.0765 at 0.490957
        cell("besa-row", "realised"): Outcome(4.15, 2.6354, 0.490957, CODE),
        cell("gblm"): Outcome(error="layer q has NaN weights"),
        cell("magnitude"): Outcome(error=NOT_RUN),
    }
    text = parity.files(table("parity"), ours)[".md"]
    assert lines(text, "wanda") == [["wanda", "0.5", "5.6000", "5.5723", "+0.50", "0.500000", "0.500000", "yes (1 %)"]]
    assert lines(text, "admm")[0][4:] == ["+3.10", "0.500000", "0.500000", "no (1 %)"]
    assert lines(text, "sparsegpt")[0][4:] == ["-8.71", "0.750000", "0.750049", "lower (1 %)"]
    assert lines(text, "besa-row", "0.5")[0][4:] == ["-1.88", "0.500000", "0.490957", ""]
    assert lines(text, "besa-row", "realised")[0][4:] == ["+1.80", "0.490957", "0.490957", "yes (2 %)"]
    assert lines(text, "gblm")[0][2:4] == ["failed", "5.6593"] and "- gblm: 1 failed: layer q has NaN weights" in text
    assert not lines(text, "magnitude") and "- 1 of 7 cells are not run yet: magnitude 1" in text
    counts = "4 cells beside released code at the same sparsity: 2 within the tolerance, 1 lower, 1 higher"
    assert f"{counts}: babyllama-1m admm 0.5 (+3.10 %)." in text
    assert "Dense: ours 2.6354, released 2.6354." in text
    assert f"- 5 of 7 cells computed by {CODE}" in text
    assert "## wiki-llama-3m" not in text


def test_mixed_sparsity_stands_beside_our_sparsegpt_on_average_over_the_models(table):
    spec = table("parity")
    ours = {}
    for model, sparsegpt, mixed in zip(spec["models"], (20.0, 4.0, 50.0), (21.0, 3.8, 48.0), strict=True):
        ours |= {cell("sparsegpt", "0.5", model): Outcome(sparsegpt, 1.0, 0.5, CODE)}
        ours |= {cell("mixed", "0.5", model): Outcome(mixed, 1.0, 0.5, CODE)}
    rows = lines(parity.files(spec, ours)[".md"].partition("## mixed beside")[2])
    assert rows[2:] == [["0.5", "+5.00", "-5.00", "-4.00", "-1.33", "yes"], ["0.75", "", "", "", "", ""]]


def test_a_claim_is_judged_by_pairs_of_the_same_seed():
    worse = {seed: 50.0 + 10 * seed for seed in range(5)}  # the draws differ far more than the methods
    better = {seed: value * (0.99 + 0.001 * (seed % 2)) for seed, value in worse.items()}
    mean, half = methods.difference(better, worse)
    assert mean == pytest.approx(-0.96) and half < 0.1
    assert methods.verdict((mean, half)) == "holds"
    assert methods.verdict(methods.difference(worse, better)) == "does not hold"
    assert methods.verdict((-0.1, 0.2)) == methods.verdict((0.1, 0.2)) == methods.verdict((0.0, 0.0)) == "within noise"
    assert methods.difference({0: 1.0, 1: 1.0}, {1: 1.0, 2: 1.0}) is None, "one common seed tells nothing"
    assert methods.verdict(None) == "not known"


def calibrated(perplexity: float, sequences: int) -> Outcome:
    """A run that was calibrated with so many windows."""
    data = {"name": "text", "sequences": sequences, "length": 256, "sha256": str(sequences)}
    manifest = {"data": data, "config": {"data": {"sequences": sequences, "seed": 0}}}
    return replace(done(perplexity), record=replace(done(perplexity).record, manifest=manifest))


def test_a_claim_among_methods_that_were_calibrated_otherwise_is_not_judged(table):
    spec, outcomes = table("order"), {}
    for seed in spec["seeds"]:
        outcomes[cell("wanda", "0.5", seed=seed)] = calibrated(5.0 + seed, 32)
        outcomes[cell("gblm", "0.5", seed=seed)] = calibrated(4.0 + seed, 64)
        outcomes[cell("magnitude", "0.5", seed=seed)] = done(9.0 + seed)  # reads no data
    text = methods.files(spec, outcomes)[".md"]
    assert lines(text, "gblm < wanda")[0][3:] == ["ppl", "", "calibrated otherwise"]
    assert lines(text, "wanda < magnitude")[0][-1] == "holds"
    said = "babyllama-1m: calibrated otherwise, and not judged against each other: "
    assert f"- {said}32 x 256 of text (wanda); 64 x 256 of text (gblm)" in text


def test_our_own_comparisons_in_the_table_of_parity_are_among_equals(table):
    spec = table("parity")
    ours = {cell("sparsegpt", "0.5", model): calibrated(20.0, 128) for model in spec["models"]}
    ours |= {cell("mixed", "0.5", model): calibrated(21.0, 64) for model in spec["models"]}
    rows = lines(parity.files(spec, ours)[".md"].partition("## mixed beside")[2])
    assert rows[2] == ["0.5", "", "", "", "", ""]


def test_the_table_of_order_shows_means_gaps_and_verdicts(table):
    spec = table("order")
    outcomes = {}
    for seed in spec["seeds"]:
        outcomes[cell("wanda", "0.5", seed=seed)] = done(5.0 + seed)
        outcomes[cell("gblm", "0.5", seed=seed)] = done((5.0 + seed) * (0.9 + 0.01 * seed))
        outcomes[cell("admm", "0.5", seed=seed)] = done(3.0) if seed < 2 else Outcome(error="broken")
        outcomes[cell("besa", "0.5", seed=seed)] = Outcome(error=NOT_RUN)
    text = methods.files(spec, outcomes)[".md"]
    tables = text.partition("## babyllama-1m,")[2]
    assert lines(tables, "wanda")[0] == ["wanda", "7.000 ± 1.963", "37.1 %", *"----"]
    assert lines(tables, "admm")[0] == ["admm", "3.000 ± 0.000 (2 of 5)", "86.7 %", *"----"]
    assert lines(tables, "besa")[0] == ["besa", "", "", *"----"]
    assert "## babyllama-1m, ppl/text@256: dense 2.600" in text
    assert lines(text, "gblm < wanda") == [["gblm < wanda", "babyllama-1m", "0.5", "ppl", "-8.00 ± 1.96 %", "holds"]]
    assert "- GBLM is better than Wanda (GBLM, table 2): holds in 1 of 1 comparisons." in text
    assert "- admm: 3 failed: broken" in text and "- 5 of 20 cells are not run yet: besa 5" in text
    assert "draws 32 calibration windows of 256 tokens" in text


def test_claims_name_methods_and_budgets_that_the_table_has(table):
    spec = table("order")
    for claim in spec["claims"]:
        assert set(claim["order"]) <= set(spec["methods"]) and len(claim["order"]) > 1
        for method in claim["order"]:
            offered = spec["methods"][method].get("budgets") or spec["usual"]
            assert set(claim.get("budgets") or []) <= set(offered), claim


@pytest.mark.parametrize("model", ["wiki-llama-3m", "babyllama-1m", "stories-260k"])
def test_calibration_text_ends_before_the_evaluation_windows_begin(table, shared, model):
    spec = table("best")
    for other in (table("order"), table("joint")):
        assert other["share"] == spec["share"] and other["texts"].get(model) in (None, spec["texts"][model])
    place = methods.first_part(spec, spec["texts"][model])
    tokenizer = AutoTokenizer.from_pretrained(str(shared / "data" / "models" / model))
    whole = (shared / "data" / "corpora" / spec["texts"][model]).read_text(encoding="utf-8")
    ids = lambda text: torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    stream, first = ids(whole), load_file(shared / "parity" / f"{model}-eval.safetensors")["tokens"][0]
    starts = [int(place) for place in (stream == first[0]).nonzero() if torch.equal(stream[place : place + 256], first)]
    assert whole.startswith(place.read_text(encoding="utf-8"))
    assert 0.98 * starts[0] < len(ids(place.read_text(encoding="utf-8"))) <= starts[0]


def test_a_mistake_in_the_command_gets_one_line_and_status_2(shared, tmp_path, capsys):
    for arguments, said in (
        (["parity", f"shared={tmp_path}"], f"{tmp_path}/parity/reference.json: not there"),
        (["parity", "outpust=x"], "did you mean outputs?"),
        (["parity", "methods=wnada"], "no method wnada, did you mean wanda?"),
        (["paritty"], "no table paritty, did you mean parity?"),
        ([], "expected the name of a table; there are "),
    ):
        assert reproduction.main([*arguments, "--to", str(tmp_path / "to")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_the_command_runs_what_is_missing_and_reads_the_rest(shared, tmp_path, capsys):
    spec = yaml.safe_load((reproduction.TABLES / "parity.yaml").read_text())
    spec |= {"models": {"stories-260k": {"overrides": []}}, "usual": ["0.5"], "comparisons": []}
    spec["methods"] = {name: spec["methods"][name] for name in ("magnitude", "wanda")}
    (tmp_path / "parity.yaml").write_text(yaml.safe_dump(spec))
    asked = ["parity", f"outputs={tmp_path}/runs", "device=cpu", "--to", str(tmp_path / "to")]
    assert reproduction.main([*asked, "methods=magnitude"], tmp_path) == 0, "the others are not run"
    (folder,) = tmp_path.glob("runs/stories-260k/*")
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert "experiments.run model=local" in json.loads((folder / "manifest.json").read_text())["command"]
    (part,) = (tmp_path / "to").glob("*.md")
    assert part.name == "parity-methods=magnitude.md" and not lines(part.read_text(), "wanda")
    assert reproduction.main(asked, tmp_path) == 0
    assert (folder / "manifest.json").stat().st_mtime_ns == before, "it was done"
    multirun = json.loads((tmp_path / "runs" / "multirun" / "parity.json").read_text())
    assert multirun["command"].startswith("python -m experiments.table parity") and len(multirun["jobs"]) == 2
    text = (tmp_path / "to" / "parity.md").read_text()
    assert text in capsys.readouterr().out
    (row,) = lines(text, "wanda", "0.5")
    assert float(row[2]) == pytest.approx(27.5572, abs=2e-3)
    assert row[4:] == ["+0.00", "0.500000", "0.500000", "yes (1 %)"]
    assert lines(text, "magnitude")[0][-1] == "yes (1 %)"
    assert reproduction.main([*asked, "methods=wanda"], tmp_path) == 0
    assert (tmp_path / "to" / "parity.md").read_text() == text, "a part takes no whole table's place"


def test_a_table_of_what_is_finished_runs_nothing(shared, tmp_path, capsys):
    asked = ["parity", "models=stories-260k", "methods=wanda", f"outputs={tmp_path}", "device=cpu", "--finished"]
    assert reproduction.main(asked) == 0
    assert "3 of 3 cells are not run yet: wanda 3" in capsys.readouterr().out
    assert not list(tmp_path.glob("stories-260k/*"))


def test_what_is_wrong_with_cells_is_told_before_any_is_run(shared, tmp_path, capsys):
    spec = yaml.safe_load((reproduction.TABLES / "parity.yaml").read_text())
    spec |= {"models": {"stories-260k": {"overrides": []}}, "usual": ["0.5"], "comparisons": []}
    spec["methods"] = {"magnitude": {"overrides": ["experiment=magnitude"]}, "x": {"overrides": ["experiment=absent"]}}
    (tmp_path / "parity.yaml").write_text(yaml.safe_dump(spec))
    assert reproduction.main(["parity", f"outputs={tmp_path}/runs", "device=cpu"], tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: experiment=absent: no such option") and not (tmp_path / "runs").exists()
