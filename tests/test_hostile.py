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

from experiments import cache as caches
from experiments import compare, plan, report, status
from experiments.figures import canvas
from experiments.models import certificate
from experiments.runs.record import load
from tests.faults import ask, workplace
from tests.faults import settings as words

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
    assert code == 0 or (code == 2 and bad in text and len(text.splitlines()) == 1), text
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
        ({"sparsity": "0.5"}, 'sparsity: expected a number from 0 to 1, found "0.5"'),
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
    record = load(run)
    assert (record.status, record.error) == ("unreadable", f"manifest.json: {said}")


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
        promise, _ = certificate.promised(json.loads(place.read_text()), None, None)
        certificate.judge([], promise)
    except ValueError as error:
        assert "\n" not in str(error)


TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", *TOKENIZER])
def test_a_file_of_the_model_nested_too_deep_is_its_users_told_in_one_line_before_anything_runs(tmp_path, name):
    model = shutil.copytree(workplace() / "model", tmp_path / "model")
    (model / name).write_text(DEEP)
    found = ask(*words("experiment=magnitude eval=[]", tmp_path, workplace()), f"model.path={model}")
    assert found.code == 2 and len(found.err.splitlines()) == 1 and f"error: model.path={model}: " in found.err
    assert ("its tokenizer: " in found.err) == (name in TOKENIZER) and not (tmp_path / "out").exists()


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
