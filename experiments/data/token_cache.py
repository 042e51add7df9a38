"""Keeps the token windows that were made from a text on disk, so that a sweep tokenizes each text once."""

import hashlib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from experiments.data.windows import Part, Source, capped
from experiments.files.disk import file_name, intact, shared
from experiments.files.tensors import read_tensors, write_tensors
from experiments.runs import sources
from experiments.runs.identity import CALIBRATION, by_content, fingerprint, name_of
from prune import ranks


def cached_windows(
    source: Source, part: Part, tokenizer: Any, length: int, outputs: str | None
) -> Int64[Tensor, "n t"]:
    """source.calibration or source.evaluation of (tokenizer, length): from <outputs>/cache/tokens, or made now.

    One process makes them, others wait for it. Windows that are a file already are read from it, and those of a
    tokenizer that cannot say what it is (one in Python) are made each time, as all are without `outputs`. Raises what
    the source raises.
    """
    make = source.calibration if part == "calibration" else source.evaluation
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if outputs is None or backend is None or source.stored():
        return make(tokenizer, length)
    decided = f"{type(tokenizer)} {backend.to_str()} {tokenizer.chat_template}"  # which renders conversations
    facts = {
        "part": part,
        "length": capped(source.length, length) if part == "calibration" else length,
        "text": settings_of(source, part),
        "tokenizer": hashlib.sha256(decided.encode()).hexdigest(),
        "versions": {name: version(name) for name in ("tokenizers", "transformers")},
        "code": sources.code(f"{__name__}.cached_windows"),  # other code may cut other windows
    }

    def write() -> None:
        tokens = make(tokenizer, length)
        if settings_of(source, part) != facts["text"]:
            raise ValueError(f"{source.name}: its file changed while it was read; run it again")
        write_tensors({"tokens": tokens}, file, **facts)

    file = place_of(source, part, facts, outputs)
    shared(file, lambda: intact(file), lambda: ranks.told(write))
    return read_tensors(file)[0]["tokens"]


def place_of(source: Source, part: Part, facts: dict[str, Any], outputs: str) -> Path:
    """The file in the cache for windows that these facts decide."""
    name = f"{file_name(source.name)}-{part}-{fingerprint(facts)}.safetensors"
    return Path(outputs) / "cache" / "tokens" / name


def settings_of(source: Source, part: Part) -> dict[str, Any]:
    """What of a source decides its windows: files count with their content and suffix, which tells how they are read.

    What one part alone reads does not count for the other; the length is counted by whoever asks.
    """
    elsewhere = CALIBRATION if part == "evaluation" and source.heldout else ("length",)
    settings = {name: value for name, value in asdict(source).items() if name not in elsewhere}
    return by_content(settings | {"_target_": name_of(type(source))})
