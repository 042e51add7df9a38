"""A user's own files as data: texts as people have them, and windows that are tokens already.

Text is UTF-8, JSON or Parquet, packed or not, in a file or a folder; the end of a file's name (`SUFFIXES`, in whatever
case) says what it holds and how it is packed.
"""

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from jaxtyping import Int64
from pyarrow.parquet import ParquetFile
from safetensors import SafetensorError, safe_open
from torch import Tensor

from experiments.console.errors import one_line
from experiments.data.windows import Part, Source, encode

ROWS = (".jsonl.gz", ".jsonl", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".parquet")  # an entry for each document
SUFFIXES = (".txt", ".txt.gz", ".txt.zst", *ROWS)
PACKED = {".gz": "gzip", ".zst": "zstd"}
FORM = "expected JSON objects in UTF-8, one a line or all in one array"
Conversation = list[dict[str, Any]]  # messages, each with `role` and `content`


@dataclass(frozen=True)
class TextFile(Source):
    """One text: a .txt whole, or the documents of JSON or Parquet files joined by a blank line.

    A document is what stands under `field`. Conversations are rendered by the tokenizer's chat template, and nothing
    stands between them. `sequences` calibration windows of `length` tokens are drawn with `seed` from all of it: no
    part is held out.
    """

    path: str
    field: str = "text"
    sequences: int = 128
    length: int = 2048
    seed: int = 0

    @property
    def name(self) -> str:
        return stem(self.path)

    def check(self) -> None:
        """ValueError or FileNotFoundError if the file cannot be what is expected; reads nothing."""
        check(self.path)

    def file(self, part: Part) -> str:
        """The same for both parts, as the text is."""
        return self.path

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """All of it, whatever the part."""
        texts = read(self.path, self.field, conversations=True)
        conversations = [document for document in texts if not isinstance(document, str)]
        if not conversations:
            return encode(tokenizer, "\n\n".join(texts))
        if any(isinstance(document, str) and document.strip() for document in texts):
            raise ValueError(f'{self.path}: some documents under "{self.field}" are conversations, and some are text')
        try:
            rendered = [tokenizer.apply_chat_template(document, tokenize=False) for document in conversations]
        except Exception as error:  # whatever a template raises; a tokenizer without one refuses as well
            reason = f'the tokenizer cannot render the conversations under "{self.field}" ({one_line(error)})'
            raise ValueError(f"{self.path}: {reason}; give text") from error
        return encode(tokenizer, "".join(rendered), special=False)


@dataclass(frozen=True)
class Tokens(Source):
    """Windows made elsewhere: a safetensors file whose key `tokens` holds int64 [n, t]; no tokenizer is needed.

    Calibration takes the first `sequences` rows, cut to `length` tokens; None takes all there is.
    """

    path: str
    sequences: int | None = None
    length: int | None = None

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def check(self) -> None:
        """ValueError or FileNotFoundError if the file cannot be what is expected; reads its header alone."""
        if not self.path.endswith(".safetensors"):
            raise ValueError(f"{self.path}: expected a .safetensors file; text is for data=textfile")
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file; give the path of a .safetensors file")
        rows, width = self.stored()
        if self.sequences is not None and not 1 <= self.sequences <= rows:
            raise ValueError(f"data.sequences={self.sequences}: {self.path} has {rows} rows; take 1 to {rows}, or null")
        if self.length is not None and not 2 <= self.length <= width:
            rows_are = f"rows of {self.path} have {width} tokens"
            raise ValueError(f"data.length={self.length}: {rows_are}; take 2 to {width}, or null")

    def calibration(self, tokenizer: Any, limit: int) -> Int64[Tensor, "n t"]:
        """The first rows of the file as they are; whether the model takes as many tokens is asked elsewhere."""
        return self._read()[: self.sequences, : self.length].contiguous()

    def evaluation(self, tokenizer: Any, length: int) -> Int64[Tensor, "n t"]:
        """All rows. `length` is ignored: the windows of the file are the protocol, so its own t is what counts."""
        return self._read()

    def _read(self) -> Int64[Tensor, "n t"]:
        self.check()
        with safe_open(self.path, "pt") as file:
            tokens = file.get_tensor("tokens")
        if bool((tokens < 0).any()):
            raise ValueError(f"{self.path}: token id {int(tokens.min())}; rows must be whole windows without padding")
        return tokens

    def stored(self) -> tuple[int, int]:
        """The shape of `tokens`; ValueError for a file that does not hold them as int64 [n, t]."""
        try:
            with safe_open(self.path, "pt") as file:
                names = list(file.keys())
                if "tokens" not in names:
                    there = ", ".join(names) or "no key"
                    raise ValueError(f"{self.path}: expected the key `tokens`, found {there}; rename it")
                entry = file.get_slice("tokens")
                kind, shape = entry.get_dtype(), entry.get_shape()
        except SafetensorError as error:
            raise ValueError(f"{self.path}: not a readable safetensors file ({error}); write it again") from error
        if kind != "I64" or len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
            raise ValueError(
                f"{self.path}: expected `tokens` as int64 [n >= 1, t >= 2], found {kind} {shape}; convert it"
            )
        return shape[0], shape[1]


def at(path: str, field: str = "text") -> TextFile | Tokens:
    """The data source for a file: its tokens if it ends in .safetensors, else its text, documents under `field`."""
    return Tokens(path) if path.endswith(".safetensors") else TextFile(path, field)


def suffix(path: str | Path) -> str:
    """The end of a file's name that says what it holds, as ".jsonl.gz"; empty where it is none of `SUFFIXES`."""
    name = Path(path).name.lower()
    return max((end for end in SUFFIXES if name.endswith(end)), key=len, default="")


def stem(path: str | Path) -> str:
    """The file's name without the suffix that says its format: "c4-en-500" of "data/c4-en-500.jsonl.gz"."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def _members(path: str | Path) -> list[Path]:
    """The file, or those directly in a folder by name, all of one kind; hidden ones and those of no kind do not count.

    ValueError or FileNotFoundError where there is none.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{path}: no such file; give the path of a text file")
    inside = sorted(place.iterdir()) if place.is_dir() else [place]
    chosen = [file for file in inside if suffix(file) and file.is_file() and not file.name.startswith((".", "_"))]
    if len({suffix(file) for file in chosen}) != 1:
        there, kinds = ", ".join(file.name for file in chosen or inside) or "nothing", ", ".join(SUFFIXES)
        raise ValueError(
            f"{path}: expected a file that ends in one of {kinds}, or a folder of such files of one kind,"
            f" found {there:.200}"
        )
    return chosen


def check(path: str | Path) -> None:
    """Says early, without reading it, that a file is not there, is empty or is of a kind that is not read."""
    if sum(file.stat().st_size for file in _members(path)) == 0:
        raise ValueError(f"{path}: the file is empty; expected text")


def size(path: str | Path) -> tuple[int, bool]:
    """Bytes of a text's files, and whether these are the text's own: neither packed nor Parquet."""
    parts = _members(path)
    plain = not suffix(parts[0]).endswith((".parquet", *PACKED))
    return sum(file.stat().st_size for file in parts), plain


def read(path: str | Path, field: str, conversations: bool = False) -> list[Any]:
    """The documents in order: a .txt is one text; elsewhere each entry has one under `field`.

    With `conversations` a document may be one of these, too. ValueError for what cannot be read, naming file and line.
    """
    check(path)
    documents: list[Any] = []
    for file in _members(path):
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
