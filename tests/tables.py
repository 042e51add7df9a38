"""Rows in files of every kind that is read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet


def zstd(content: bytes) -> bytes:
    """Packed as zstd packs it."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return sink.getvalue().to_pybytes()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A file of the kind that its name says: one array in a .json, a line for each row in a .jsonl, packed or not."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    text = json.dumps(rows, indent=1) if ".jsonl" not in path.name else "".join(f"{json.dumps(row)}\n" for row in rows)
    pack = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)
    path.write_bytes(pack(text.encode()))
