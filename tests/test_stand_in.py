"""The command that fills a published table: on a model that stands in, on none, and with mistakes."""

import pytest
import yaml

from experiments import table as reproduction
from tests.test_published import SPEC
from tests.test_table import lines


def run(tmp_path, *asked):
    """The command on the table above, in this process, with a short text in the place of the usual one."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog, again and again. " * 40)
    data = ("data=textfile", f"data.path={tmp_path}/text.txt", "data.sequences=2", "data.length=32")
    text = (*data, f"eval.perplexity.path={tmp_path}/text.txt", "eval.perplexity.length=64")
    more = text if "models=[demo]" in asked else ()
    return reproduction.main(["small", f"outputs={tmp_path}/out", "device=cpu", *asked, *more], tmp_path)


def test_a_table_runs_on_a_model_that_stands_in_and_says_so(tmp_path, capfd):
    asked = ["models=[demo]", "methods=[magnitude,wanda]"]
    assert run(tmp_path, *asked) == 0
    (file,) = (tmp_path / "out" / "tables").glob("small-models=demo-methods=magnitude,wanda*.md")
    text = file.read_text()
    assert text in capfd.readouterr().out
    assert "## demo, a stand-in: none of this table's models, so the published column does not apply" in text
    rows = lines(text, "ppl/text@64")
    assert [row[2] for row in rows] == ["magnitude", "wanda"] and all(float(row[3]) > 1 for row in rows)
    assert all(row[4:] == [""] * 5 for row in rows), "nothing published, nothing judged"
    assert run(tmp_path, *asked) == 0 and "2 of 2 runs are done already" in capfd.readouterr().err
    assert file.read_text() == text
    assert run(tmp_path, *asked, "--dry-run") == 0 and "0 of 2 runs to do" in capfd.readouterr().out


def test_what_the_command_line_changes_takes_a_verdict_away(tmp_path, capfd):
    assert run(tmp_path, "models=[demo]", "methods=[magnitude]") == 0
    (row,) = lines(capfd.readouterr().out, "ppl/text@64")
    text = f"{tmp_path}/text.txt"
    own = ["data=textfile", f"data.path={text}", "data.sequences=2", "data.length=32", "eval=[perplexity,audit]"]
    own += [f"eval.perplexity.path={text}", "eval.perplexity.length=64"]
    spec = SPEC | {
        "models": {"small": {"overrides": ["model=demo"]}},
        "overrides": [*own, "seed=${seed}", "outputs=${outputs}", "device=${device}"],
        "values": {"Text": {"key": "ppl/text@64"}},
        "published": {"Text": {"0.5": {"magnitude": {"small": row[3]}}}},
        "absent": [],
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    asked = ["own", "methods=[magnitude]", f"outputs={tmp_path}/out", "device=cpu"]
    assert reproduction.main(asked, tmp_path) == 0
    out, told = capfd.readouterr()
    assert "1 of 1 runs are done already" in told and lines(out, "Text")[0][7] == "within noise"
    assert reproduction.main([*asked, "data.sequences=3"], tmp_path) == 0
    out = capfd.readouterr().out
    assert lines(out, "Text")[0][7] == "not comparable (1)" and "1. data.sequences=3 on the command line" in out


@pytest.mark.slow
def test_a_dry_run_plans_every_run_and_begins_none(tmp_path, capfd):
    assert run(tmp_path, "models=[demo]", "methods=[magnitude,wanda]", "--dry-run") == 0
    out = capfd.readouterr().out
    assert "2 of 2 runs to do: " in out
    assert [line.partition("  ")[0] for line in out.splitlines()[2:4]] == ["demo magnitude 0.5", "demo wanda 0.5"]
    assert {made.name for made in tmp_path.glob("out/*")} <= {"cache"}, "no run"


def test_cells_of_a_model_that_is_not_at_hand_stay_empty_and_say_so(tmp_path, capfd):
    assert run(tmp_path, "models=[llama2_7b]", "methods=[wanda]", "data.sequences=16") == 0
    text = capfd.readouterr().out
    assert lines(text, "WikiText2", "0.5", "wanda")[0][3:5] == ["", "6.90 ± 0.03"]
    assert "llama-2-7b is not at hand, its cells (1) are empty: meta-llama/Llama-2-7b-hf is not downloaded" in text
    assert run(tmp_path, "models=[llama2_7b]", f"model.path={tmp_path}/none", "--dry-run") == 0
    assert f"model.path={tmp_path}/none: no such folder" in capfd.readouterr().out


def test_a_mistake_gets_one_line_and_nothing_is_run(tmp_path, capfd):
    for asked, said in (
        (["models=[demo]", "data.sequnces=3"], "data.sequnces: no such setting, did you mean data.sequences"),
        (["methods=[wnada]"], "no method wnada, did you mean wanda?"),
        (["models=[demo]", "eval.zeroshot.limit=3"], "zeroshot is not chosen"),
    ):
        assert run(tmp_path, *asked) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert {made.name for made in tmp_path.glob("out/*")} <= {"cache"}, "no run"
