"""lm-eval's view of a model that is in memory: how likely it finds answers, and what it writes."""

import copy
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from lm_eval.models import huggingface
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from prune.network import Network

ROUNDING = 0.02  # the most that a log-likelihood may differ by, relative, in half precision too
Request = tuple[Any, list[int], list[int]]  # lm-eval's name of it, the tokens of the prompt, those of the answer
Question = tuple[list[int], list[int]]  # the tokens of a prompt, the numbers of the requests that have it


class Scorer(HFLM):
    """On the device where the model is; `cut` counts the answers, given or written, whose prompt had to be cut.

    A prompt that is longer than its answers is read once, its keys and values are kept for each of them. That is
    lm-eval's number but for rounding: the longest and shortest are scored both ways first, and a model that gives
    other numbers, or keeps something else between tokens, reads the prompt with every answer.
    """

    cut: int = 0
    shares: bool | None = None  # whether prompts are read once; None: not tried yet

    @classmethod
    def of(cls, network: Network, length: int, batch: int) -> "Scorer":
        """With a copy of the tokenizer: lm-eval gives it a padding token, which would end up in the saved model."""
        tokenizer = copy.deepcopy(network.processor)
        return cls(pretrained=network.model, tokenizer=tokenizer, max_length=length, batch_size=batch)

    def _loglikelihood_tokens(self, requests: list[Request], *options: Any, **named: Any) -> list[tuple[float, bool]]:
        """The log-likelihood of each answer, and whether each of its tokens is the most probable one."""
        questions: dict[tuple[int, ...], list[int]] = {}
        for number, (_, prompt, answer) in enumerate(requests):
            if not 0 < len(answer) <= self.max_length:
                raise ValueError(f"an answer has {len(answer)} tokens, possible are 1 to {self.max_length}")
            if len(prompt) + len(answer) > self.max_length + 1:
                self.cut += 1
            else:
                questions.setdefault(tuple(prompt), []).append(number)
        longest = lambda numbers: max(len(requests[number][2]) for number in numbers)
        several = [(list(p), own) for p, own in questions.items() if len(own) > 1 and len(p) > longest(own)]
        known = self._shared(requests, several) if self.shares is not False else {}
        others = [number for number in range(len(requests)) if number not in known]
        alone = super()._loglikelihood_tokens([requests[number] for number in others], *options, **named)
        known |= dict(zip(others, alone, strict=True))
        return [known[number] for number in range(len(requests))]

    def _shared(self, requests: list[Request], questions: list[Question]) -> dict[int, tuple[float, bool]]:
        """By the number of a request what becomes of it, each prompt read once; none where the model cannot do that."""
        prompt = lambda each: len(each[0])
        answer = lambda each: (max(len(requests[number][2]) for number in each[1]), len(each[0]))
        if questions and self.shares is None:
            trial = [max(questions, key=prompt), max(questions, key=answer), min(questions, key=prompt)]
            self.shares = self._alike(trial, requests)
        if not self.shares:
            return {}
        known: dict[int, tuple[float, bool]] = {}
        questions.sort(key=answer, reverse=True)  # so that batches have little padding
        bar = huggingface.tqdm(total=sum(len(numbers) for _, numbers in questions), desc="loglikelihood")
        for batch in self._batches(questions):
            numbers = [number for _, own in batch for number in own]
            known |= dict(zip(numbers, self._answered(batch, requests), strict=True))
            bar.update(len(numbers))
        bar.close()
        return known

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[Question]]:
        """Questions together that have at most so many answers as are scored at once, or one question that has more."""
        batch: list[Question] = []
        for question in questions:
            if batch and sum(len(numbers) for _, numbers in [*batch, question]) > int(self.batch_size):
                yield batch
                batch = []
            batch.append(question)
        if batch:
            yield batch

    def _alike(self, batch: list[Question], requests: list[Request]) -> bool:
        """Whether these answers are as likely as where each is read with its prompt, but for rounding."""
        plain = [requests[number] for _, numbers in batch for number in numbers]
        own = torch.tensor([value for value, _ in super()._loglikelihood_tokens(plain, disable_tqdm=True)])
        try:
            shared = torch.tensor([value for value, _ in self._answered(batch, requests)])
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:  # whatever a model cannot do
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return False
        rounding = min(torch.finfo(self.model.dtype).eps ** 0.5, ROUNDING)
        return torch.allclose(own, shared, rtol=rounding, atol=0.0)

    @torch.no_grad()
    def _answered(self, batch: list[Question], requests: list[Request]) -> list[tuple[float, bool]]:
        """The same of each answer to these questions, in order."""
        rows = torch.tensor([row for row, (_, numbers) in enumerate(batch) for _ in numbers], device=self.device)
        answers = [requests[number][2] for _, numbers in batch for number in numbers]
        prompts, seen = self._padded([prompt for prompt, _ in batch], left=True)
        read = self._read(prompts, seen, (seen.cumsum(1) - 1).clamp(min=0), last=True)
        logits = read.logits[rows, -1:]
        inputs, shown = self._padded([answer[:-1] for answer in answers], left=False)
        if inputs.shape[1]:
            read.past_key_values.batch_select_indices(rows)
            places = seen.sum(1)[rows, None] + torch.arange(inputs.shape[1], device=self.device)
            more = self._read(inputs, torch.cat([seen[rows], shown], 1), places, past_key_values=read.past_key_values)
            logits = torch.cat([logits, more.logits], 1)
        results = []
        for own, answer in zip(logits, answers, strict=True):
            tokens = torch.tensor(answer, device=self.device)
            logs = own[: len(answer)].log_softmax(-1, dtype=self.softmax_dtype)
            results.append((float(logs.gather(1, tokens[:, None]).sum()), bool((logs.argmax(1) == tokens).all())))
        return results

    def _padded(self, rows: list[list[int]], left: bool) -> tuple[Tensor, Tensor]:
        """Tokens as [n, t], and what is no padding."""
        long = max(map(len, rows))
        gaps = [[0] * (long - len(row)) for row in rows]
        order = (lambda row, gap: gap + row) if left else (lambda row, gap: row + gap)
        tokens = [order(row, gap) for row, gap in zip(rows, gaps, strict=True)]
        seen = [order([1] * len(row), gap) for row, gap in zip(rows, gaps, strict=True)]
        shape = len(rows), long
        return torch.tensor(tokens, device=self.device).view(shape), torch.tensor(seen, device=self.device).view(shape)

    def _read(self, tokens: Tensor, seen: Tensor, places: Tensor, last: bool = False, **past: Any) -> Any:
        """What the model returns for tokens at these places; of the last one alone, if it can leave others out."""
        takes = signature(type(self.model).forward).parameters
        options = {"position_ids": places} if "position_ids" in takes else {}
        options |= {"logits_to_keep": 1} if last and "logits_to_keep" in takes else {}
        return self.model(input_ids=tokens, attention_mask=seen, use_cache=True, **options, **past)

    def tok_batch_encode(
        self, strings: list, *options: Any, left_truncate_len: int | None = None, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Prompts to write on from, [n, t] with padding in front, and what is no padding; the last tokens of each."""
        tokens, mask = super().tok_batch_encode(strings, *options, **named)
        longest = left_truncate_len or tokens.shape[1]
        self.cut += int((mask.sum(1) > longest).sum())
        return tokens[:, -longest:], mask[:, -longest:]
