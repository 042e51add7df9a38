"""A user's own file as data: a text that the model's tokenizer reads, or windows that are tokens already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from experiments.console.errors import one_line
from experiments.data import documents
from experiments.data.windows import Part, Source, encode


@dataclass(frozen=True)
class TextFile(Source):
    """One text: a .txt whole, or the documents of JSON or Parquet files joined by a blank line; see data/documents.py.

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
        return documents.stem(self.path)

    def check(self) -> None:
        """ValueError or FileNotFoundError if the file cannot be what is expected; reads nothing."""
        documents.check(self.path)

    def file(self, part: Part) -> str:
        """The same for both parts, as the text is."""
        return self.path

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """All of it, whatever the part."""
        texts = documents.read(self.path, self.field, conversations=True)
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
