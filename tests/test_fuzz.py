"""Random command lines and damaged checkpoints: one line, never a traceback (hypothesis, always the same draws)."""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.models import stored
from experiments.models.load import load
from tests.faults import ask, workplace
from tests.faults import settings as words

NAMES = [
    "sparsity",
    "scope",
    "granularity",
    "propagate",
    "batch",
    "seed",
    "device",
    "outputs",
    "sweep",
    "scratch",
    "save_model",
    "given",
    "pattern",
    "metric",
    "allocator",
    "update",
    "eval",
    "tracker",
    "model",
    "data",
    "experiment",
    "metric.alpha",
    "update.damping",
    "data.sequences",
    "data.path",
    "model.path",
    "model.dtype",
    "eval.perplexity.length",
    "eval.zeroshot.tasks",
    "pattern.n",
    "hydra.run.dir",
    "hydra/launcher",
]
VALUES = [
    "0.5",
    "1e400",
    "-0",
    "nan",
    "2of4",
    "wanda",
    "sparsegpt",
    "[audit]",
    "[perplexity,audit]",
    "null",
    "true",
    "demo",
    "local",
    "stdlib",
    "textfile",
    "cuda:1",
    "[]",
    "{}",
    "{a:1}",
    "${seed}",
    "${sparsity}",
    "${oc.env:HOME}",
    "${oc.env:NONE}",
    "${.x}",
    "???",
    "''",
    "[[a]]",
    "range(3)",
    "choice(1,2)",
    "a,b",
    "08",
    "0x1f",
    "1_0",
    "ü",
]
PIECES = st.sampled_from(
    [
        "=",
        ",",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "'",
        '"',
        "\\",
        "$",
        "${",
        "}",
        ".",
        "/",
        "@",
        "+",
        "~",
        ":",
        "!",
        "#",
        "%",
        "\t",
        "\x00",
        "\n",
        "é",
        "中",
        "-",
    ]
)
TEXT = st.text(max_size=12) | st.lists(PIECES | st.text(max_size=3), max_size=6).map("".join)
NAME = st.sampled_from(NAMES)
MANGLED = st.tuples(NAME, st.integers(0, 20), st.text(max_size=2)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :])
VALUE = st.sampled_from(VALUES) | TEXT | st.integers().map(str) | st.floats().map(str)
PREFIX = st.sampled_from(["", "", "", "+", "~", "++"])
OVERRIDE = st.tuples(PREFIX, NAME | MANGLED | TEXT, VALUE).map(lambda t: f"{t[0]}{t[1]}={t[2]}") | TEXT
LINE = st.lists(OVERRIDE, min_size=1, max_size=3)
FLAGS = st.sampled_from([[], [], ["-m"]])
LOOK = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def refused(line: list[str]) -> None:
    """The command line, with a sparsity that cannot be behind it so that nothing runs: one line and exit code 2."""
    answer = ask(*words(" ", workplace()), *line, "sparsity=2.0")
    said = [text for text in answer.err.splitlines() if text.strip()]
    assert answer.code == 2 and said and all(text.startswith("error: ") for text in said), (line, answer)
    assert "Traceback" not in answer.err and "fault of ours" not in answer.err, (line, answer)


@settings(max_examples=25, **LOOK)
@given(FLAGS, LINE)
def test_any_command_line_is_refused_in_one_line(flags, line):
    refused([*flags, *line])


@pytest.mark.slow
@settings(max_examples=2000, **LOOK)
@given(FLAGS, LINE)
def test_many_command_lines_are_refused_in_one_line(flags, line):
    refused([*flags, *line])


FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
PLACE = st.integers(0, 2**20)
FLIP = st.tuples(
    st.sampled_from(["byte", "byte", "word", "cut", "more", "empty"]), st.sampled_from(FILES), PLACE, PLACE
)


def harmed(content: bytes, kind: str, place: int, value: int) -> bytes:
    """The content with one byte or number changed near its head, cut, made longer or gone."""
    place %= min(len(content), 4096)  # JSON files and the header of a safetensors file
    other = {"byte": bytes([value % 256]), "word": str(value).encode(), "more": content[-100:]}.get(kind, b"")
    if kind in ("cut", "empty"):
        return content[: place if kind == "cut" else 0]
    return content + other if kind == "more" else content[:place] + other + content[place + len(other) :]


def loaded_or_refused(harms: list[tuple[str, str, int, int]]) -> None:
    """A damaged copy of the tiny model loads, or is refused in one line by ValueError or OSError."""
    folder = workplace() / "harmed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(workplace() / "model", folder)
    for kind, name, place, value in harms:
        path = folder / name
        path.write_bytes(harmed(path.read_bytes() or b" ", kind, place, value))
    try:
        stored.check(str(folder))
        load(str(folder), None, "float32", False, None, 4, "cpu")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and "harmed" in str(error), harms


@settings(max_examples=20, **LOOK)
@given(st.lists(FLIP, min_size=1, max_size=2))
def test_any_damaged_checkpoint_loads_or_is_refused_in_one_line(harms):
    loaded_or_refused(harms)


@pytest.mark.slow
@settings(max_examples=1000, **LOOK)
@given(st.lists(FLIP, min_size=1, max_size=3))
def test_many_damaged_checkpoints_load_or_are_refused_in_one_line(harms):
    loaded_or_refused(harms)
