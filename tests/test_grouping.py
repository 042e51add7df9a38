"""What is one model, and what are draws of one thing: told by content, in every table that a report writes."""

import csv
import math
from statistics import fmean

import pytest

from experiments.files.disk import seal
from experiments.reporting.findings import Findings, contests
from experiments.reporting.formats import paper, spreadsheet
from experiments.runs.protocol import tell_apart
from experiments.runs.record import read
from experiments.summary.rows import arrange, render
from experiments.summary.seeds import grouped
from tests.runs import DENSE, PPL, change, losses, metrics, put


def made(top, method, value, seed=0, model="ckpt", content="1" * 64, text="a" * 64, code="c1", dense=17.5, **facts):
    """A finished run that tells what it is made of: its model, its calibration text and its code by content."""
    path, config = facts.pop("path", f"/m/{model}"), {"seed": seed, "data": {"path": "/t/text.txt", "seed": seed}}
    told = {"model": {"path": content}, "data": {"path": text, "seed": seed}, "metric": {"code": code}, "seed": seed}
    facts |= {"model_content": content, "content": told, "identity": f"{content[:3]}{text[:3]}{code}{seed:02}"}
    config |= facts.pop("config", {})
    run = put(top, method, metrics=metrics(value), model=model, config=config | {"model": {"path": path}}, **facts)
    change(run, dense=DENSE | {PPL: dense})
    return run


def table(top):
    return arrange(read([top]))


def test_one_model_under_two_names_is_one_model_with_one_dense_row_and_said_so(tmp_path):
    made(tmp_path, "wanda", 24.0, model="stories-260k")
    made(tmp_path, "magnitude", 31.0, model="stories-link", path="/elsewhere/link")
    found = table(tmp_path)
    assert [(row.model, row.method) for row in found.rows] == [
        ("stories-260k", "dense"), ("stories-260k", "magnitude"), ("stories-260k", "wanda"),
    ]  # fmt: skip
    assert found.notes == ["stories-link is stories-260k: the files are the same"]


def test_a_checkpoint_that_was_overwritten_is_another_model_with_a_dense_row_of_its_own(tmp_path):
    for name, value, content, dense in (("wanda", 5.813, "1" * 64, 4.5), ("sparsegpt", 10161.9, "2" * 64, 1441.8)):
        losses(made(tmp_path, name, value, content=content, dense=dense), [1.0, 1.1, 1.2])
    found = table(tmp_path)
    shown = {(row.model, row.method): row.values[PPL].value for row in found.rows}
    assert sorted(shown.values()) == [4.5, 5.813, 1441.8, 10161.9] and len({model for model, _ in shown}) == 2
    assert shown["ckpt", "dense"] == 1441.8 and shown["ckpt", "sparsegpt"] == 10161.9
    assert shown["ckpt [2]", "dense"] == 4.5 and shown["ckpt [2]", "wanda"] == 5.813
    assert found.notes == ["ckpt [2] is not comparable with ckpt: content 1111111111 instead of 2222222222"]
    assert all(not contest.rivals for contest in contests(grouped(found), [PPL]))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"text": "b" * 64}, "data.path bbbb"), ({"code": "c2"}, "metric.code c2 instead of c1")],
)
def test_seeds_over_a_text_or_code_that_was_replaced_between_them_are_not_averaged(tmp_path, change, said):
    for seed, value in ((0, 5.5), (1, 6.5)):
        made(tmp_path, "wanda", value, seed)
    made(tmp_path, "wanda", 11061.0, 2, **change)
    found = table(tmp_path)
    groups = {group.method: [row.values[PPL].value for row in group.rows] for group in grouped(found)}
    assert groups == {"dense": [17.5], "wanda": [5.5, 6.5], "wanda [2]": [11061.0]}
    (note,) = [note for note in found.notes if "wanda [2]" in note]
    assert said in note and note.startswith("ckpt: unstructured 0.5: wanda [2] is not comparable with wanda: ")
    text = paper(Findings(read([tmp_path])))
    assert f"{fmean([5.5, 6.5]):.3f}" in text and "wanda [2]" in text
    rows = {row["method"]: float(row[PPL]) for row in csv.DictReader(spreadsheet(found).splitlines())}
    assert rows == {"dense": 17.5, "wanda (seed=0)": 5.5, "wanda (seed=1)": 6.5, "wanda [2] (seed=2)": 11061.0}


def test_a_text_under_two_paths_is_one_text(tmp_path):
    made(tmp_path, "wanda", 5.5, 0)
    made(tmp_path, "wanda", 6.5, 1, config={"data": {"path": "/elsewhere/text.txt", "seed": 1}})
    assert [(group.method, len(group.rows)) for group in grouped(table(tmp_path))] == [("dense", 1), ("wanda", 2)]


def test_methods_calibrated_on_a_text_that_was_replaced_between_them_are_told_of(tmp_path):
    made(tmp_path, "wanda", 5.5, data={"name": "text", "sha256": "a" * 64})
    made(tmp_path, "gblm", 6.5, data={"name": "text", "sha256": "b" * 64})
    unlike, note = table(tmp_path).notes
    assert unlike == "ckpt: not alike in all rows: calibration is text (gblm); text [2] (wanda)"
    assert note == "ckpt: /t/text.txt was other data in some runs: bbbbbbbbbb (1 runs), aaaaaaaaaa (1 runs)"


def test_dense_numbers_that_differ_between_runs_of_one_model_are_told_of(tmp_path):
    made(tmp_path, "wanda", 24.0, dense=17.5)
    made(tmp_path, "gblm", 25.0, dense=18.5)
    found = table(tmp_path)
    said = f"ckpt: dense {PPL} is 18.500 in 1 runs, 17.500 in 1 runs; each difference is to that of its own run"
    assert said in found.notes and said in render(found)
    assert [row.values[PPL].difference for row in found.rows] == [None, 6.5, 6.5]


def test_two_texts_of_one_name_are_held_against_each_other_by_their_own_windows(tmp_path):
    """Both runs have the second text under a longer key; its column is judged by it, not by the first text."""
    for name, shift in (("wanda", 0.0), ("gblm", 0.001)):
        run = made(tmp_path, name, 20.0)
        (one,) = read([run])
        added = {
            "metrics": {f"{PPL}#12ab34": math.exp(3.0 + shift)},
            "protocol": {"perplexity-2": {"sha256": "other"}},
            "step": {f"{PPL}#12ab34": "perplexity-2"},
        }
        change(run, **{name: one.results[name] | part for name, part in added.items()})
        (run / "steps").mkdir()
        for step, values in (("1", [2.0, 4.0, 9.0]), ("2", [2.9 + shift, 3.1 + shift, 3.0 + shift])):
            seal(run / "steps" / f"perplexity-{step}.json", {"details": {"losses": values}})
    (contest,) = contests(grouped(table(tmp_path)), [f"{PPL} [2]"])
    ((_, margin, half),) = contest.rivals
    assert contest.best.method == "wanda" and contest.won
    assert margin == pytest.approx(math.exp(3.001) - math.exp(3.0)) and half is not None and half < margin


def test_lists_of_a_protocol_are_told_apart_by_what_one_of_them_has_whatever_is_in_them():
    notes = tell_apart([("m", {"of": [1, [2]]}), ("m", {"of": [1, {"a": 3}]})])[1]
    assert notes == ["m [2] is not comparable with m: of with {'a': 3} without [2]"]


@pytest.mark.parametrize("ending", ["", ".tar.gz", ".parquet"])
def test_two_sets_of_images_are_told_apart_by_one_word(tmp_path, ending):
    for name in ("cats", "dogs"):
        data = {"_target_": "experiments.data.images.ImageFiles", "path": f"/a/long/way/to/{name}{ending}"}
        put(tmp_path, "wanda", metrics=metrics(20.0), identity=name, config={"model": {"path": "demo"}, "data": data})
    assert {row.method for row in table(tmp_path).rows} == {"dense", "wanda (data=cats)", "wanda (data=dogs)"}


def test_two_texts_are_told_apart_by_one_word_and_a_seed_only_where_it_varies(tmp_path):
    papers = {"_target_": "experiments.data.papers.C4", "repository": "allenai/c4", "train_file": "en/c4.json.gz"}
    own = {"_target_": "experiments.data.files.TextFile", "path": "/a/long/way/to/diary.txt", "field": "text"}
    for place, data in enumerate([papers, own, own | {"sequences": 16}]):
        config = {"model": {"path": "demo"}, "data": {"sequences": 8, "seed": 0} | data}
        put(tmp_path, "wanda", metrics=metrics(20.0 + place), identity=f"{place}", config=config)
    for seed, sparsity in ((0, 0.6), (1, 0.6), (1, 0.7)):
        config = {"model": {"path": "demo"}, "seed": seed, "data": {"sequences": 8, "seed": seed} | own}
        put(tmp_path, "ria", metrics=metrics(30.0), identity=f"{seed}", sparsity=sparsity, config=config)
    config = {"model": {"path": "demo"}, "data": {"_target_": "experiments.data.files.Tokens", "path": "/t/rows.pt"}}
    put(tmp_path, "ria", metrics=metrics(30.0), identity="t", sparsity=0.7, config=config)
    assert {row.method for row in table(tmp_path).rows} == {
        "dense", "wanda (data=c4, data.sequences=8)", "wanda (data=diary, data.sequences=8)",
        "wanda (data=diary, data.sequences=16)", "ria (data=diary, data.sequences=8, seed=0)",
        "ria (data=diary, data.sequences=8, seed=1)", "ria (data=diary, data.sequences=8)", "ria (data=rows)",
    }  # fmt: skip


def test_a_seed_is_named_only_where_runs_differ_in_it_alone(tmp_path):
    for text, seed, pattern in (("a", 0, "2of4"), ("a", 1, "2of4"), ("b", 0, "2of4"), ("b", 1, "4of8")):
        data = {"_target_": "experiments.data.files.TextFile", "path": f"/t/{text}.txt", "seed": seed}
        config = {"model": {"path": "demo"}, "seed": seed, "data": data}
        put(tmp_path, "wanda", pattern, metrics(20.0), identity=f"{text}{seed}", config=config)
    assert [(row.pattern, row.method) for row in table(tmp_path).rows[1:]] == [
        ("2of4", "wanda (data=a, seed=0)"), ("2of4", "wanda (data=a, seed=1)"), ("2of4", "wanda (data=b)"),
        ("4of8", "wanda (data=b)"),
    ]  # fmt: skip


def test_two_files_of_one_name_are_told_by_their_places(tmp_path):
    for place in ("a", "b"):
        data = {"_target_": "experiments.data.files.TextFile", "path": f"/a/long/way/to/{place}/text.txt"}
        put(tmp_path, "wanda", metrics=metrics(20.0), identity=place, config={"model": {"path": "demo"}, "data": data})
    assert {row.method for row in table(tmp_path).rows} == {
        "dense", "wanda (data=a/text.txt)", "wanda (data=b/text.txt)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "scope", "called"),
    [("wanda+zero", "row", "wanda"), ("wanda+zero", "matrix", "wanda+zero"), ("wanda+owl", "row", "owl"),
     ("obs+sparsegpt", None, "sparsegpt"), ("wanda+barber+given-ria", "row", "wanda+barber+given-ria"),
     ("mine+zero", "row", "mine+zero"), ("wanda", "matrix", "wanda"), ("", "row", "")],
)  # fmt: skip
def test_finished_runs_are_called_by_the_experiment_that_they_are(tmp_path, method, scope, called):
    pattern = {"_target_": "prune.patterns.n_m.NM"} | ({"scope": scope} if scope else {})
    config = {"model": {"path": "demo"}, "pattern": pattern, "granularity": "block", "given": None}
    given = {"config": config, "names": {"method": "ria"}} if "given" in method else None
    folder = put(tmp_path, method, metrics=metrics(20.0), config=config | {"given": given})
    (run,) = read([tmp_path])
    assert run.manifest["method"] == called and run.folder == folder
    assert [row.method for row in table(tmp_path).rows] == ["dense", called]


def test_what_reads_no_text_is_one_row_beside_several_texts_unless_each_was_measured_on_its_own(tmp_path):
    for seed in (0, 1):
        for text in ("a", "b"):
            read_text = {"name": text, "sequences": 8, "length": 64}
            for method, data, value in (("wanda", read_text, 20.0), ("magnitude", None, 30.0)):
                facts = {"data": data, "text": text * 64, "config": {"data": {"path": f"/t/{text}.txt", "seed": seed}}}
                made(tmp_path, method, value, seed, **facts)
    rows = {group.method: len(group.rows) for group in grouped(table(tmp_path))}
    assert rows == {"dense": 1, "magnitude": 2, "wanda (data=a)": 2, "wanda (data=b)": 2}
    assert (
        "ckpt: what reads no data is shown once, not beside each calibration: 2 runs left out" in table(tmp_path).notes
    )
    for run in read([tmp_path]):
        if run.manifest["config"]["data"]["path"] == "/t/b.txt":
            change(run.folder, metrics={"ppl/b@128": 30.0})
    named = [group.method for group in grouped(table(tmp_path)) if "magnitude" in group.method]
    assert named == ["magnitude (data=a)", "magnitude (data=b)"]


def test_what_differs_between_runs_of_one_source_is_named_beside_it_and_nothing_that_goes_with_the_source(tmp_path):
    own = {"_target_": "experiments.data.self_generated.SelfGenerated", "seed": 0, "top_k": 5}
    stdlib = {"_target_": "experiments.data.stdlib.Stdlib", "seed": 0}
    for number, data in enumerate((stdlib, own | {"temperature": 0.5}, own | {"temperature": 1.0})):
        put(tmp_path, "wanda", metrics=metrics(20.0 + number), identity=str(number), config={"seed": 0, "data": data})
    names = {row.method for row in table(tmp_path).rows}
    beside = {f"wanda (data=selfgenerated, data.temperature={value})" for value in ("0.5", "1.0")}
    assert names == {"dense", "wanda (data=stdlib)"} | beside
