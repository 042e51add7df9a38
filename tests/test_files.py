"""What a user's own text and token files hand to the pruner, and how broken ones are refused."""

import gzip
import inspect

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from experiments.data.files import TextFile, Tokens, at
from experiments.data.windows import drawn
from tests.text import OPTIONS, PARITY, ROOT, needs_shared, refused, rows_of, source, write_lines, write_parquet


def test_a_text_is_the_same_stream_in_every_kind_of_file(tmp_path, tokenizer):
    texts = ["First of all, a café.", "Then\nanother line.", "And the last of them."] * 10
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    paths = [str(tmp_path / "a.txt"), write_lines(tmp_path / "a.jsonl", texts)]
    paths += [write_lines(tmp_path / "a.jsonl.gz", texts), write_parquet(tmp_path / "a.parquet", texts)]
    ids = tokenizer("\n\n".join(texts))["input_ids"]
    for path in paths:
        text = source("textfile", path=path, sequences=4, length=16)
        text.check()
        assert text.name == "a"
        assert text.evaluation(tokenizer, 16).tolist() == rows_of(ids, 16).tolist()
        assert torch.equal(text.calibration(tokenizer, 512), drawn(torch.tensor(ids), 4, 16, 0))


def test_the_line_ends_of_windows_are_read_as_line_ends(tmp_path, tokenizer):
    (tmp_path / "unix.txt").write_bytes(b"one line\nand another\n" * 20)
    (tmp_path / "windows.txt").write_bytes(b"one line\r\nand another\r\n" * 20)
    found = [TextFile(str(tmp_path / name)).evaluation(tokenizer, 8) for name in ("unix.txt", "windows.txt")]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"text", ("a.csv", ".jsonl.gz")),
        ("a.txt", b"", ("a.txt", "empty")),
        ("a.txt", b" \n \n", ("a.txt", "no text")),
        ("a.txt", b"one\ntwo \xff", ("a.txt, line 2", "0xff", "UTF-8")),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y", "id": 1}\n', ("a.jsonl, line 2", '"text"', "body, id")),
        ("a.jsonl", b'{"text": 3}\n', ("a.jsonl, line 1", '"text"')),
        ("a.jsonl", b'{"text": "x"}\n\n["y"]\n', ("a.jsonl, line 3", "list")),
        ("a.jsonl", b'{"text": "x"\n', ("a.jsonl, line 1", "JSON")),
        ("a.jsonl", b'{"text": "\xff"}\n', ("a.jsonl, line 1", "UTF-8")),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "x"}\n' * 99, mtime=0)[:-9],
            ("a.jsonl.gz", "broken packed data", "again"),
        ),
        ("a.parquet", b"not a table", ("a.parquet", "Parquet")),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_in_one_line(tmp_path, name, content, words, tokenizer):
    (tmp_path / name).write_bytes(content)
    refused(lambda: TextFile(str(tmp_path / name)).evaluation(tokenizer, 8), *words)


def test_a_table_without_the_column_is_refused(tmp_path, tokenizer):
    path = write_parquet(tmp_path / "a.parquet", ["x"], "sentence")
    refused(lambda: TextFile(path).evaluation(tokenizer, 8), '"text"', "sentence")


def test_a_text_for_a_model_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    refused(lambda: TextFile(str(tmp_path / "a.txt")).evaluation(None, 8), "no tokenizer", "data=tokens")


@needs_shared
def test_token_files_are_taken_as_they_are():
    expected = load_file(PARITY)["tokens"]
    tokens = source("tokens", path=str(PARITY))
    tokens.check()
    assert tokens.name == "wiki-llama-3m-calib"
    assert torch.equal(tokens.calibration(None, 1024), expected)
    assert torch.equal(tokens.evaluation(None, 17), expected)
    part = source("tokens", path=str(PARITY), sequences=3, length=50).calibration(None, limit=64)
    assert torch.equal(part, expected[:3, :50])


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        ({"ids": torch.ones(2, 4, dtype=torch.int64)}, {}, ("`tokens`", "found ids")),
        ({"tokens": torch.ones(2, 4)}, {}, ("int64", "F32 [2, 4]")),
        ({"tokens": torch.ones(8, dtype=torch.int64)}, {}, ("int64", "I64 [8]")),
        ({"tokens": torch.ones(0, 4, dtype=torch.int64)}, {}, ("n >= 1", "[0, 4]")),
        ({"tokens": torch.full((2, 4), -1)}, {}, ("-1", "padding")),
        ({"tokens": torch.ones(2, 4, dtype=torch.int64)}, {"sequences": 3}, ("data.sequences=3", "2 rows")),
        ({"tokens": torch.ones(2, 4, dtype=torch.int64)}, {"length": 5}, ("data.length=5", "4 tokens")),
        (None, {}, ("not a readable safetensors file",)),
    ],
)
def test_a_token_file_of_another_form_is_refused_in_one_line(tmp_path, content, changes, words):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing") if content is None else save_file(content, path)
    refused(lambda: Tokens(str(path), **changes).calibration(None, 512), "a.safetensors", *words)


def test_a_token_file_that_is_none_is_refused(tmp_path):
    refused(Tokens(str(tmp_path / "a.txt")).check, "a.txt", "data=textfile")
    refused(Tokens(str(tmp_path / "a.safetensors")).check, "no such file", kind=FileNotFoundError)


def test_the_kind_of_a_file_follows_from_its_ending():
    assert isinstance(at("x/eval.safetensors"), Tokens)
    assert isinstance(at("x/eval.jsonl.gz"), TextFile)
    assert at("x/wikitext2-valid.tokens.txt").name == "wikitext2-valid.tokens"


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_lists_every_parameter_of_its_class(option):
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{option}.yaml"))
    assert isinstance(config, dict)
    kind = get_class(config.pop("_target_"))
    assert set(config) == set(inspect.signature(kind).parameters)
    assert kind.heldout is (option in ("c4", "wikitext2", "ptb"))
