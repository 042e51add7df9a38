"""Reads documents from a file on disk: plain text, JSON lines (gzipped or not) or a Parquet table."""

import gzip
import json
import zlib
from pathlib import Path

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".json.gz", ".parquet")


def stem(path: str | Path) -> str:
    """The file's name without the suffix that says its format: "c4-en-500" of "data/c4-en-500.jsonl.gz"."""
    name = Path(path).name
    return name.removesuffix(max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=""))


def check(path: str | Path) -> None:
    """Says early, without reading it, that a file is not there, is empty or is of a kind that is not read."""
    if not str(path).endswith(SUFFIXES):
        raise ValueError(f"{path}: expected a file ending in one of {', '.join(SUFFIXES)}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a text file")
    if Path(path).stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; expected text")


def read(path: str | Path, field: str) -> list[str]:
    """The documents of a file in order: a .txt is one; elsewhere each line or row is one, its text under `field`."""
    check(path)
    reader = {".txt": _text, ".parquet": _rows}.get(Path(path).suffix, _lines)
    documents = reader(path, field)
    if not any(document.strip() for document in documents):
        raise ValueError(f"{path}: no text in the file; expected at least one document")
    return documents


def _text(path: str | Path, _: str) -> list[str]:
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content[error.start]
        raise ValueError(f"{path}, line {line}: byte 0x{found:02x} is not UTF-8; save the file as UTF-8") from error
    return [text.replace("\r\n", "\n").replace("\r", "\n")]  # as Python's text mode: a line's end is no content


def _lines(path: str | Path, field: str) -> list[str]:
    found, number = [], 0
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_document(f"{path}, line {number}", line, field))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: broken gzip data after line {number} ({error}); copy the file again") from error
    return found


def _document(where: str, line: bytes, field: str) -> str:
    try:
        entry = json.loads(line.decode("utf-8"))
    except ValueError as error:  # what is not UTF-8 and what is not JSON
        raise ValueError(f"{where}: expected one JSON object in UTF-8; {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get(field), str):
        found = f"the keys {', '.join(entry)}" if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f'{where}: expected a JSON object with the text under "{field}", found {found}')
    return entry[field]


def _rows(path: str | Path, field: str) -> list[str]:
    import pyarrow  # noqa: PLC0415 - heavy, and only the published Parquet files need it
    import pyarrow.parquet  # noqa: PLC0415

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file; copy it again") from error
    if field not in table.column_names:
        raise ValueError(f'{path}: expected a column "{field}", found {", ".join(table.column_names)}')
    return [text or "" for text in table.column(field).to_pylist()]
