"""The tables of published numbers are written alike, and every cell of theirs is a run that exists."""

import pytest

from experiments.composing.groups import CONF, composing
from experiments.composing.job import compose_job
from experiments.reproduction.verdict import GRID
from tests.published import NAMES, numbers, table

KEYS = ["kind", "title", "paper", "source", "trust", "notes", "unstated", "outputs", "device", "seeds", "overrides"]
KEYS += ["models", "usual", "budgets", "methods", "values", "published", "absent"]
FIELDS = {
    "models": {"overrides", "reason"},
    "budgets": {"overrides"},
    "methods": {"overrides", "budgets", "models", "grid", "reason", "stand_in"},
    "values": {"key", "reason", "tasks", "versions", "harness", "images", "size"},
}
WINDOWED = ("besa", "gblm", "mixed", "barber")  # these papers use windows of 2048 for every model


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_written_as_all_others(name):
    whole = table(name)
    assert list(whole) == [key for key in KEYS if key in whole] and set(KEYS) - set(whole) <= {"absent"}
    assert whole["kind"] == "published" and whole["trust"] in ("quoted", "readme", "paper")
    assert all(isinstance(note, str) for note in whole["notes"]), "a note with a colon is quoted"
    for part, fields in FIELDS.items():
        for entry, said in whole[part].items():
            assert isinstance(entry, str) and said.keys() & {"overrides", "key"}, f"{part}: {entry}"
            assert set(said) <= fields, f"{part}: {entry}: {set(said) - fields}"
    for model, entry in whole["models"].items():
        assert (entry["overrides"] is None) == ("reason" in entry), model
    for method, entry in whole["methods"].items():
        assert set(entry.get("budgets", [])) <= set(whole["budgets"]), method
        assert set(entry.get("models", {})) <= set(whole["models"]), method


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_has_its_place_and_every_place_is_used(name):
    whole, cells = table(name), numbers(name)
    methods, absent = whole["methods"], whole.get("absent", [])
    assert not set(methods) & set(absent)
    for _, budget, method, _ in cells:
        assert method in absent or budget in (methods[method].get("budgets") or whole["usual"]), (budget, method)
    if cells:  # LLM-Barber publishes settings only
        places = [whole["values"], whole["budgets"], [*methods, *absent], whole["models"]]
        assert [set(names) for names in zip(*cells, strict=True)] == [set(names) for names in places]


def runs(name):
    """(model, method, budget, overrides) of every cell that can be run."""
    whole, values = table(name), {"${seed}": "0", "${device}": "cpu", "${outputs}": "outputs"}
    for model, entry in whole["models"].items():
        for method, said in whole["methods"].items() if entry["overrides"] is not None else ():
            for budget in said.get("budgets") or whole["usual"]:
                lines = [*whole["overrides"], *entry["overrides"], *whole["budgets"][budget]["overrides"]]
                lines += [*said["overrides"], *said.get("models", {}).get(model, [])]
                for place, value in values.items():
                    lines = [line.replace(place, value) for line in lines]
                yield model, method, budget, lines


def check(name, model, method, budget, lines):
    """The run removes what its budget says, in the paper's windows, and measures what the table's columns ask for."""
    config = compose_job(lines).config
    evaluations, printed = config["eval"], numbers(name)
    tasks = evaluations.get("zeroshot", {}).get("tasks", [])
    measured = {f"ppl/{key}@{one['length']}" for key, one in evaluations.items() if "text" in one}
    measured |= {f"acc/{task}" for task in tasks} | ({"acc/mean"} if len(tasks) > 1 else set())
    if "top1" in evaluations:
        measured.add(f"acc/{config['data']['repository'].rpartition('/')[2]}")
    for label, value in table(name)["values"].items():
        if not printed or (label, budget, method, model) in printed:
            assert value["key"] in measured and value.get("tasks", tasks) == tasks
    assert (config["allocator"]["sparsity"] == 0) == (budget in ("dense", "unpruned"))
    assert ":" in budget or budget in ("dense", "unpruned") or config["sparsity"] == float(budget)
    stated(name, method, config["quantizer"])
    windows = {config["data"].get("length"), *(one["length"] for one in evaluations.values() if "text" in one)}
    assert len(windows) == 1, "calibrated and evaluated in windows of one length"
    assert table(name)["paper"] not in WINDOWED or windows == {2048}


def stated(name, method, quantizer):
    """A quantised run has the grid that its table states; where that is not all of it, the table says why."""
    whole, said = table(name), table(name)["methods"][method].get("grid", {})
    assert ("bits" in quantizer) == bool(said) and set(said) <= set(GRID), f"{name} {method}"
    ours = quantizer | {"ends": quantizer["_target_"].rpartition(".")[2].lower()}
    assert {key: ours[key] for key in said} == said, f"{name} {method}"
    complete = set(said) == set(GRID)
    assert not said or complete or whole["unstated"] or whole["methods"][method].get("reason"), f"{name} {method}"


def test_the_cells_of_the_tables_compose():
    """One cell of every method, of every budget, and of every list of evaluations and columns."""
    seen = set()
    with composing():
        for name in NAMES:
            whole = table(name)
            columns = str([whole["overrides"], whole["values"]])
            for model, method, budget, lines in runs(name):
                if new := {str(whole["methods"][method]["overrides"]), budget, columns} - seen:
                    check(name, model, method, budget, lines)
                    seen |= new


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_cells_of_a_table_compose(name):
    """All of the first model; of the others those that have settings of their own, and one."""
    models = []
    with composing():
        for model, method, budget, lines in runs(name):
            if model not in models[1:] or model in table(name)["methods"][method].get("models", {}):
                check(name, model, method, budget, lines)
            models += [model] * (model not in models)


def test_every_model_is_an_option():
    options = {path.stem for path in (CONF / "model").glob("*.yaml")}
    for name in NAMES:
        for label, entry in table(name)["models"].items():
            chosen = [line.partition("=")[2] for line in entry["overrides"] or [] if line.startswith("model=")]
            assert len(chosen) == (entry["overrides"] is not None) and set(chosen) <= options, f"{name}: {label}"
