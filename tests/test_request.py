"""What the command line asks of a table, and the intervals and verdicts over its seeds."""

import math
from collections import Counter

import pytest
import torch

from experiments import table as reproduction
from experiments.reproduction import cells
from experiments.reproduction.cells import rounding
from experiments.reproduction.request import Request, narrow, part_name, read
from experiments.reproduction.verdict import BETTER, NOISE, NOT_JUDGED, WORSE, verdict
from experiments.summary import seeds
from experiments.summary.seeds import prediction

TABLE = {
    "kind": "methods",
    "shared": "../shared",
    "needs": ["data/models"],
    "models": {"a": {"overrides": []}, "b": {"overrides": []}},
    "methods": {"x": {"overrides": ["m"]}, "y": {"overrides": ["m"]}},
    "budgets": {"1": {"overrides": ["s=1"]}, "2": {"overrides": ["s=2"]}},
    "usual": ["1", "2"],
    "seeds": [0],
    "overrides": ["seed=${seed}"],
}


def test_models_methods_budgets_and_seeds_choose_what_is_run():
    every = cells.expand(TABLE)
    assert [cell.overrides for cell in every[:4]] == [("seed=0", "s=1", "m"), ("seed=0", "s=2", "m")] * 2
    assert cells.expand(narrow(TABLE, Request())) == every and len(every) == 8
    part = narrow(TABLE, Request(models=("b",), methods=("y",), budgets=("1",), seeds=(0, 4)))
    assert [(c.model, c.method, c.budget, c.seed) for c in cells.expand(part)] == [
        ("b", "y", "1", 0),
        ("b", "y", "1", 4),
    ]


def test_words_of_the_command_line_are_a_part_of_the_table_its_root_settings_or_overrides():
    spec = {"kind": "order", "title": "t", "outputs": "outputs", "device": "auto", "models": ["a"], "overrides": []}
    words = ["models=[a, 'b']", "budgets=0.5,2:4", "seeds=3", "outputs=x", "data.sequences=4", "hydra/launcher=joblib"]
    part = read(words, spec)
    assert (part.models, part.budgets, part.seeds) == (("a", "b"), ("0.5", "2:4"), (0, 1, 2))
    assert (part.settings, part.overrides) == (("outputs=x",), ("data.sequences=4", "hydra/launcher=joblib"))
    assert read(["seeds=[0,5]"], spec).seeds == (0, 5) and read(["seeds=[3]"], spec).seeds == (3,)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("models", "write name=value"),
        ("outpust=x", "did you mean outputs?"),
        ("seeds=half", "seeds: expected their number"),
        ("seeds=0", "seeds: expected their number"),
        ("seed=3", "the table sets seed; choose with seeds="),
        ("sparsity=0.6", "the table sets sparsity; choose with budgets="),
        ("data.sequences=16,32", "expected one value"),
        ("sweep=x", "a table is one multirun"),
        ("data._target_=os.system", "a class is chosen as an option"),
        ("data=[", "write name=value"),
    ],
)
def test_a_word_that_a_table_cannot_take_is_refused(word, said):
    spec = {"kind": "order", "title": "t", "outputs": "outputs", "models": ["a"], "overrides": []}
    with pytest.raises(ValueError, match=said):
        read([word], spec)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Request(models=("babylama-1m",)), "no model babylama-1m; there are a, b"),
        (Request(methods=("z",)), "no method z; there are x, y"),
        (Request(budgets=("11",)), "no budget 11, did you mean 1"),
    ],
)
def test_what_does_not_exist_is_refused(part, said):
    with pytest.raises(ValueError, match=said):
        narrow(TABLE, part)


def test_the_quantiles_hold_95_percent_of_student_s_distribution():
    for degrees, quantile in ((degrees, seeds.quantile(degrees)) for degrees in (*range(1, 13), 30)):
        scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
        x = torch.linspace(-quantile, quantile, 200_001, dtype=torch.float64)
        inside = torch.trapezoid(scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2), x)
        assert inside.item() == pytest.approx(0.95, abs=2e-5)


def test_an_interval_is_that_of_student_s_distribution():
    mean, half = seeds.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.7764 * math.sqrt(2.5 / 5))
    assert seeds.interval([7.0]) == (7.0, math.inf)


def test_a_prediction_interval_holds_one_more_draw_19_times_in_20():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 4, generator=generator, dtype=torch.float64).tolist()
    inside = sum(abs(last - mean) <= half for *seen, last in draws for mean, half in [prediction(seen)])
    assert inside / len(draws) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("printed", "half"), [("5.47", 0.005), ("5.40", 0.005), ("17", 0.5), ("2.61E+03", 5.0), ("49.1", 0.05)]
)
def test_a_printed_number_is_rounded_to_half_a_unit_of_its_last_digit(printed, half):
    assert rounding(printed) == pytest.approx(half)


@pytest.mark.parametrize(
    ("ours", "published", "slack", "drawn", "lower", "said"),
    [
        ([6.90, 6.92, 6.94], 6.99, 0.005, True, True, NOISE),  # 4.303 * 0.02 * sqrt(4/3) = 0.099
        ([6.90, 6.92, 6.94], 7.03, 0.005, True, True, BETTER),
        ([6.90, 6.92, 6.94], 7.03, 0.035, True, True, NOISE),  # by its published spread
        ([6.90, 6.92, 6.94], 6.81, 0.005, True, True, WORSE),
        ([60.0, 60.1, 60.2], 59.0, 0.05, True, False, BETTER),
        ([60.0, 60.1, 60.2], 61.0, 0.05, True, False, WORSE),
        ([6.93], 6.92, 0.005, True, True, NOT_JUDGED),
        ([6.925], 6.92, 0.005, True, True, NOISE),  # rounded it is the same number
        ([6.93], 6.92, 0.005, False, True, WORSE),  # nothing is drawn: one value is all there is
        ([6.93, 6.93], 6.92, 0.005, True, True, WORSE),  # both seeds found the same
    ],
)
def test_a_verdict_asks_whether_the_published_number_could_be_one_more_draw(ours, published, slack, drawn, lower, said):
    assert verdict(ours, published, slack, drawn, lower) == said


OPEN = {name: value for name, value in TABLE.items() if name != "needs"} | {"name": "own", "values": {}}


@pytest.fixture
def folders(tmp_path):
    """A place with the folders of some models."""
    for name in ("my-model", "my model", "a", "x/m", "y/m"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "typed", "label", "override"),
    [
        ("{}/my-model", (), "my-model", "model={}/my-model"),
        ("local", ("model.path={}/my-model",), "my-model", "model=local"),
        ("local", ("model.path='{}/my model'",), "my model", "model=local"),
        ("{}/a", (), "{}/a", "model={}/a"),  # the table's own a is another one
        ("demo", (), "demo", "model=demo"),
    ],
)
def test_a_model_of_ones_own_is_called_by_its_folder(folders, model, typed, label, override):
    request = Request(models=(model.format(folders),), overrides=tuple(line.format(folders) for line in typed))
    part = narrow(OPEN, request)
    assert list(part["models"]) == [label.format(folders)]
    assert override.format(folders) in part["models"][label.format(folders)]["overrides"]


def test_two_models_of_one_name_have_two_rows(folders):
    part = narrow(OPEN, Request(models=(f"{folders}/x/m", f"{folders}/y/m")))
    assert list(part["models"]) == ["m", f"{folders}/y/m"]


def test_a_model_that_is_not_there_is_refused(folders):
    with pytest.raises(FileNotFoundError, match=f"{folders}/typo: no such folder"):
        narrow(OPEN, Request(models=(f"{folders}/typo",)))


def test_a_folder_beside_the_command_that_is_named_like_a_tables_model_does_not_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert narrow(OPEN, Request(models=("a",)))["models"] == {"a": OPEN["models"]["a"]}


def test_a_misspelt_method_of_ones_own_is_answered_with_it(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "my_metric.yaml").write_text("")
    with pytest.raises(ValueError, match=r"no method my_metrik, did you mean my_metric\?; there are x, y"):
        narrow(OPEN, Request(methods=("my_metrik",), overrides=(f"plugins=[{tmp_path}]",)))


def test_a_folder_of_settings_has_methods_for_a_table(tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("")
    assert reproduction.main(["all_methods", "methods=[mien]", "--config-dir", str(tmp_path)]) == 2
    assert "no method mien, did you mean mine?" in capsys.readouterr().err
    assert reproduction.main(["all_methods", "methods=[mine]", "--config-dir", f"{tmp_path}/absent"]) == 2
    assert f"no folder {tmp_path}/absent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "own"),
        (["models=[a,b]", "seeds=1", "hydra/launcher=joblib", "batch=2"], "own"),
        (["methods=x", "seeds=2"], "own-methods=x-seeds=0,1"),
        (["data.sequences=8", "eval=[ptb]"], "own-data.sequences=8-eval=[ptb]"),
        (["models=org/b", "data.length=8"], "own-models=org_b-data.length=8"),
    ],
)
def test_the_files_of_a_part_are_named_after_what_makes_it_one(words, name):
    request = read(words, OPEN)
    found = part_name(OPEN, narrow(OPEN, request), request)
    assert found == name or (found.startswith(f"{name}-") and "_" in name), found


def test_a_method_or_a_budget_with_seeds_of_its_own_has_no_other_runs_unless_seeds_are_typed(shared):
    whole = cells.load(reproduction.TABLES / "study.yaml")
    runs = lambda words: Counter((cell.method, cell.budget) for cell in cells.expand(narrow(whole, read(words, whole))))
    own, typed = runs([]), runs(["seeds=2"])
    assert {place for place, count in own.items() if count == 3} == {(m, "0.5") for m in ("wanda", "sparsegpt", "admm")}
    assert set(own.values()) == {1, 3} and set(typed.values()) == {2} and set(typed) == set(own)
