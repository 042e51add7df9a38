"""Text that the dense model writes itself, token by token, drawn from its own predictions.

Calibration without any text (Williams et al., 2024, arXiv:2410.17170), or on what the model makes of a text's
beginnings, so that pruning sees decoding as well (Lucas et al., 2025, arXiv:2509.12464).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.data.files import TextFile
from experiments.data.windows import Source, capped, drawn
from prune.network import Network
from prune.progress import passing


@dataclass(frozen=True)
class SelfGenerated(Source):
    """Windows of the start token, `prompt_tokens` tokens of a text, and all others as the model goes on from there.

    sequences: number of windows.
    length: tokens of each, capped (with a line that says so) by the model's own limit.
    seed: of a generator for each window, so that one is the same however many there are and are written at once.
    temperature: what logits are divided by; 1 is the model's own distribution, 0 its most probable token.
    top_k: only the so many most probable tokens are drawn from; None takes all.
    path: the text, as of data=textfile, documents under `field`; its pieces are drawn at random places with `seed`.

    What ends a document ends no window: the model goes on behind it, as in the packed text that it was trained on.
    """

    sequences: int
    length: int
    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    prompt_tokens: int = 0
    path: str | None = None
    field: str = "text"
    name: ClassVar[str] = "self_generated"
    generated: ClassVar[bool] = True

    def check(self) -> None:
        """ValueError or FileNotFoundError for settings that cannot work; reads no text."""
        if type(self.temperature) not in (int, float) or not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"data.temperature: expected a number of at least 0, found {self.temperature}")
        for name, least in (("top_k", 1), ("prompt_tokens", 0)):
            value = getattr(self, name)
            if not (value is None and name == "top_k") and (type(value) is not int or value < least):
                raise ValueError(f"data.{name}: expected a whole number of at least {least}, found {value}")
        if bool(self.path) != bool(self.prompt_tokens):
            given, missing = ("path=FILE", "prompt_tokens=N") if self.path else ("prompt_tokens=N", "path=FILE")
            raise ValueError(f"data.{given} needs data.{missing}: so many tokens of each window are from that text")
        if self.path:
            TextFile(self.path, self.field).check()
        self.fits(self.length)

    def generate(self, network: Network) -> Int64[Tensor, "n t"]:
        """The windows, by a model that is as a whole on its device meanwhile, with the keys and values of a batch.

        ValueError for a model without a start token, one that cannot write, and one whose predictions are no numbers.
        """
        length = capped(self.length, network.limit)
        self.fits(length)
        if not network.model.can_generate():
            raise ValueError(f"{type(network.model).__name__} cannot write text; give another data=")
        openings, draws = self.openings(network), uniform(self.sequences, length, self.seed)
        batches = list(zip(openings.split(network.batch), draws.split(network.batch), strict=True))
        total = len(batches) * (length - openings.shape[1])
        steps = iter(passing(range(total), "", total, "step"))
        with network.resident(), plainly(network.model):
            windows = torch.cat([self._write(network, *batch, steps) for batch in batches])
        next(steps, None)  # the last one is done
        return windows

    def openings(self, network: Network) -> Int64[Tensor, "n p"]:
        """What windows begin with: the start token, and the text's own tokens."""
        start = torch.full((self.sequences, 1), start_token(network))
        if not self.path:
            return start
        text = TextFile(self.path, self.field).stream(network.processor, "calibration")
        if len(text) <= self.prompt_tokens:
            needed = f"more than {self.prompt_tokens} are needed; lower data.prompt_tokens"
            raise ValueError(f"{self.path}: the text has {len(text)} tokens, {needed}")
        return network.readable(torch.cat([start, drawn(text, self.sequences, self.prompt_tokens, self.seed)], 1))

    def fits(self, length: int) -> None:
        """ValueError where a window of so many tokens leaves the model none to write."""
        if 1 + self.prompt_tokens >= length:
            left = f"the start token and data.prompt_tokens={self.prompt_tokens} leave nothing to write"
            raise ValueError(f"{left} of {length} tokens; lower data.prompt_tokens")

    @torch.no_grad()
    def _write(
        self, network: Network, opening: Int64[Tensor, "b p"], draws: Float[Tensor, "b t"], steps: Iterator[int]
    ) -> Int64[Tensor, "b t"]:
        """The windows of a batch."""

        def choose(tokens: Int64[Tensor, "b s"], logits: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
            next(steps)
            token = chosen(logits, draws[:, tokens.shape[1]], self.temperature, self.top_k)
            return torch.full_like(logits, -torch.inf).scatter(1, token[:, None].to(logits.device), 0.0)

        given = opening.to(network.device)
        return network.model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=draws.shape[1] - opening.shape[1],
            do_sample=False,  # `choose` leaves one token of each
            use_cache=True,
            logits_processor=[choose],
        ).cpu()


def start_token(network: Network) -> int:
    """What a text begins with: the token that says so, else that which ends one; ValueError if there is neither."""
    config, known = network.model.config.get_text_config(), network.model.get_input_embeddings().num_embeddings
    for name in ("bos_token_id", "eos_token_id"):
        for holder in (network.processor, config):
            token = getattr(holder, name, None)
            token = token[0] if isinstance(token, list) and token else token
            if isinstance(token, int) and 0 <= token < known:
                return token
    raise ValueError(
        "the model knows no token that a text begins with (bos_token_id, eos_token_id); give another data="
    )


def uniform(sequences: int, length: int, seed: int) -> Float[Tensor, "n t"]:
    """Numbers of [0, 1) in float64; each row is of a generator of its own, seeded with `seed` and the row's number."""
    rows = []
    for row in range(sequences):
        digits = hashlib.sha256(f"{seed} {row}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(digits, "big") >> 1)
        rows.append(torch.rand(length, dtype=torch.float64, generator=generator))
    return torch.stack(rows)


def chosen(
    logits: Float[Tensor, "b v"], draws: Float[Tensor, "b"], temperature: float, top_k: int | None
) -> Int64[Tensor, "b"]:
    """The next token of each sequence: where its draw falls if probabilities lie side by side from 0 to 1.

    On the host, in float64: the same logits give the same tokens on every device.
    """
    logits = logits.cpu().double()
    most = logits.max(1, keepdim=True).values
    if not most.isfinite().all():
        raise ValueError("a prediction of the dense model is NaN or infinite")
    if temperature == 0:
        return logits.argmax(1)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    scaled = (logits - most) / temperature  # which may be tiny
    sums = scaled.softmax(1).cumsum(1)
    return torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)[:, 0]


@contextmanager
def plainly(model: Any) -> Iterator[None]:
    """Without the generation settings of the model's folder, which end, penalise and filter."""
    own = model.generation_config
    model.generation_config = type(own)()
    try:
        yield
    finally:
        model.generation_config = own
