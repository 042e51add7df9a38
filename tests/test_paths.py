"""Paths on the command line are what the shell handed over, and names made of them stay inside their folder."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.composing import command
from experiments.composing.job import name_model
from experiments.composing.overrides import literal
from experiments.files.disk import TAKEN, file_name
from experiments.models.location import located
from experiments.reproduction import cells, request
from experiments.table import TABLES

ODD = ["epoch=3-step=99", "a#b", "run(1)", "[v2] llama", "it's", 'say "x"', "'tis", "a'b\"c\\", "$HOME", "50%", "{a}"]
ODD += [
    "1e5",
    "true",
    " x ",
    "a\\b",
    "\\\\server\\x\\",
    "日本",
    "a,b",
    "choice(a,b)",
    "range(1,3)",
    "a;b&c|<d>",
    "!x",
    "\t",
    "~",
]


def read(word):
    return OverridesParser.create().parse_override(word)


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_read_as_it_is_typed(name, tmp_path):
    path = f"{tmp_path}/{name}"
    os.mkdir(path)  # noqa: PTH102 - as it is typed
    for key in ("model.path", "data.path", "+data.evaluation_path", "eval.perplexity.path", "eval.zeroshot.files"):
        word = literal(f"{key}={path}")
        assert read(word).value() == path and not read(word).is_sweep_override()
        assert literal(word) == word, "what is quoted already stays"
    for key in ("outputs", "scratch"):
        assert read(literal(f"{key}={path}")).value() == path


def test_what_is_no_path_or_means_more_than_a_path_stays_as_it_is():
    words = ["sparsity=0.5,0.6", "eval=[audit]", "model.path=", "data.path=null", "data.path=???"]
    words += ["data.path='a,b','c'", 'model.path="a#b"', "scratch=${outputs}/x", "update.damping=choice(1,2)", "-m"]
    assert [literal(word) for word in words] == words


def test_a_comma_parts_paths_unless_the_whole_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=1", "b", "c,d"):
        (tmp_path / name).mkdir()
    paths = lambda word: [job.config["model"]["path"] for job in command.jobs(["-m", "model=local", word])]
    assert paths("model.path=a=1,b") == ["a=1", "b"]
    assert paths("model.path=c,d") == ["c,d"]
    assert paths("model.path='c,d',b") == ["c,d", "b"]
    with pytest.raises(ValueError, match="asks for several runs; add -m"):
        command.jobs(["model=local", "model.path=a=1,b"])


@pytest.mark.parametrize("name", ["epoch=3-step=99", "[v2] llama's 50%", "1e5"])
def test_a_run_its_command_and_each_run_of_a_multirun_have_the_path(name, tmp_path):
    (tmp_path / name).mkdir()
    words = ["model=local", f"model.path={tmp_path}/{name}/", f"outputs={tmp_path}/o{name}"]
    for flags in ([], ["-m", "sparsity=0.5,0.6"]):
        for job in command.jobs([*flags, *words]):
            assert job.config["model"]["path"] == f"{tmp_path}/{name}/" and job.names.model == name
            assert job.config["outputs"] == f"{tmp_path}/o{name}"
            again = command.jobs(shlex.split(job.names.command)[3:])
            assert again[0].config | {"sweep": None} == job.config | {"sweep": None}


def test_a_path_at_home_is_there_and_a_user_who_is_not_is_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    job = command.jobs(
        ["model=local", "model.path=~/m", "outputs=~", "eval=[zeroshot]", "eval.zeroshot.files=~/tasks"]
    )[0]
    assert job.config["model"]["path"] == f"{tmp_path}/m" and job.config["outputs"] == str(tmp_path)
    assert job.config["eval"]["zeroshot"]["files"] == f"{tmp_path}/tasks"
    assert command.jobs(["model=local", "model.path=~nobody-here/m"])[0].config["model"]["path"] == "~nobody-here/m"


@pytest.mark.parametrize("name", ["m", "a,b=c [1]", "1e5", "org/name"])
def test_a_path_is_a_choice_of_a_model_and_of_a_text(name, tmp_path, monkeypatch):
    folder = tmp_path / "here" / name
    shutil.copytree(located("demo"), folder)
    folder.with_suffix(".txt").write_text("one text")
    full = ["model=local", f"model.path={folder}", "data=textfile", f"data.path={folder}.txt"]
    full, short = command.jobs(full), command.jobs([f"model={folder}", f"data={folder}.txt"])
    assert full == short and full[0].run.folder == short[0].run.folder
    assert full[0].names.command == short[0].names.command and "model=local" in full[0].names.command
    monkeypatch.chdir(tmp_path / "here")
    assert command.jobs([f"model={name}"])[0].config["model"]["path"] == name, "a folder that is there"
    assert command.jobs(["model=owner/name"])[0].config["model"]["path"] == "owner/name", "of the hub"
    assert command.jobs(["data=./x.safetensors"])[0].choices["data"] == "tokens"


def test_paths_and_options_are_swept_over_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    swept = command.jobs(["-m", f"model=demo,{tmp_path}/a b,./c", f"data=stdlib,{tmp_path}/x.txt"])
    assert [job.choices["model"] for job in swept] == ["demo", "demo", "local", "local", "local", "local"]
    assert [job.names.model for job in swept[::2]] == ["demo", "a b", "c"], "an option goes before a folder of its name"
    assert [job.choices["data"] for job in swept[:2]] == ["stdlib", "textfile"]
    with pytest.raises(ValueError, match=r"no such option.*or a path, as model=\./absent"):
        command.jobs(["model=absent"])


def test_a_question_about_a_path_is_answered_with_its_settings():
    asked = [sys.executable, "-m", "experiments.run", "model=/x/a=b", "--cfg", "job"]
    answer = subprocess.run(asked, capture_output=True, text=True)
    assert "  path: /x/a=b\n" in answer.stdout, answer.stderr


def test_a_table_takes_the_same_paths():
    words = ["outputs=a#b [1]", "device=cpu", "eval.zeroshot.files=x=1"]
    file = TABLES / "besa_wikitext2.yaml"
    part = request.read(words, cells.plain(file))
    assert cells.plain(file, part.settings)["outputs"] == "a#b [1]"
    assert [read(word).value() for word in part.overrides] == ["x=1"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/hub/models--org--na-me/snapshots/0123456789abcdef", "na-me"),
        ("/hub/models--gpt2/snapshots/0123456789abcdef/", "gpt2"),
        ("org/name", "name"),
        ("/x/checkpoint-500//", "checkpoint-500"),
        ("{here}/m/sub/..", "m"),
        ("{here}/m/.", "m"),
        ("{here}/link/..", "m"),
    ],
)
def test_a_model_is_called_what_its_folder_or_its_repository_is(path, name, tmp_path):
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "m" / "sub")
    assert name_model(path.format(here=tmp_path)) == name


HOSTILE = ["..", ".", "/", "../../etc", "/abs", "a/b", "a_b", "\0", "\x1b[31m", "a\nb", "\u202eb", ".hidden", "\udcff"]
HOSTILE += ["x" * 300, "x" * 301, "é" * 200, *TAKEN]


def test_a_name_is_one_file_of_a_folder_and_another_for_another_text(tmp_path):
    names = [file_name(text) for text in HOSTILE]
    assert len(set(names)) == len(set(HOSTILE))
    for name in names:
        assert name.isprintable() and not name.startswith(".") and name not in TAKEN
        (tmp_path / name).mkdir()
        assert (tmp_path / name).resolve().parent == tmp_path.resolve() and len(os.fsencode(name)) <= 120
    assert [file_name(text) for text in names] == names, "a name is its own"
    assert file_name("Llama-3.1 [v2], é") == "Llama-3.1 [v2], é"


def test_a_sweep_is_named_by_one_file():
    for name in ("..", "a/b", "x" * 201, "a\x1bb", "é" * 101):
        with pytest.raises(ValueError, match="expected a name of at most 60 letters") as caught:
            command.jobs(["-m", f"sweep='{name}'"])
        assert str(caught.value).isprintable()
