"""Token windows made from a text are kept by what decides them, made once, and never used when they are damaged."""

import logging
import multiprocessing
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from experiments.console.errors import note
from experiments.data.files import TextFile
from experiments.data.papers import C4
from experiments.data.token_cache import cached_windows
from experiments.files.disk import intact
from experiments.models import location
from tests.text import write_lines

WORDS = "Once there was a cat, and the cat had a hat. The hat was red; the cat was not, but it could have been. "


@pytest.fixture(scope="module")
def reader():
    return AutoTokenizer.from_pretrained(location.located("demo"))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{number}. {WORDS}" for number in range(60)))
    return str(tmp_path / "text.txt")


def entries(outputs):
    return sorted(path.name for path in (outputs / "cache" / "tokens").glob("*.safetensors"))


def test_kept_windows_are_those_of_the_source_and_what_changes_them_makes_others(path, reader, tmp_path):
    text = TextFile(path, sequences=4, length=16)
    expected, outputs = text.calibration(reader, 64), str(tmp_path)
    for _ in range(2):
        assert torch.equal(cached_windows(text, "calibration", reader, 64, outputs), expected)
    assert len(entries(tmp_path)) == 1
    for other in (replace(text, seed=1), replace(text, sequences=5), replace(text, length=15)):
        found = cached_windows(other, "calibration", reader, 64, outputs)
        assert torch.equal(found, other.calibration(reader, 64)) and not torch.equal(found, expected)
    assert cached_windows(text, "calibration", reader, 8, outputs).shape == (4, 8)
    assert torch.equal(cached_windows(text, "evaluation", reader, 16, outputs), text.evaluation(reader, 16))
    assert len(entries(tmp_path)) == 6


def test_a_text_counts_with_its_content_and_the_way_it_is_read(path, reader, tmp_path):
    lines = write_lines(tmp_path / "a.jsonl", [WORDS] * 20)
    for name in ("b.jsonl", "c.txt"):
        shutil.copy(lines, tmp_path / name)
    found = [
        cached_windows(TextFile(str(tmp_path / n)), "evaluation", reader, 16, str(tmp_path))
        for n in ("a.jsonl", "b.jsonl", "c.txt")
    ]
    assert torch.equal(found[0], found[1]) and found[2].shape != found[0].shape
    assert len(entries(tmp_path)) == 3, "a name of its own for each name of a file"
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace("cat", "dog"))
    assert not torch.equal(cached_windows(TextFile(lines), "evaluation", reader, 16, str(tmp_path)), found[0])


def test_settings_of_the_calibration_make_no_other_evaluation_windows(reader, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [WORDS] * 20)
    first = C4("r", "v", "train", "evaluation", path, path, "text", sequences=2, length=16, seed=0)
    for source in (first, replace(first, seed=1, sequences=3, length=8, path=None)):
        cached_windows(source, "evaluation", reader, 16, str(tmp_path))
    assert len(entries(tmp_path)) == 1


def test_another_tokenizer_makes_other_windows(path, reader, tmp_path):
    other = AutoTokenizer.from_pretrained(location.located("demo"))
    other.add_tokens(["the cat had"])
    text = TextFile(path)
    found = [cached_windows(text, "evaluation", each, 16, str(tmp_path)) for each in (reader, other)]
    assert len(entries(tmp_path)) == 2 and found[0].shape != found[1].shape


def test_a_damaged_entry_is_said_in_one_line_and_made_again(path, reader, tmp_path, caplog):
    text = TextFile(path)
    expected = cached_windows(text, "evaluation", reader, 16, str(tmp_path)).clone()
    file = tmp_path / "cache" / "tokens" / entries(tmp_path)[0]
    content = file.read_bytes()
    for broken in (content[:-8], content[:-1] + bytes([content[-1] ^ 1]), b""):
        file.write_bytes(broken)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "experiments"):
            assert torch.equal(cached_windows(text, "evaluation", reader, 16, str(tmp_path)), expected)
        assert len(caplog.messages) == 1 and file.name in caplog.messages[0]
        assert intact(file)


def test_the_cap_of_a_window_is_said_for_kept_windows_too(path, reader, tmp_path, caplog):
    text = TextFile(path, sequences=2, length=40)
    for _ in range(2):
        note.cache_clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "experiments"):
            cached_windows(text, "calibration", reader, 32, str(tmp_path))
        assert caplog.messages == ["data.length=40 is more than this model takes; using its limit 32"]


class Slow(TextFile):
    """A text that takes a while, and says each time that it is read."""

    def evaluation(self, tokenizer, length):
        with Path(f"{self.path}.reads").open("a") as reads:
            reads.write("x")
        time.sleep(0.5)
        return super().evaluation(tokenizer, length)


def read_slowly(path, tokenizer, outputs):
    cached_windows(Slow(path), "evaluation", tokenizer, 16, outputs)


def test_of_two_processes_one_makes_the_windows_and_the_other_waits(path, reader, tmp_path):
    start = multiprocessing.get_context("fork").Process
    both = [start(target=read_slowly, args=(path, reader, str(tmp_path))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert Path(f"{path}.reads").read_text() == "x"
