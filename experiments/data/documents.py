"""Reads documents from files as people have them: plain text, JSON or Parquet, packed or not, a file or a folder.

What a file holds is told by its name (`SUFFIXES`, in whatever case); how it is packed and encoded by its first bytes.
A byte order mark is no text, and UTF-16 and UTF-32 that have one are read as what they are.
"""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.data.windows import say_once

ROWS = (".jsonl.gz", ".jsonl", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet")  # an entry for each document
SUFFIXES = (".txt", ".txt.gz", ".txt.zst", *ROWS)
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # later: UTF-32's mark begins like UTF-16's
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
NEWLINE, HALF = b"\n", re.compile(rb"\\u[dD][89a-fA-F]")  # the second: what may be half a surrogate pair
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
    found = files(path)
    plain = not any(suffix(file) == ".parquet" or _packing(file) for file in found)
    return sum(file.stat().st_size for file in found), plain


def _packing(file: Path) -> str | None:
    with file.open("rb") as opened:
        return _known(PACKED, opened.read(4))


def texts(path: str | Path, field: str) -> list[str]:
    """The documents, all of them texts; raises what `read` does, and ValueError for conversations."""
    found = read(path, field)
    if any(not isinstance(document, str) for document in found):
        raise ValueError(f'{path}: conversations under "{field}" are for data=textfile, which renders them')
    return found


def read(path: str | Path, field: str) -> list[Any]:
    """The documents in order: a .txt is one; elsewhere each entry is one, a text or a `Conversation` under `field`.

    ValueError for what cannot be read, naming file and line.
    """
    check(path)
    found: list[Any] = []
    for file in files(path):
        if suffix(file).startswith(".txt"):
            found.append(_text(file))
        else:
            found += [_document(where, entry, field) for where, entry in entries(file, field)]
    if not any(document if isinstance(document, list) else document.strip() for document in found):
        raise ValueError(f"{path}: no text in the file; expected at least one document")
    return found


def entries(file: Path, field: str | None = None) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON or Parquet file with the place of each; of a table that has it, the column `field` alone.

    ValueError for what is not such a file.
    """
    if suffix(file) == ".parquet":
        yield from _rows(file, field)
        return
    with _opened(file) as stream:
        yield from objects(stream, str(file))


def _text(file: Path) -> str:
    with _opened(file) as stream:
        content = stream.read().removeprefix(codecs.BOM_UTF8)
    line = lambda place: f"{file}, line {content.count(NEWLINE, 0, place) + 1}"
    if (place := content.find(0)) >= 0:
        raise ValueError(f"{line(place)}: a NUL byte, which is no text in UTF-8; save the file as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise ValueError(f"{line(error.start)}: {found}; save the file as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as Python's text mode: a line's end is no content


def objects(stream: io.BufferedReader, name: str) -> Iterator[tuple[str, Any]]:
    """The entries of JSON text with the place of each: one from each line, or from one array over the whole of it.

    ValueError for what is neither. Half a surrogate pair, which no UTF-8 can hold, is U+FFFD in them, and said.
    """
    if stream.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        yield from ((f"{name}, entry {number}", entry) for number, entry in enumerate(_json(name, stream.read()), 1))
        return
    for number, line in enumerate(stream, 1):
        if line.strip():
            where = f"{name}, line {number}"
            yield where, _json(where, line)


def _json(where: str, content: bytes) -> Any:
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{where}: {FORM}; this is nested too deep") from error
    except ValueError as error:  # what is not UTF-8 and what is not JSON
        raise ValueError(f"{where}: {FORM}; {error}") from error
    if HALF.search(content) and (whole := _characters(value)) != value:
        say_once(f"{where.rpartition(', ')[0]}: half surrogate pairs, which are no characters, are read as U+FFFD")
        return whole
    return value


def _characters(value: Any) -> Any:
    if isinstance(value, dict):
        return {_characters(name): _characters(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_characters(part) for part in value]
    return re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _rows(file: Path, field: str | None) -> Iterator[tuple[str, Any]]:
    import pyarrow  # noqa: PLC0415 - heavy, and only Parquet files need it
    import pyarrow.parquet  # noqa: PLC0415

    number = 0
    try:
        with file.open("rb") as opened:  # by its path, folders named key=value would become columns
            table = pyarrow.parquet.ParquetFile(opened)
            columns = [field] if field in table.schema_arrow.names else None
            for batch in table.iter_batches(columns=columns):
                for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                    yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a Parquet file that can be read ({error}); copy it again") from error


def _document(where: str, entry: Any, field: str) -> str | Conversation:
    """The text or the conversation of an entry; null is an empty text."""
    if not isinstance(entry, dict) or field not in entry:
        found = f"the keys {', '.join(entry):.200}" if isinstance(entry, dict) else type(entry).__name__
        key = "data.field=KEY or eval.perplexity.field=KEY names another one"
        raise ValueError(f'{where}: expected an object with the text under "{field}", found {found}; {key}')
    value = entry[field]
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f'{where}: expected text in UTF-8 under "{field}"; {error}') from error
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    ):
        return value
    if value is not None and not isinstance(value, str):
        kinds = "text, or messages with role and content,"
        raise ValueError(f'{where}: expected {kinds} under "{field}", found {type(value).__name__}')
    return value or ""


@contextmanager
def _opened(file: Path) -> Iterator[io.BufferedReader]:
    """The content of a file, unpacked (twice, if it was packed twice), and in UTF-8 where a mark says what it is in."""
    with file.open("rb") as raw:
        try:
            stream = _recoded(_unpacked(_unpacked(raw)))
            yield stream
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{file}: broken packed data ({error}); copy the file again") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not the {error.encoding} that it begins as; save the file as UTF-8") from error


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    packing = _known(PACKED, stream.peek(4))
    if packing == "gzip":
        return io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
    if packing == "zstd":
        import pyarrow  # noqa: PLC0415

        return io.BufferedReader(pyarrow.CompressedInputStream(stream, "zstd"))
    return stream


def _recoded(stream: io.BufferedReader) -> io.BufferedReader:
    encoding = _known(WIDE, stream.peek(4))
    return io.BufferedReader(io.BytesIO(stream.read().decode(encoding).encode())) if encoding else stream


def _known(marks: dict[bytes, str], head: bytes) -> str | None:
    return next((name for mark, name in marks.items() if head.startswith(mark)), None)
