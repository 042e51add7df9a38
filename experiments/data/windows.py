"""Cuts one long text into token windows, and names a set of windows by its hash: what every data source shares.

Axes: n = windows, t = tokens of a window.
"""

import functools
import hashlib
import logging
import random

import torch
from jaxtyping import Int64
from torch import Tensor

log = logging.getLogger("experiments")


def capped(length: int, limit: int) -> int:
    """The window length to use, in tokens: `length`, or the model's own `limit` where that is shorter (logged)."""
    if length < 2:
        raise ValueError(f"data.length={length}: a window needs at least 2 tokens, one to read and one to predict")
    if length > limit:
        say_once(f"data.length={length} is more than this model takes; using its limit {limit}")
    return min(length, limit)


@functools.cache
def say_once(line: str) -> None:
    """Log a line at WARNING; the same line is not repeated in this process."""
    log.warning(line)


def encode(tokenizer, text: str, special: bool = True) -> Int64[Tensor, "tokens"]:
    """Token ids of a whole text as one stream, special tokens where the tokenizer puts them: once, not per window.

    Without `special` it puts none, for a text that has its own. `verbose=False` silences the warning that the stream is
    longer than the model: it is cut into windows afterwards.
    """
    if tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, found text to encode; use data=tokens data.path=FILE.safetensors"
        )
    return torch.tensor(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"], dtype=torch.int64)


def drawn(tokens: Int64[Tensor, "tokens"], sequences: int, length: int, seed: int) -> Int64[Tensor, "n t"]:
    """`sequences` windows of `length` tokens at random places of one stream; they may overlap.

    The starts are randint(0, tokens - length - 1) of Python's own generator seeded with `seed`, as SparseGPT samples
    WikiText2 and PTB (IST-DASLab/sparsegpt, datautils.py), so its windows are reproduced exactly.
    """
    if sequences < 1:
        raise ValueError(f"data.sequences={sequences}: at least one calibration window is needed")
    if len(tokens) <= length:
        raise ValueError(f"the text has {len(tokens)} tokens, more than {length} are needed; lower data.length")
    generator = random.Random(seed)
    starts = [generator.randint(0, len(tokens) - length - 1) for _ in range(sequences)]
    return torch.stack([tokens[start : start + length] for start in starts])


def windows(tokens: Int64[Tensor, "tokens"], length: int) -> Int64[Tensor, "n t"]:
    """All non-overlapping windows of `length` tokens in order; the tail that does not fill one is dropped."""
    count = len(tokens) // length
    if count == 0:
        raise ValueError(f"the text has {len(tokens)} tokens, at least {length} are needed; lower the window length")
    return tokens[: count * length].view(count, length)


def sha256_of(tokens: Int64[Tensor, "n t"]) -> str:
    """Hexadecimal sha256 over the shape and the int64 values of a token tensor (little-endian, row by row)."""
    shape = "x".join(map(str, tokens.shape)).encode()
    return hashlib.sha256(shape + b"\n" + tokens.contiguous().cpu().numpy().astype("<i8").tobytes()).hexdigest()
