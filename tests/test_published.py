"""Published tables: what is compared with what, what never is, and how a table runs where its models are not."""

import csv
import io
from pathlib import Path

import pytest
import yaml

from experiments import table as reproduction
from experiments.composing.groups import CONF, composing
from experiments.composing.job import compose_job
from experiments.reproduction import cells, published, verdict
from experiments.reproduction.cells import NOT_RUN, Outcome
from experiments.reproduction.request import Request, narrow
from experiments.runs.record import Record
from tests.published import table as plain
from tests.test_table import lines

KEY = "ppl/wikitext2@2048"
SPEC = {
    "kind": "published",
    "title": "A table",
    "paper": "besa",
    "source": "README",
    "trust": "readme",
    "notes": [],
    "unstated": None,
    "outputs": "outputs",
    "device": "cpu",
    "seeds": [0],
    "overrides": ["data=c4", "eval=[wikitext2,audit]", "seed=${seed}", "outputs=${outputs}", "device=${device}"],
    "models": {
        "llama-2-7b": {"overrides": ["model=llama2_7b"]},
        "baichuan": {"overrides": None, "reason": "no option in conf/model"},
    },
    "usual": ["0.5"],
    "budgets": {"dense": {"overrides": []}, "0.5": {"overrides": ["sparsity=0.5"]}},
    "methods": {
        "dense": {"overrides": ["experiment=dense"], "budgets": ["dense"]},
        "magnitude": {"overrides": ["experiment=magnitude"]},
        "wanda": {"overrides": ["experiment=wanda"]},
    },
    "values": {"WikiText2": {"key": KEY}},
    "published": {
        "WikiText2": {
            "dense": {"dense": {"llama-2-7b": "5.47"}},
            "0.5": {
                "magnitude": {"llama-2-7b": "16.03"},
                "wanda": {"llama-2-7b": {"value": "6.90", "spread": "0.03"}, "baichuan": "9.1"},
                "alps": {"llama-2-7b": "6.50"},
            },
        }
    },
    "absent": ["alps"],
}


@pytest.fixture
def table(tmp_path):
    """The table above as a file and with some of it exchanged, as the command reads it."""

    def make(request=Request(), **changes):  # noqa: B008 - frozen
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPEC | changes, sort_keys=False))
        return narrow(cells.load(tmp_path / "small.yaml", [f"outputs={tmp_path}/out"]), request)

    return make


def outcome(value, dense=5.47, sparsity=0.5, key=KEY, protocol=(), data="drawn"):
    """What a run would have found."""
    step = f"{'wikitext2' if key.startswith('ppl') else 'zeroshot'}-0123456789"
    results = {"metrics": {key: value}, "dense": {KEY: dense}, "step": {key: step}, "protocol": {step: dict(protocol)}}
    parts = {part: {} for part in ("metric", "allocator", "update", "data", "eval")}
    manifest = {"sparsity": 0.5, "data": data and {"name": data, "sha256": data}, "config": parts | {"given": None}}
    record = Record(Path("run"), manifest, results, "done")
    return Outcome(None, None, sparsity, "code", record=record, metrics={key: value})


def filled(spec, **found):
    """The cells of a table with these outcomes by method, a list for its seeds; the others are not run."""
    seeds = {method: list(each) if isinstance(each, list) else [each] for method, each in found.items()}
    every = published.cells(spec)
    return {c: seeds[c.method][c.seed] if c.method in seeds else Outcome(error=NOT_RUN) for c in every}


def test_the_published_number_stands_beside_ours_with_a_verdict(table):
    spec = table(Request(seeds=(0, 1, 2)))
    ours = filled(
        spec,
        dense=outcome(5.48, 5.48),
        magnitude=[outcome(15.9, data=None)] * 3,
        wanda=[*map(outcome, (6.9, 6.92, 6.94))],
    )
    text = published.files(spec, ours)[".md"]
    assert lines(text, "WikiText2", "dense") == [
        ["WikiText2", "dense", "dense", "5.480", "5.47", "+0.010", "+0.18", "within noise", "besa, readme"]
    ]
    assert lines(text, "WikiText2", "0.5", "magnitude")[0][3:8] == [
        "15.900 ± 0.000",
        "16.03",
        "-0.130",
        "-0.81",
        "better",
    ]
    assert lines(text, "WikiText2", "0.5", "wanda")[0][3:6] == ["6.920 ± 0.050", "6.90 ± 0.03", "+0.020"]
    assert lines(text, "WikiText2", "0.5", "alps")[0][3:] == ["", "6.50", "", "", "", "besa, readme"]
    assert "5 published numbers: 2 within noise, 1 better, 2 without one of ours." in text
    assert "not a method of this project: alps" in text and "baichuan has no cells: no option in conf/model" in text
    files = published.files(spec, ours)
    (row,) = [
        row
        for row in csv.DictReader(io.StringIO(files[".csv"]))
        if (row["method"], row["model"]) == ("wanda", "llama-2-7b")
    ]
    assert (row["published"], row["seeds"], row["verdict"], row["trust"]) == ("6.90", "3", "within noise", "readme")
    assert float(row["ours"]) == pytest.approx(6.92) and "\\toprule" in files[".tex"] and "$\\pm$" in files[".tex"]


def test_one_seed_of_a_method_that_draws_is_not_judged(table):
    spec = table()
    text = published.files(spec, filled(spec, wanda=outcome(7.2), magnitude=outcome(16.5, data=None)))[".md"]
    assert lines(text, "WikiText2", "0.5", "wanda")[0][7] == "not judged"
    assert lines(text, "WikiText2", "0.5", "magnitude")[0][7] == "worse", "no seed changes it"


def test_seeds_that_were_calibrated_otherwise_have_no_mean_to_compare(table):
    spec = table(Request(seeds=(0, 1)))
    one, other = outcome(6.9), outcome(6.9, data="drawn elsewhere")
    text = published.files(spec, filled(spec, wanda=[one, other]))[".md"]
    assert lines(text, "WikiText2", "0.5", "wanda")[0][7] == "not comparable (1)"
    assert "1. its seeds are calibrated with drawn and drawn elsewhere" in text


def test_a_dense_model_that_is_not_the_published_one_bars_all_rows_of_it(table):
    spec = table()
    text = published.files(spec, filled(spec, dense=outcome(5.12, 5.12), wanda=outcome(6.5, 5.12)))[".md"]
    assert [row[7] for row in lines(text, "WikiText2") if row[3]] == ["not comparable (1)"] * 2
    assert "1. dense is 5.120, published 5.47: another protocol or model" in text
    assert lines(text, "WikiText2", "0.5", "wanda")[0][5:7] == ["", ""], "no difference that means nothing"


@pytest.mark.parametrize(
    ("found", "value", "said"),
    [
        (outcome(6.9, key="ppl/wikitext2@1024"), {"key": KEY}, "measured as ppl/wikitext2@1024 instead of"),
        (outcome(6.9, sparsity=0.48), {"key": KEY}, "0.4800 of the weights are removed, 0.5 were to be"),
        (outcome(6.9), {"key": KEY, "reason": "a blend of texts"}, "a blend of texts"),
    ],
)
def test_a_number_of_another_protocol_is_not_comparable_and_the_reason_is_named(table, found, value, said):
    spec = table(values={"WikiText2": value})
    assert said in "; ".join(verdict.reasons(spec, "llama-2-7b", "WikiText2", found))
    spec = table(Request(overrides=("data.sequences=16", "eval.c4.length=512")))
    assert verdict.reasons(spec, "llama-2-7b", "WikiText2", outcome(5.6)) == ["data.sequences=16 on the command line"]
    assert "not stated: the window" in verdict.reasons(table(unstated="the window"), "llama-2-7b", "WikiText2", found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"key": "acc/mean", "tasks": ["boolq", "rte"], "versions": {"boolq": 2, "rte": 1}}, None),
        ({"key": "acc/mean", "tasks": ["boolq"], "versions": {"boolq": 2}}, "mean over boolq, rte instead of boolq"),
        ({"key": "acc/mean", "tasks": ["boolq", "rte"], "versions": {"boolq": 1, "rte": 1}, "harness": "BaseLM"},
         "task version: boolq 2 instead of 1 (lm-eval 0.4.13, published with BaseLM)"),
        ({"key": "acc/mean", "tasks": ["boolq", "rte"]}, "versions of its tasks are not known"),
    ],
)  # fmt: skip
def test_accuracies_compare_only_over_the_same_tasks_in_the_same_versions(table, value, said):
    spec = table(values={"WikiText2": value})
    tasks = {"boolq": {"version": 2.0}, "rte": {"version": 1.0}}
    found = outcome(0.6, key="acc/mean", protocol={"tasks": tasks, "lm_eval": "0.4.13"})
    why = verdict.reasons(spec, "llama-2-7b", "WikiText2", found)
    assert not why if said is None else said in "; ".join(why)
    row = published.rows(spec, filled(spec, wanda=found))[-2]
    assert row.ours is None or row.ours == 60.0, "accuracies are printed in percent"


def test_what_is_typed_makes_a_number_another_one_unless_it_is_harmless():
    with composing():
        config = compose_job(["model=llama2_7b", "experiment=wanda", "data=c4", "eval=[wikitext2,audit]"]).config
    typed = ["data.sequences=16", "eval.wikitext2.length=512", "data=wikitext2", "model.dtype=float32"]
    typed += ["eval.wikitext2.path=/text.txt", "scope=matrix", "update.damping=1"]
    assert verdict.changes(typed, config) == typed
    files = ["model.path=/x", "data.path=/c4.jsonl", "eval.wikitext2.text.evaluation_path=/t"]
    assert not verdict.changes([*files, "batch=2", "eval=[wikitext2]", "hydra/launcher=joblib", "tracker=[]"], config)
    assert [verdict.is_file(line.partition("=")[0], config) for line in files] == [False, True, True]


def test_a_model_is_chosen_by_its_label_or_its_option_and_another_one_stands_in(table):
    assert list(table(Request(models=("llama2_7b",)))["models"]) == ["llama-2-7b"]
    spec = table(Request(models=("demo",), methods=("wanda",), overrides=("data.sequences=4",)))
    (one,) = published.cells(spec)
    assert "model=demo" in one.overrides and "data=stdlib" in one.overrides
    assert not {"data=c4", "eval=[wikitext2,audit]"} & set(one.overrides)
    with pytest.raises(ValueError, match="no model llama-2-7, did you mean llama-2-7b"):
        table(Request(models=("llama-2-7",)))
    with pytest.raises(ValueError, match=r"model\.path: one folder is one model"):
        table(Request(models=("llama-2-7b", "demo"), overrides=("model.path=x",)))


def test_only_the_evaluations_of_the_values_that_are_asked_for_are_made(table):
    values = {"WikiText2": {"key": KEY}, "PTB": {"key": "ppl/ptb@2048"}, "mean": {"key": "acc/mean"}}
    own = ["data=c4", "eval=[wikitext2,ptb,zeroshot,audit]", "eval.ptb.length=2048", "eval.wikitext2.length=2048"]
    own.append("eval.zeroshot.tasks=[boolq]")
    for request, said in (
        (Request(values=("WikiText2", "mean")), [*own[3:], "eval=[wikitext2,zeroshot,audit]"]),
        (Request(overrides=("eval=[ptb]",)), ["eval.ptb.length=2048", "eval=[ptb]"]),
        (Request(overrides=("eval=paper",)), [*own[3:], "eval=[wikitext2,zeroshot,audit]"]),
        (Request(overrides=("eval=quick",)), ["eval=[perplexity,kl,zeroshot,audit]"]),
        (Request(), own[1:]),
    ):
        every = published.cells(table(request, values=values, overrides=own, published={}))
        assert [line for line in every[0].overrides if line.startswith("eval")] == said


def test_a_published_number_without_a_place_is_refused(table):
    with pytest.raises(ValueError, match=r"published WikiText2 0\.5 wnada llama-2-7b: no wnada in"):
        table(published={"WikiText2": {"0.5": {"wnada": {"llama-2-7b": "6.92"}}}})
    with pytest.raises(ValueError, match="no number"):
        table(published={"WikiText2": {"0.5": {"wanda": {"llama-2-7b": "six"}}}})


@pytest.mark.parametrize("file", sorted(reproduction.TABLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_table_can_be_read(file, shared):
    assert cells.load(file)["kind"] in reproduction.KINDS


def test_the_tables_of_all_methods_have_every_experiment():
    """Those that quantise are in a table of their own."""
    chosen = {
        name: {line for entry in plain(name)["methods"].values() for line in entry["overrides"]}
        for name in ("all_methods", "joint")
    }
    experiments = {path.stem: path.read_text() for path in (CONF / "experiment").glob("*.yaml")}
    for name, text in experiments.items():
        assert name == "dense" or f"experiment={name}" in chosen["joint" if "quantizer" in text else "all_methods"]
