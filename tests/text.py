"""Texts and token files for the tests of data sources, and what they must refuse."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CORPORA = SHARED / "data" / "corpora"
C4_SAMPLE = CORPORA / "c4-en-500.jsonl.gz"
WIKITEXT_TEST = CORPORA / "wikitext2-raw-test.txt"
PARITY = SHARED / "parity" / "wiki-llama-3m-calib.safetensors"
OPTIONS = ("c4", "wikitext2", "ptb", "textfile", "tokens", "self_generated")
needs_shared = pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the real text in ../shared/data")


def source(option, **changes):
    """The data source as the runner makes it: its YAML, with the changes a user would type."""
    chosen = OmegaConf.load(ROOT / "conf" / "data" / f"{option}.yaml")
    return instantiate(OmegaConf.create({"seed": 0, "data": OmegaConf.merge(chosen, changes)}).data)


def write_lines(path, texts, field="text"):
    content = "".join(json.dumps({field: text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def write_parquet(path, texts, field="text"):
    pyarrow.parquet.write_table(pyarrow.table({field: texts}), path)
    return str(path)


def rows_of(ids, length):
    """All windows of a stream, one by one."""
    return torch.tensor([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])


def refused(call, *words, kind=ValueError):
    """The message of the error that `call` raises: one line that holds all `words`."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message
