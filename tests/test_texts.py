"""Texts as people have them give the windows of the same text in a clean file, or one line that says why not."""

import copy
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import torch

from experiments.data.files import TextFile
from tests.tables import write, zstd
from tests.text import refused

TEXTS = [f"Number {n}: a caf\u00e9, a cat and a hat. The hat was red." for n in range(40)]
PLAIN = "\n\n".join(TEXTS)
LINES = "".join(json.dumps({"text": text, "url": None}) + "\n" for text in TEXTS).encode()
ODD = {
    "mark.txt": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UPPER.TXT": PLAIN.encode(),
    "PACKED.TXT.GZ": gzip.compress(PLAIN.encode()),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "marks.jsonl": LINES[:0].join([b"\xef\xbb\xbf" + line + b"\n" for line in LINES.splitlines()]),
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "blank.jsonl": LINES.replace(b"\n", b"\n\n \n"),
    "lines.json": LINES,
    "array.json": json.dumps([json.loads(line) for line in LINES.splitlines()]).encode(),
    "pretty.jsonl": b"\xef\xbb\xbf\n"
    + json.dumps([json.loads(line) for line in LINES.splitlines()], indent=1).encode(),
    "members.jsonl.gz": gzip.compress(LINES[: LINES.index(b"\n") + 1]) + gzip.compress(LINES[LINES.index(b"\n") + 1 :]),
    "packed.jsonl.zst": zstd(LINES),
    "frames.jsonl.zst": zstd(LINES[:100]) + zstd(LINES[100:]),
}


def windows(path, tokenizer, field="text"):
    return TextFile(str(path), field).evaluation(tokenizer, 16)


@pytest.fixture
def expected(tmp_path, tokenizer):
    (tmp_path / "plain.txt").write_text(PLAIN, encoding="utf-8")
    return windows(tmp_path / "plain.txt", tokenizer)


@pytest.mark.parametrize("name", ODD)
def test_how_a_text_is_packed_marked_and_laid_out_is_no_text(name, tmp_path, tokenizer, expected):
    (tmp_path / name).write_bytes(ODD[name])
    assert torch.equal(windows(tmp_path / name, tokenizer), expected)


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(TEXTS).dictionary_encode(),
        pyarrow.array(TEXTS, pyarrow.large_string()),
    ],
)
def test_a_column_of_any_kind_of_text_is_one(column, tmp_path, tokenizer, expected):
    place = tmp_path / "body=1"  # no column, though hive would have it so
    place.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"body": column, "id": list(range(40))}), place / "a.parquet")
    assert torch.equal(windows(place / "a.parquet", tokenizer, "body"), expected)


@pytest.mark.parametrize("end", [".parquet", ".jsonl.gz", ".txt"])
def test_a_folder_is_its_files_by_name(end, tmp_path, tokenizer, expected):
    (tmp_path / "d").mkdir()
    for name, part in (("b", TEXTS[15:]), ("a", TEXTS[:15])):
        if end == ".txt":
            (tmp_path / "d" / f"{name}.txt").write_text("\n\n".join(part), encoding="utf-8")
        else:
            write(tmp_path / "d" / f"{name}{end}", [{"text": text} for text in part])
    (tmp_path / "d" / "README.md").write_text("about it")
    (tmp_path / "d" / ".hidden.json").write_text("{")
    assert torch.equal(windows(f"{tmp_path}/d/", tokenizer), expected)
    assert TextFile(f"{tmp_path}/d/").name == "d"


def test_null_is_an_empty_text_in_every_kind_of_file(tmp_path, tokenizer):
    rows = [{"text": None if n % 7 == 1 else text} for n, text in enumerate(TEXTS)]
    (tmp_path / "plain.txt").write_text("\n\n".join(row["text"] or "" for row in rows), encoding="utf-8")
    for name in ("a.jsonl", "a.parquet", "a.json.gz"):
        write(tmp_path / name, rows)
        assert torch.equal(windows(tmp_path / name, tokenizer), windows(tmp_path / "plain.txt", tokenizer))


def test_half_a_surrogate_pair_is_read_as_the_replacement_character_and_said(tmp_path, tokenizer, caplog):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "%s"}' % ("half \\ud83d of \\uDE00 and \\ud83d\\ude00 whole, \\\\ud83d " * 9)
    )
    (tmp_path / "a.txt").write_text("half \ufffd of \ufffd and \U0001f600 whole, \\ud83d " * 9, encoding="utf-8")
    assert torch.equal(windows(tmp_path / "a.jsonl", tokenizer), windows(tmp_path / "a.txt", tokenizer))
    assert "half surrogate pairs" in caplog.text


CHATS = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes, a cat."}] for text in TEXTS]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_conversations_are_rendered_by_the_chat_template_with_its_own_special_tokens(name, tmp_path, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = tokenizer.decode([5])
    write(tmp_path / name, [{"messages": chat} for chat in CHATS])
    refused(
        lambda: windows(tmp_path / name, tokenizer, "messages"), name, '"messages"', "cannot render", "chat template"
    )
    tokenizer.chat_template = TEMPLATE
    plain = "".join(f"{tokenizer.bos_token}user: {text}\nassistant: Yes, a cat.\n" for text in TEXTS)
    ids = tokenizer(plain, add_special_tokens=False)["input_ids"]
    found = windows(tmp_path / name, tokenizer, "messages")
    assert found.flatten().tolist() == ids[: found.numel()] and len(ids) - found.numel() < 16
    tokenizer.chat_template = "{{ raise_exception('roles must\\nalternate') }}"
    refused(lambda: windows(tmp_path / name, tokenizer, "messages"), name, "cannot render", "alternate")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, ("found int",)),
        ([{"from": "user", "value": "x"}], ("role and content", "found list")),
        ({"a": "x"}, ("found dict",)),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_what_is_no_text_is_refused_in_one_line(name, value, words, tmp_path, tokenizer):
    write(tmp_path / name, [{"text": value}])
    refused(lambda: windows(tmp_path / name, tokenizer), f"{name}, ", "1: expected text", *words)


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"])
def test_another_encoding_is_refused_with_its_line(mark, tmp_path, tokenizer):
    (tmp_path / "a.txt").write_bytes(mark + "odd".encode("utf-16-le"))
    refused(lambda: windows(tmp_path / "a.txt", tokenizer), "a.txt, line 1: byte 0x", "save the file as UTF-8")


def test_some_conversations_among_text_are_refused(tmp_path, tokenizer):
    write(tmp_path / "a.jsonl", [{"text": "a cat"}, {"text": CHATS[0]}])
    refused(lambda: windows(tmp_path / "a.jsonl", tokenizer), "a.jsonl", "conversations, and some are text")
