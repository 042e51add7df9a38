"""A method in a package outside this repository: found, run, planned, tabled, told from others, and else refused."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from experiments.composing import command
from experiments.composing.groups import composing, options_of
from experiments.files.disk import seal
from experiments.runs import identity, sources
from tests.test_contracts import options
from tests.test_readme import status, tiny

TEMPLATE = Path(__file__).parents[1] / "examples" / "plugin"
PAGE = (TEMPLATE / "README.md").read_text()
COMMANDS = re.findall(r"^python -m (experiments\..*)$", PAGE, re.MULTILINE)
TRUST, OWN = "plugins=[mypackage]", "metric=centred"
MINE = "# @package _global_\n# Mine.\ndefaults:\n  - override /metric: centred\n  - override /update: zero\n"
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")


def forget() -> None:
    """What was read of sources before is read again."""
    for known in (sources.read, sources._bytes, sources._file, sources._places):
        known.cache_clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the template as the only foreign package, with an experiment beside its metric."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "mypackage/conf/experiment").mkdir()
    (folder / "mypackage/conf/experiment/mine.yaml").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        forget()
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[name]
    forget()


@pytest.fixture(scope="module")
def run(place):
    """The folder of a finished run of the template's metric."""
    words = [OWN, TRUST, *tiny(place), "eval=[audit]", f"outputs={place}/outputs"]
    assert status(shlex.join(["experiments.run", *words])) == 0
    (manifest,) = place.glob("outputs/demo/*/manifest.json")
    return manifest.parent


def test_a_run_of_it_is_done_and_its_command_finds_it_again(run, capfd):
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["config"]["metric"]["_target_"] == "mypackage.centred.Centred"
    assert TRUST in shlex.split(manifest["command"])
    again = command.jobs(shlex.split(manifest["command"])[3:])
    assert [job.run.manifest["identity"] for job in again] == [manifest["identity"]]


def test_a_report_shows_it(run, capfd):
    assert status(f"experiments.report {run.parents[1]} --csv") == 0
    assert ",mine,unstructured," in (run.parents[1] / "report.csv").read_text(), "its experiment is the same method"


def test_where_the_package_is_not_found_its_code_is_not_checked_instead_of_called_another(
    run, place, monkeypatch, capfd
):
    assert status(f"experiments.verify {run}") == 0
    shown = capfd.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [entry for entry in sys.path if entry != str(place)])
        for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
            patch.delitem(sys.modules, name)
        forget()
        assert status(f"experiments.verify {run}") == 2
        reason = "Python finds no source of the package mypackage; install it, or name its folder in PYTHONPATH"
        said = capfd.readouterr().out
        assert f"NOT CHECKED: {reason}" in said and "DIFFERS" not in said and "DIFFERS" not in shown
        assert said.endswith(f"cannot be, first code: {reason}\n")
        retold = json.loads((run / "manifest.json").read_text()) | {"status": "failed"}
        broken = place / "broken"
        shutil.copytree(run, broken)
        seal(broken / "manifest.json", {name: value for name, value in retold.items() if name != "sha256"})
        assert status(f"experiments.verify {broken}") == 1
        assert "broken: 1 of" in capfd.readouterr().out
    forget()


@pytest.mark.parametrize("line", [line for line in COMMANDS if ".plan" in line])
def test_a_plan_of_its_page_is_made(line, place, monkeypatch, capfd):
    monkeypatch.setenv("PRUNE_PLUGINS", "mypackage")
    assert status(line, *tiny(place), "eval=[audit]") == 0 and "42 matrices" in capfd.readouterr().out


@pytest.mark.parametrize("line", [line for line in COMMANDS if ".run" in line])
def test_the_runs_of_its_page_compose(line, place, monkeypatch):
    monkeypatch.setenv("PRUNE_PLUGINS", "mypackage")
    jobs = command.jobs(shlex.split(line)[1:])
    assert "centred" in {job.choices["metric"] for job in jobs}
    assert all(TRUST in job.words for job in jobs), "a launcher's process need not have the variable"


def test_an_ablation_and_the_contract_tests_have_it(place, monkeypatch):
    monkeypatch.setenv("PRUNE_PLUGINS", "mypackage")
    assert "centred" in command.stands_for("ablate=metric", TRUST)["metric"].split(",")
    assert OWN in options("metric") and "experiment=mine" in options("experiment")
    monkeypatch.delenv("PRUNE_PLUGINS")
    assert "centred" not in command.stands_for("ablate=metric")["metric"] and OWN not in options("metric")


def test_a_table_has_its_experiment_as_a_method(place, capfd):
    words = f"all_methods methods=[mine,wanda] budgets=[0.5] seeds=1 {TRUST} outputs={place}/table --dry-run"
    assert status(f"experiments.table {words}", *tiny(place)[:3]) == 0
    assert "demo mine 0.5" in capfd.readouterr().out
    assert status("experiments.table all_methods methods=[mine] --dry-run") == 2


def test_help_and_a_resolved_configuration_show_it(place, capfd):
    words = ["--help", TRUST], ["--cfg", "job", TRUST, OWN]
    for line, shown in zip(words, ("mine", "mypackage.centred.Centred"), strict=True):
        assert status(shlex.join(["experiments.run", *line])) == 0
        assert shown in capfd.readouterr().out


def test_its_code_counts(place):
    job = lambda: identity.identity(command.jobs([OWN, TRUST])[0].config)
    before, file = job(), place / "mypackage/centred.py"
    text = file.read_text()
    file.write_text(text.replace(".abs()", ".square()"))
    forget()
    assert job() != before
    file.write_text(text + "\n# a comment\n")
    forget()
    assert job() == before
    file.write_text(text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([OWN], "metric=centred: no such option"),
        ([OWN, "--config-dir={place}/mypackage/conf"], r"metric: mypackage.centred.Centred .*plugins=\[mypackage\]"),
        (["given=mine", "update=dsnot", "--config-dir={place}/mypackage/conf"], "metric: mypackage.* trusts that"),
        ([OWN, "plugins=[mypakage]"], "plugins: Python finds no package mypakage; install it"),
        ([OWN, "plugins=[./nowhere]"], "plugins: no folder ./nowhere"),
        ([OWN, "plugins=5"], "plugins=5: expected a list of packages or folders"),
        (["--config-dir={place}/shadow"], "wanda.yaml: .*conf has a metric/wanda.yaml too; call one of them"),
        (["experiment=heard", "--config-dir={place}/callback"], "hydra: os.system is no class of this project"),
    ],
)  # fmt: skip
def test_what_is_not_trusted_is_refused_in_one_line(words, line, place):
    for file in ("shadow/metric/wanda.yaml", "callback/experiment/heard.yaml"):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text("# @package _global_\nhydra: { callbacks: { x: { _target_: os.system } } }\n")
    with pytest.raises(ValueError, match=line) as refused:
        command.jobs([word.format(place=place) for word in words])
    assert "\n" not in str(refused.value)


def test_a_folder_of_settings_alone_needs_no_trust(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text(MINE.replace("centred", "magnitude"))
    (job,) = command.jobs(["experiment=own", "--config-dir", str(tmp_path)])
    assert job.names.method == "own" and f"plugins=['{tmp_path}']" in job.words
    with composing():
        assert "own" not in options_of("experiment"), "the next command looks into conf/ alone"
