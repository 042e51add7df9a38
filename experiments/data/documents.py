"""Reads documents from files as people have them: UTF-8 text, JSON or Parquet, packed or not, a file or a folder.

The end of a file's name (`SUFFIXES`, in whatever case) says what it holds and how it is packed.
"""

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.parquet import ParquetFile

ROWS = (".jsonl.gz", ".jsonl", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet")  # an entry for each document
SUFFIXES = (".txt", ".txt.gz", ".txt.zst", *ROWS)
PACKED = {".gz": "gzip", ".zst": "zstd"}
FORM = "expected JSON objects in UTF-8, one a line or all in one array"
Conversation = list[dict[str, Any]]  # messages, each with `role` and `content`


def suffix(path: str | Path) -> str:
    """The end of a file's name that says what it holds, as ".jsonl.gz"; empty where it is none of `SUFFIXES`."""
    name = Path(path).name.lower()
    return max((end for end in SUFFIXES if name.endswith(end)), key=len, default="")


def stem(path: str | Path) -> str:
    """The file's name without the suffix that says its format: "c4-en-500" of "data/c4-en-500.jsonl.gz"."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def files(path: str | Path) -> list[Path]:
    """The file, or those directly in a folder by name, all of one kind; hidden ones and those of no kind do not count.

    ValueError or FileNotFoundError where there is none.
    """
    place, kinds = Path(path), ", ".join(SUFFIXES)
    if not place.is_dir():
        if not suffix(place):
            raise ValueError(f"{path}: expected a file ending in one of {kinds}, or a folder of such files")
        if not place.is_file():
            raise FileNotFoundError(f"{path}: no such file; give the path of a text file")
        return [place]
    inside = sorted(place.iterdir())
    chosen = [file for file in inside if suffix(file) and file.is_file() and not file.name.startswith((".", "_"))]
    if len({suffix(file) for file in chosen}) != 1:
        there = ", ".join(file.name for file in chosen or inside) or "nothing"
        raise ValueError(f"{path}: expected a folder of files that all end in one of {kinds}, found {there:.200}")
    return chosen


def check(path: str | Path) -> None:
    """Says early, without reading it, that a file is not there, is empty or is of a kind that is not read."""
    if sum(file.stat().st_size for file in files(path)) == 0:
        raise ValueError(f"{path}: the file is empty; expected text")


def size(path: str | Path) -> tuple[int, bool]:
    """Bytes of a text's files, and whether these are the text's own: neither packed nor Parquet."""
    parts = files(path)
    plain = not suffix(parts[0]).endswith((".parquet", *PACKED))
    return sum(file.stat().st_size for file in parts), plain


def read(path: str | Path, field: str, conversations: bool = False) -> list[Any]:
    """The documents in order: a .txt is one text; elsewhere each entry has one under `field`.

    With `conversations` a document may be one of these, too. ValueError for what cannot be read, naming file and line.
    """
    check(path)
    documents: list[Any] = []
    for file in files(path):
        if suffix(file).startswith(".txt"):
            documents.append(_text(file))
        else:
            documents += [_document(where, entry, field, conversations) for where, entry in entries(file, field)]
    if not any(document if isinstance(document, list) else document.strip() for document in documents):
        raise ValueError(f"{path}: no text in the file; expected at least one document")
    return documents


def entries(file: Path, column: str | None = None) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON or Parquet file with the place of each; of a table that has it, this column alone.

    ValueError for what is not such a file.
    """
    return _table_rows(file, column) if suffix(file) == ".parquet" else _json_entries(file)


@contextmanager
def _unpacked(file: Path) -> Iterator[io.BufferedReader]:
    try:
        with pyarrow.input_stream(str(file), compression=PACKED.get(file.suffix.lower())) as stream:
            yield io.BufferedReader(stream)
    except OSError as error:
        raise ValueError(f"{file}: broken packed data ({error}); copy the file again") from error


def _text(file: Path) -> str:
    with _unpacked(file) as stream:
        content = stream.read().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _other_encoding(file, content, error.start) from error
    if "\0" in text:  # as in UTF-16 without a mark, most of which can be read as UTF-8
        raise _other_encoding(file, content, content.find(0))
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as Python's text mode: a line's end is no content


def _other_encoding(file: Path, content: bytes, place: int) -> ValueError:
    line = content.count(b"\n", 0, place) + 1
    return ValueError(f"{file}, line {line}: byte 0x{content[place]:02x} is not text in UTF-8; save the file as UTF-8")


def _json_entries(file: Path) -> Iterator[tuple[str, Any]]:
    """One from each line, or from one array over the whole file."""
    with _unpacked(file) as stream:
        if stream.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
            array = _json(str(file), stream.read())
            yield from ((f"{file}, entry {number}", entry) for number, entry in enumerate(array, 1))
            return
        for number, line in enumerate(stream, 1):
            if line.strip():
                where = f"{file}, line {number}"
                yield where, _json(where, line)


def _json(where: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor JSON, or nested too deep
        raise ValueError(f"{where}: {FORM}; {error}") from error


def _table_rows(file: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with file.open("rb") as opened:  # by its path, folders named key=value would become columns
            table = ParquetFile(opened)
            columns = [column] if column in table.schema_arrow.names else None
            for batch in table.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a Parquet file that can be read ({error}); copy it again") from error


def _document(where: str, entry: Any, field: str, conversations: bool) -> str | Conversation:
    """What stands under the field of an entry; null is an empty text."""
    if not isinstance(entry, dict) or field not in entry:
        there = f"the keys {', '.join(entry):.200}" if isinstance(entry, dict) else type(entry).__name__
        key = "data.field=KEY or eval.perplexity.field=KEY names another one"
        raise ValueError(f'{where}: expected an object with the text under "{field}", found {there}; {key}')
    value = entry[field]
    if conversations and _is_conversation(value):
        return value
    if value is not None and not isinstance(value, str):
        wanted = "text, or messages with role and content," if conversations else "text"
        raise ValueError(f'{where}: expected {wanted} under "{field}", found {type(value).__name__}')
    return value or ""


def _is_conversation(value: Any) -> bool:
    messages = value if isinstance(value, list) else []
    return bool(messages) and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages)
