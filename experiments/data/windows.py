"""Cuts one long text into token windows, and names a set of samples by its hash: what every data source shares.

Axes: n = windows, t = tokens of a window.
"""

import hashlib
import random
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from experiments.console.errors import note
from prune.feeder import Samples

Part = Literal["calibration", "evaluation"]


class Source:
    """A text, or windows that are tokens already: what calibrates (`data=NAME`), and what a perplexity reads.

    A source is a frozen dataclass in experiments/data; its fields are the settings of conf/data/NAME.yaml. It gives its
    `stream` and inherits the rest; one that is cut otherwise (C4 document by document) overrides `calibration` and
    `evaluation` instead, and one that the model writes (`generated`) has `generate` alone. Building it reads nothing;
    ValueError and OSError are shown to the user as one line.

    Runs and cached windows are named by the source's settings, its code and the content of files (settings `path` and
    `evaluation_path`). Settings that `identity.CALIBRATION` names do not count for the evaluation of a source that is
    `heldout`. If windows depend on the version of a package, `identity.VERSIONS` says which.
    """

    heldout: ClassVar[bool] = False  # whether evaluation reads another text than calibration
    pictures: ClassVar[bool] = False  # whether it gives images, not token windows
    generated: ClassVar[bool] = False  # whether the dense model itself writes the calibration windows
    name: str  # as in ppl/NAME@length
    sequences: int | None  # calibration windows; None only where they are `stored`
    length: int | None  # tokens of each, the same
    seed: int  # of the generator that draws them

    def check(self) -> None:
        """ValueError or OSError for settings that cannot work. Called whenever a run is composed: reads no text."""

    def fits(self, length: int) -> None:
        """ValueError where no calibration window has so many tokens, the most that settings and model allow."""

    def file(self, part: Part) -> str | None:
        """The local text of a part, for its size tells early what is too short; None where it is elsewhere or none."""
        return None

    def stored(self) -> tuple[int, int] | None:
        """(n, t) of windows that are tokens in a file already, from its header; None for a text that is cut here."""
        return None

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """The whole text of a part as token ids, see `encode`; `tokenizer` is None for a model that has none."""
        raise NotImplementedError

    def calibration(self, tokenizer: Any, limit: int) -> Int64[Tensor, "n t"]:
        """`sequences` windows at random places, of `length` tokens or the model's `limit`; the same each time."""
        stream = self.stream(tokenizer, "calibration")
        return drawn(stream, self.sequences, capped(self.length, limit), self.seed)

    def generate(self, network: Any) -> Int64[Tensor, "n t"]:
        """What `calibration` is to others: windows that this prune.network.Network writes; the same each time."""
        raise NotImplementedError

    def evaluation(self, tokenizer: Any, length: int) -> Int64[Tensor, "n t"]:
        """All windows of `length` tokens, one after the other, the tail dropped; `stored` ones as they are."""
        return windows(self.stream(tokenizer, "evaluation"), length)


def capped(length: int, limit: int) -> int:
    """The window length to use, in tokens: `length`, or the model's own `limit` where that is shorter (logged)."""
    if length > limit:
        note(f"data.length={length} is more than this model takes; using its limit {limit}")
    return min(length, limit)


def encode(tokenizer, text: str, special: bool = True) -> Int64[Tensor, "tokens"]:
    """Token ids of a whole text as one stream, special tokens where the tokenizer puts them: once, not per window.

    Without `special` it puts none, for a text that has its own. `verbose=False` silences the warning that the stream is
    longer than the model: it is cut into windows afterwards.
    """
    if tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, found text to encode; use data=tokens data.path=FILE.safetensors"
        )
    readable = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON can hold what UTF-8 cannot
    if readable != text:
        note("half surrogate pairs, which are no characters, are read as U+FFFD")
    return torch.tensor(tokenizer(readable, add_special_tokens=special, verbose=False)["input_ids"], dtype=torch.int64)


def drawn(tokens: Int64[Tensor, "tokens"], sequences: int, length: int, seed: int) -> Int64[Tensor, "n t"]:
    """`sequences` windows of `length` tokens at random places of one stream; they may overlap.

    The starts are randint(0, tokens - length - 1) of Python's own generator seeded with `seed`, as SparseGPT samples
    WikiText2 and PTB (IST-DASLab/sparsegpt, datautils.py), so its windows are reproduced exactly.
    """
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


def sha256_of(samples: Samples) -> str:
    """Hexadecimal sha256 over the shape and values of token windows (int64), or of pixels (float32) and their classes;
    little-endian, row by row.
    """
    if not isinstance(samples, Tensor):
        return hashlib.sha256(_bytes(samples.pixels, "<f4") + _bytes(samples.labels, "<i8")).hexdigest()
    return hashlib.sha256(_bytes(samples, "<i8")).hexdigest()


def _bytes(tensor: Tensor, kind: str) -> bytes:
    shape = "x".join(map(str, tensor.shape)).encode()
    return shape + b"\n" + tensor.contiguous().cpu().numpy().astype(kind).tobytes()


def facts_of(samples: Samples) -> dict[str, Any]:
    """What a manifest says of calibration data: how much there is, and its hash."""
    if isinstance(samples, Tensor):
        return {"sequences": samples.shape[0], "length": samples.shape[1], "sha256": sha256_of(samples)}
    size = "x".join(map(str, samples.pixels.shape[1:]))
    return {"images": len(samples), "size": size, "sha256": sha256_of(samples)}
