"""Text that came from elsewhere is shown and never obeyed: on the terminal, in every file of a report, in messages."""

import io
import json
import re
import sys
from xml.etree import ElementTree

import pytest
from safetensors.torch import load_file, save_file

from experiments import cache, compare, report, status, verify
from experiments.console.text import CLEAR, Shown, inline, shown, visible
from experiments.figures.catalogue import FIGURES
from tests import tiny
from tests.runs import metrics, put

EVIL = "a\x1b[2J\x07\x9b31m\u202eb"
TOLD = r"a\x1b[2J\x07\x9b31m\u202eb"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (EVIL, TOLD),
        ("tab\tline\nend", "tab\tline\nend"),
        ("back\rspace\b\x7f", r"back\rspace\x08\x7f"),
        ("half \ud800, \udcff", r"half \ud800, \udcff"),
        ("é 中文 ± → 👩‍🔬", "é 中文 ± → 👩‍🔬"),
    ],
)
def test_what_steers_is_shown_as_an_escape_and_letters_stay(text, told):
    assert visible(text) == told == visible(told)


def test_a_name_is_one_line():
    assert inline("a\nerror: b\x1bc\r\n") == r"a error: b\x1bc"


def test_a_bar_goes_back_to_the_start_of_its_line_and_a_watch_clears_the_terminal():
    stream = io.StringIO()
    for text in ("\r50 %", f"{CLEAR}all \x1b[1m", "\n\x1b[A"):
        assert Shown(stream).write(text) == len(text)
    assert stream.getvalue() == "\r50 %" + CLEAR + r"all \x1b[1m" + "\n" + r"\x1b[A"


def test_everything_printed_by_a_command_is_shown_and_the_streams_are_as_before(capsys):
    before = sys.stdout, sys.stderr
    with shown():
        print(EVIL)
        print(EVIL, file=sys.stderr)
    assert capsys.readouterr() == (f"{TOLD}\n", f"{TOLD}\n") and (sys.stdout, sys.stderr) == before


@pytest.fixture
def runs(tmp_path):
    """Runs whose model, method, folder, error and settings try to steer the terminal."""
    for method in ("wanda", f"ma|g<b>{EVIL}"):
        run = put(tmp_path, method, metrics=metrics(24.0), model=f"m$x_{{{EVIL}")
        (run / "steps").mkdir()
    put(tmp_path, "failed", status="failed", error=f"line\nerror: {EVIL}", traceback=EVIL, command=EVIL)
    (tmp_path / f"bro{EVIL}\nken").mkdir()
    (tmp_path / f"bro{EVIL}\nken" / "manifest.json").write_text(json.dumps({"model": EVIL}))
    (tmp_path / "cache" / "dense").mkdir(parents=True)
    (tmp_path / "cache" / "dense" / f"{EVIL}.json").write_text("{}")
    return tmp_path


def test_no_table_picture_or_message_is_steered_by_what_a_run_is_called(runs, capsys, monkeypatch):
    monkeypatch.setattr(report, "FIGURES", FIGURES[:2])
    said = []
    for main, words in (
        (report.main, [runs]),
        (status.main, [runs]),
        (cache.main, [runs]),
        (compare.main, ["wanda", "ma|g", "--outputs", runs, "--to", runs / "pair", "--csv"]),
        (compare.main, [EVIL, "nothing", "--outputs", runs]),
    ):
        main([str(word) for word in words])
        said.append("".join(capsys.readouterr()))
    assert all(TOLD in text and not OBEYED.search(text) for text in said), said
    assert [line for text in said for line in text.splitlines() if line.startswith("error: a")] == [said[-1].strip()], (
        "a name or an error that has lines begins none of its own"
    )
    files = [*runs.glob("report.*"), *runs.glob("pair/*.[mc]*"), *runs.glob("figures/*.svg")]
    assert len(files) == 4 + 2 + len(list(runs.glob("figures/*.svg"))) > 6
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not OBEYED.search(text), file.name
        assert file.suffix != ".svg" or ElementTree.fromstring(text) is not None
    assert r"ma\|g&lt;b>" in (runs / "report.md").read_text() and "ma|g&lt;b&gt;" in (runs / "report.html").read_text()
    assert r"\textbackslash{}x1b[2J" in (runs / "report.tex").read_text()


def test_a_tensor_of_such_a_name_is_told_of(tmp_path, capsys):
    tiny.network().model.save_pretrained(tmp_path)
    capsys.readouterr()
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {f"model.{EVIL}": next(iter(tensors.values())).clone()}, tmp_path / "model.safetensors")
    verify.main([str(tmp_path)])
    text = "".join(capsys.readouterr())
    assert TOLD in text and not OBEYED.search(text)
