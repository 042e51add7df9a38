"""lm-eval's view of a model that is in memory: how likely it finds answers, and what it writes."""

import copy
from typing import Any

from lm_eval.models.huggingface import HFLM
from torch import Tensor

from prune.decoder import Decoder


class Scorer(HFLM):
    """On the device where the model is; `cut` counts the answers, given or written, whose prompt had to be cut."""

    cut: int = 0

    @classmethod
    def of(cls, decoder: Decoder, length: int, batch: int) -> "Scorer":
        """With a copy of the tokenizer: lm-eval gives it a padding token, which would end up in the saved model."""
        tokenizer = copy.deepcopy(decoder.tokenizer)
        return cls(pretrained=decoder.model, tokenizer=tokenizer, max_length=length, batch_size=batch)

    def _loglikelihood_tokens(self, requests: list, *options: Any, **named: Any) -> list:
        for _, prompt, answer in requests:
            if not 0 < len(answer) <= self.max_length:
                raise ValueError(f"an answer has {len(answer)} tokens, possible are 1 to {self.max_length}")
            if len(prompt) + len(answer) > self.max_length + 1:
                self.cut += 1
        return super()._loglikelihood_tokens(requests, *options, **named)

    def tok_batch_encode(
        self, strings: list, *options: Any, left_truncate_len: int | None = None, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Prompts to write on from, [n, t] with padding in front, and what is no padding; the last tokens of each."""
        tokens, mask = super().tok_batch_encode(strings, *options, **named)
        longest = left_truncate_len or tokens.shape[1]
        self.cut += int((mask.sum(1) > longest).sum())
        return tokens[:, -longest:], mask[:, -longest:]
