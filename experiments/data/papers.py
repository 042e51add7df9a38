"""C4, WikiText2 and Penn Treebank, sampled the way SparseGPT and Wanda sample them.

Sources: IST-DASLab/sparsegpt datautils.py and locuslab/wanda lib/data.py. Calibration windows come from Python's own
generator, seeded once, in the same order of draws, so the same tokenizer and seed give the papers' windows.
"""

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub import hf_hub_download
from jaxtyping import Int64
from torch import Tensor
from tqdm import tqdm

from experiments.data import files
from experiments.data.windows import Part, Source, capped, encode, windows

EVALUATED = 1100  # documents of the C4 validation shard, and at most 256 windows of them
WINDOWS = 256
PATIENCE = 20_000  # draws in a row before C4 gives up: one long document in a thousand is not missed


@dataclass(frozen=True)
class Published(Source):
    """A published corpus: files of a data set repository at one commit, or local files in their place.

    `path` stands in for the train file, `evaluation_path` for the evaluation file; None means the hub, or its cache
    when offline. What files can be read is said in experiments/data/files.py. `field`: what texts stand under.
    """

    repository: str
    revision: str
    train_file: str
    evaluation_file: str
    path: str | None
    evaluation_path: str | None
    field: str
    sequences: int
    length: int
    seed: int
    heldout: ClassVar[bool] = True

    def check(self) -> None:
        """ValueError or FileNotFoundError for a local file that cannot be used; asks the hub nothing."""
        for path in (self.path, self.evaluation_path):
            if path is not None:
                files.check(path)

    def file(self, part: Part) -> str | None:
        """Where it is not the hub's."""
        return self.path if part == "calibration" else self.evaluation_path

    def _documents(self, part: Part) -> list[str]:
        """Those of a part: of the local file, or of the hub's."""
        if local := self.file(part):
            return files.read(local, self.field)
        file, remedy = self.train_file, "data.path=FILE"
        if part == "evaluation":
            file, remedy = self.evaluation_file, "data.evaluation_path=FILE or eval.<name>.text.evaluation_path=FILE"
        try:
            fetched = hf_hub_download(self.repository, file, repo_type="dataset", revision=self.revision)
        except OSError as error:
            wanted, reason = f"{self.repository} {file} at {self.revision}", type(error).__name__
            raise OSError(f"{wanted}: not in the cache, not had from the hub ({reason}); set {remedy}") from error
        return files.read(fetched, self.field)


@dataclass(frozen=True)
class C4(Published):
    """Colossal Clean Crawled Corpus, English (Raffel et al., 2020): each window a crop of one long document."""

    name: ClassVar[str] = "c4"

    def calibration(self, tokenizer: Any, limit: int) -> Int64[Tensor, "n t"]:
        """`sequences` times: draw documents until one is longer than a window, crop it at a random place."""
        texts, length, generator = self._documents("calibration"), capped(self.length, limit), random.Random(self.seed)
        short: set[int] = set()  # documents known to be too short: drawn again, they cost nothing
        crops = []
        for _ in tqdm(range(self.sequences), "c4 windows", leave=False, disable=None):
            tokens = _long(texts, tokenizer, length, generator, short)
            start = generator.randint(0, len(tokens) - length - 1)
            crops.append(tokens[start : start + length])
        return torch.stack(crops)

    def evaluation(self, tokenizer: Any, length: int) -> Int64[Tensor, "n t"]:
        """The first 256 windows of the first 1100 validation documents, joined by one space."""
        text = " ".join(self._documents("evaluation")[:EVALUATED])
        return windows(encode(tokenizer, text)[: WINDOWS * length], length)


def _long(
    texts: list[str], tokenizer: Any, length: int, generator: random.Random, short: set[int]
) -> Int64[Tensor, "tokens"]:
    """The next drawn document of more than `length` tokens; those that were not enter `short`."""
    for _ in range(PATIENCE):
        index = generator.randint(0, len(texts) - 1)
        if index not in short:
            tokens = encode(tokenizer, texts[index])
            if len(tokens) > length:
                return tokens
            short.add(index)
    tried = f"none of {len(short)} documents tried of {len(texts)} is longer"
    raise ValueError(f"c4: expected documents of more than {length} tokens, {tried}; lower data.length")


@dataclass(frozen=True)
class WikiText2(Published):
    """WikiText-2, raw (Merity et al., 2016): random windows of the training rows as one stream.

    `train_join` stands between two training rows: SparseGPT and Wanda calibrate with one space, GPTQ with a blank line;
    null is nothing. The evaluation stream is joined by a blank line in all of them.
    """

    train_join: str | None
    name: ClassVar[str] = "wikitext2"

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """The rows of a part, joined."""
        join = (self.train_join or "") if part == "calibration" else "\n\n"
        return encode(tokenizer, join.join(self._documents(part)))


@dataclass(frozen=True)
class PTB(Published):
    """Penn Treebank as prepared by Mikolov (2010): sentences joined by one space, random windows of the training ones.

    A local .txt holds one sentence per line.
    """

    name: ClassVar[str] = "ptb"

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """The sentences of a part, without what is empty."""
        lines = "\n".join(self._documents(part)).split("\n")
        return encode(tokenizer, " ".join(line.strip() for line in lines if line.strip()))
