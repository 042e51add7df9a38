"""Run folders that are damaged or made to harm: every reader names them in a line, and shows the runs beside them."""

import json
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import archive, compare, paired, plan, report, status
from experiments import cache as caches
from experiments.checkpoints import contract
from experiments.figures import canvas
from tests.faults import workplace

LOOK = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
DEEP = "[" * 100_000 + "]" * 100_000
ODD = [None, True, -1, 0, 3, 10**30, 0.5, -0.5, 1e308, 1e-308, float("nan"), float("inf"), "0.5", "", "$x_{", "\ud800"]
ODD += [
    "2026-01-01T00:00:00",
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    {"_target_": 5},
    [None, "x"],
    json.loads("[" * 90 + "]" * 90),
]
FILES = ("manifest.json", "results.json", "steps/perplexity.json")


@cache
def outputs() -> Path:
    """Two good runs and a victim with everything that a run may tell, none of them sealed; and a cache."""
    top = Path(tempfile.mkdtemp(dir=workplace())) / "out"
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    shutil.copytree(workplace() / "out" / "cache", top / "cache")
    for place, method in enumerate(("wanda", "sparsegpt", "victim")):
        folder = top / "model" / f"{method}-unstructured-0.5-000000000{place}"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("model", ".lock*"))
        told = json.loads((folder / "manifest.json").read_text()) | {"method": method, "identity": f"000000000{place}"}
        del told["content"], told["sha256"]  # as those of an older version, which did not seal
        told["pruned"]["also"] = [told["pruned"] | {"diff": "0" * 10}]
        told |= {"retries": [{"error": "out of memory", "batch": 4}], "data": {"name": "text", "sha256": "a" * 64}}
        told["config"]["given"] = {"names": {"method": "wanda"}, "config": dict(told["config"])}
        (folder / "manifest.json").write_text(json.dumps(told))
        results = json.loads((folder / "results.json").read_text())
        stem = next(stem for stem in results["step"].values() if stem.startswith("perplexity"))
        (folder / "steps" / f"{stem}.json").rename(folder / "steps" / "perplexity.json")
        results["step"] = {
            key: "perplexity" if key.startswith("ppl") else step for key, step in results["step"].items()
        }
        results |= {"protocol": {"perplexity": results["protocol"][stem], "z": {"tasks": {"rte": {}}, "mean_over": []}}}
        results |= {"notes": {"dead": 1}, "skipped": {"lm_head": "outside"}}
        step = json.loads((folder / "steps" / "perplexity.json").read_text())
        for name, content in (("results.json", results), ("steps/perplexity.json", step)):
            (folder / name).write_text(json.dumps({k: v for k, v in content.items() if k != "sha256"}))
    return top


def harm(file: Path, turns: list[int], odd: object, way: str) -> None:
    """Changes one value of a JSON file, chosen by these turns from the top, or takes it away."""
    content = json.loads(file.read_text())
    places, part = [], content
    for turn in turns:
        if not isinstance(part, dict | list) or not part:
            break
        keys = list(part) if isinstance(part, dict) else range(len(part))
        places.append((part, keys[turn % len(keys)]))
        part = part[places[-1][1]]
    inside, key = places[-1]
    if way == "set":
        inside[key] = odd
    else:
        del inside[key]
    file.write_text(json.dumps(content))


def told(main, *arguments: object) -> tuple[int, str]:
    """Exit code and output of a command."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in arguments])
    return code, out.getvalue() + err.getvalue()


def read_by_all(top: Path, bad: str) -> None:
    """Every reader ends as it should and shows the good runs; the bad one too, if only to say why it is not read."""
    code, text = told(report.main, top, "--to", top / "to")
    assert code == 0 and bad in text + (top / "to" / "report.html").read_text(), text
    assert all(
        name in (top / "to" / file).read_text()
        for name in ("wanda", "sparsegpt")
        for file in ("report.csv", "report.html")
    )
    code, text = told(status.main, top)
    assert (code in (0, 1) and "2 done" in text) or "3 done" in text, text
    assert all(name in text for name in ("wanda", "sparsegpt", bad))
    code, text = told(compare.main, "wanda", bad, "--outputs", top)
    assert code == 0 or (code == 1 and bad in text and len(text.splitlines()) == 1), text
    assert told(compare.main, "wanda", "sparsegpt", "--outputs", top)[0] == 0
    assert told(caches.main, top)[0] == 0


@pytest.fixture(autouse=True)
def unsaved(monkeypatch):
    """Pictures are laid out, and not saved: that takes seconds."""
    monkeypatch.setattr(
        canvas,
        "save",
        lambda figure, place: (
            place.parent.mkdir(exist_ok=True, parents=True)
            or [place.with_name(f"{place.name}.{kind}").write_text("<svg/>") for kind in canvas.FORMATS]
        ),
    )


def harmed(spoil) -> None:
    """The outputs with a victim that was spoiled, read by all."""
    top = Path(tempfile.mkdtemp(dir=workplace())) / "out"
    shutil.copytree(outputs(), top)
    try:
        spoil(next((top / "model").glob("victim-*")))
        read_by_all(top, "victim-unstructured")
    finally:
        shutil.rmtree(top.parent)


MANIFEST = "manifest.json"
DAMAGES = {
    "a sparsity that is a text": lambda run: harm(run / MANIFEST, [5], "0.5", "set"),
    "nested 100,000 deep": lambda run: (run / MANIFEST).write_text(DEEP),
    "results nested 100,000 deep": lambda run: (run / "results.json").write_text(DEEP),
    "a step nested 100,000 deep": lambda run: (run / "steps/perplexity.json").write_text(DEEP),
    "settings nested 900 deep": lambda run: (run / MANIFEST).write_text(
        (run / MANIFEST).read_text().replace('"tracker":', '"tracker": ' + "[" * 900 + "]" * 900 + ', "x":')
    ),
    "binary": lambda run: (run / MANIFEST).write_bytes(bytes(range(256))),
    "a folder in its place": lambda run: (run / MANIFEST).unlink() or (run / MANIFEST).mkdir(),
    "a link to itself": lambda run: (run / MANIFEST).unlink() or (run / MANIFEST).symlink_to(run / MANIFEST),
    "an owner of another form": lambda run: (run / ".lock.owner").write_text("[1]"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_run_folder_that_cannot_be_read_is_named_and_hides_no_other(name):
    harmed(DAMAGES[name])


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"sparsity": "0.5"}, 'sparsity: expected a number, found "0.5"'),
        ({"model": 5}, "model: expected a text, found 5"),
        ({"config": []}, "config: expected an object, found a list"),
        ({"config": None}, "config: expected an object, found null"),
        (
            {"config": {"pattern": {"n": 2, "m": 0}}},
            "config.pattern.m: expected a positive integer, found 0",
        ),
        ({"status": "ended"}, 'status: expected running, done or failed, found "ended"'),
        (
            {"finished": "yesterday"},
            'finished: expected a date and time with its zone, found "yesterday"',
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, facts, said):
    run = shutil.copytree(next((outputs() / "model").glob("victim-*")), tmp_path / "run")
    (run / MANIFEST).write_text(json.dumps(json.loads((run / MANIFEST).read_text()) | facts))
    record = archive.load(run)
    assert (record.status, record.error) == ("unreadable", f"manifest.json: {said}")


@pytest.mark.parametrize("sealed", [True, False])
def test_results_that_were_edited_by_hand_are_not_believed_with_a_seal_or_without(tmp_path, sealed):
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    copy = shutil.copytree(run, tmp_path / "out" / "model" / run.name)
    assert archive.load(copy).status == "done"
    results = json.loads((copy / "results.json").read_text())
    key = next(key for key in results["metrics"] if key.startswith("ppl/"))
    results["metrics"][key] /= 2
    if not sealed:
        del results["sha256"]
    (copy / "results.json").write_text(json.dumps(results))
    record = archive.load(copy)
    assert record.status == "unreadable" and record.error.startswith("results.json is not as it was written")
    lines = [told(report.main, tmp_path / "out"), told(compare.main, copy, run)]
    assert [code for code, _ in lines] == [0, 1]
    assert all("results.json is not as it was written" in text for _, text in lines)


@pytest.mark.parametrize("names", [(), ("sha256",)])
def test_a_manifest_that_was_edited_by_hand_names_no_number(tmp_path, names):
    (run,) = (workplace() / "out" / "model").glob("magnitude-*")
    copy = shutil.copytree(run, tmp_path / "out" / "model" / run.name)
    (copy / MANIFEST).write_text((copy / MANIFEST).read_text().replace("magnitude", "mine"))
    without(copy / MANIFEST, *names)
    record = archive.load(copy)
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
    losses = lambda: paired.losses(archive.load(copy), "ppl/tokens@32")
    whole = losses()
    without(step, "sha256")
    assert whole and losses() is None
    without(copy / MANIFEST, "content", "sha256")
    assert losses() == whole


TURNS = st.lists(st.integers(0, 200), min_size=1, max_size=6)
HARM = st.tuples(st.sampled_from(FILES), TURNS, st.sampled_from(ODD), st.sampled_from(["set", "set", "set", "gone"]))


@settings(max_examples=10, **LOOK)
@given(st.lists(HARM, min_size=1, max_size=2))
def test_any_value_may_be_anything(harms):
    harmed(lambda run: [harm(run / file, *rest) for file, *rest in harms])


@pytest.mark.slow
@settings(max_examples=1500, **LOOK)
@given(st.lists(HARM, min_size=1, max_size=3))
def test_many_values_may_be_anything(harms):
    harmed(lambda run: [harm(run / file, *rest) for file, *rest in harms])


@settings(max_examples=200, **LOOK)
@given(TURNS, st.sampled_from(ODD), st.sampled_from(["set", "gone"]))
def test_a_certificate_of_another_form_is_refused_in_one_line(turns, odd, way):
    (file,) = (workplace() / "out" / "model").glob("magnitude-*/model/pruning_manifest.json")
    place = workplace() / "pruning_manifest.json"
    shutil.copy(file, place)
    harm(place, turns, odd, way)
    try:
        promise, _ = contract.promised(json.loads(place.read_text()), None, None)
        contract.judge([], promise)
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 10**12}, "config.json asks for 1000000000000 blocks"),
        ({"hidden_size": 10**30, "num_attention_heads": 1}, "Overflow"),
        (None, "recursion"),
    ],
)
def test_a_config_of_impossible_size_or_depth_is_its_users_file_told_in_one_line(tmp_path, change, said):
    config = json.loads((workplace() / "model" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | (change or {})) if change else DEEP)
    words = [f"model.path={tmp_path}", "model=local", "data=stdlib", "experiment=magnitude", f"outputs={tmp_path}/out"]
    code, text = told(plan.main, *words)
    assert (code, len(text.splitlines())) == (2, 1) and str(tmp_path) in text and said in text, text
