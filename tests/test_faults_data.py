"""Calibration and evaluation text that cannot be used: too short, empty, broken, of another form or tokenizer."""

import gzip
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.faults import VOCABULARY, Fault, cases, check


def write(name: str, content: bytes, here: Path) -> None:
    """One file in the folder."""
    (here / name).write_bytes(content)


def text(name: str, content: bytes):
    """What makes a text file."""
    return partial(write, name, content)


def tokens(value: torch.Tensor, key: str = "tokens"):
    """What makes a token file t.safetensors."""
    return lambda here: save_file({key: value}, here / "t.safetensors")


def rows(shape: tuple[int, ...], value: int = 1, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Tokens that are all the same."""
    return torch.full(shape, value, dtype=dtype)


LINES = b'{"text": "one two three"}\n' * 99
READ = "data=textfile data.sequences=4 data.length=16 data.path={here}/"
SCORED = "eval.perplexity.path={here}/"
TOKENS = "data.path={here}/t.safetensors"
FAULTS = [
    Fault("a text that is not there", READ + "a.txt", "a.txt: no such file; give the path of a text file"),
    Fault(
        "a folder for a text",
        READ + "d.txt",
        "d.txt: expected a file .*, or a folder .*, found nothing",
        prepare=lambda h: (h / "d.txt").mkdir(),
    ),
    Fault("an empty text", READ + "a.txt", "a.txt: the file is empty; expected text", prepare=text("a.txt", b"")),
    Fault("a text of blanks", READ + "a.txt", "no text in the file; expected", 1, text("a.txt", b" \n" * 99)),
    Fault(
        "a text that is too short",
        READ + "a.txt",
        "3 bytes of text cannot be a window of 17 tokens; lower data.length",
        prepare=text("a.txt", b"x y"),
    ),
    Fault(
        "a text of too few tokens",
        READ + "a.txt",
        "has \\d tokens, more than 16 are needed; lower",
        1,
        text("a.txt", b"language language"),
    ),
    Fault(
        "Latin-1",
        READ + "a.txt",
        "a.txt, line 2: byte 0xe9 is not text in UTF-8; save",
        1,
        text("a.txt", b"a" * 99 + b"\ncaf\xe9"),
    ),
    Fault(
        "a text of another kind",
        READ + "a.csv",
        "a.csv: expected a file that ends in one of .txt",
        prepare=text("a.csv", b"x"),
    ),
    Fault(
        "JSON lines without text",
        READ + "a.jsonl",
        'line 1: expected .* "text", found the keys body',
        1,
        text("a.jsonl", b'{"body": "x"}\n' * 9),
    ),
    Fault(
        "JSON lines of lists",
        READ + "a.jsonl",
        "line 2: expected an object .*, found list",
        1,
        text("a.jsonl", b'{"text": "x"}\n' + b'["x"]\n' * 9),
    ),
    Fault(
        "a line that is not JSON",
        READ + "a.jsonl",
        "line 100: expected JSON objects",
        1,
        text("a.jsonl", LINES + b'{"text": "x'),
    ),
    Fault(
        "gzip cut short",
        READ + "a.jsonl.gz",
        "broken packed data .*; copy the file again",
        1,
        text("a.jsonl.gz", gzip.compress(LINES)[:-9]),
    ),
    Fault(
        "JSON nested too deep",
        READ + "a.jsonl",
        "a.jsonl, line 100: expected JSON objects .*; maximum recursion depth",
        1,
        text("a.jsonl", LINES + b'{"text": ' + b"[" * 100_000),
    ),
    Fault(
        "zstd cut short",
        READ + "a.jsonl.zst",
        "broken packed data .*; copy the file again",
        1,
        text("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x04"),
    ),
    Fault(
        "a folder of two kinds",
        READ + "d",
        "expected .* a folder of such files of one kind, found a.jsonl, a.txt",
        prepare=lambda h: [(h / "d").mkdir(), *(text(name, LINES)(h / "d") for name in ("a.txt", "a.jsonl"))][0],
    ),
    Fault(
        "a text with NUL bytes",
        READ + "a.txt",
        "a.txt, line 2: byte 0x00 is not text",
        1,
        text("a.txt", b"a\n\0b" * 99),
    ),
    Fault(
        "a table that is none", READ + "a.parquet", "not a Parquet file .*; copy it again", 1, text("a.parquet", LINES)
    ),
    Fault("a text to evaluate on that is empty", SCORED + "a.txt", "the file is empty", prepare=text("a.txt", b"")),
    Fault(
        "a text to evaluate on that is too short",
        SCORED + "a.txt",
        "3 bytes of text cannot be a window of 64 tokens; lower eval.perplexity.length",
        prepare=text("a.txt", b"x y"),
    ),
    Fault(
        "no windows", "data=stdlib data.sequences=0", "data.sequences: expected a whole number from 1 to \\d+, found 0"
    ),
    Fault(
        "a number of windows that is none",
        "data=stdlib data.sequences=1000000000000",
        "data.sequences: expected a whole number from 1 to 1000000, found 1000000000000",
    ),
    Fault(
        "windows of one token",
        "data=stdlib data.length=1",
        "data.length: expected a whole number from 2 to \\d+, found 1",
    ),
    Fault(
        "windows to evaluate on of no token",
        "eval.perplexity.length=0",
        "eval.perplexity.length: expected a whole number from 2 .* found 0",
    ),
    Fault(
        "calibration text without a held-out part",
        "eval.perplexity.path=null",
        "no held-out part; give eval.perplexity.path",
    ),
    Fault(
        "a text of the hub without a hub", "data=c4", "not in the cache, not had from the hub .*; set data.path=FILE", 1
    ),
    Fault("a file named by a number", "data=textfile data.path=5", "5: no such file"),
    Fault("tokens that are not there", TOKENS, "no such file; give the path of a .safetensors file"),
    Fault(
        "tokens that are a text", "data.path={here}/a.txt", "expected a .safetensors file; text is for data=textfile"
    ),
    Fault(
        "an empty token file",
        TOKENS,
        "not a readable safetensors file .*; write it again",
        prepare=text("t.safetensors", b""),
    ),
    Fault("a token file that is none", TOKENS, "not a readable safetensors file", prepare=text("t.safetensors", LINES)),
    Fault(
        "tokens under another key",
        TOKENS,
        "expected the key `tokens`, found ids; rename",
        prepare=tokens(rows((2, 8)), "ids"),
    ),
    Fault(
        "tokens that are fractions",
        TOKENS,
        "expected `tokens` as int64 .*, found F32",
        prepare=tokens(torch.ones(2, 8)),
    ),
    Fault(
        "tokens of 32 bits", TOKENS, "found I32 \\[2, 8\\]; convert it", prepare=tokens(rows((2, 8), 1, torch.int32))
    ),
    Fault("tokens in one row", TOKENS, "int64 \\[n >= 1, t >= 2\\], found I64 \\[8\\]", prepare=tokens(rows((8,)))),
    Fault("no row of tokens", TOKENS, "found I64 \\[0, 8\\]", prepare=tokens(rows((0, 8)))),
    Fault("padding among the tokens", TOKENS, "token id -1; rows must be whole windows", 1, tokens(rows((2, 8), -1))),
    Fault(
        "tokens of another tokenizer",
        TOKENS,
        "but the model knows 0 to 4095: .* another tokenizer",
        1,
        tokens(rows((2, 8), VOCABULARY)),
    ),
    Fault(
        "rows longer than the model takes",
        TOKENS,
        "400 tokens a row, but this model takes 64; set data.length=64",
        prepare=tokens(rows((2, 400))),
    ),
    Fault("more rows than there are", "data.sequences=9", "data.sequences=9: .* has 8 rows; take 1 to 8, or null"),
    Fault("longer rows than there are", "data.length=99", "rows of .* have 32 tokens; take 2 to 32, or null"),
]


@pytest.mark.parametrize("fault", cases(FAULTS, ["Latin-1"]))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)
