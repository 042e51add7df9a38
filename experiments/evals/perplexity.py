"""Perplexity in the papers' protocol: non-overlapping windows, mean cross-entropy over the predicted tokens."""

from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.console.errors import note
from experiments.data.files import at
from experiments.data.token_cache import cached_windows
from experiments.data.windows import Source, sha256_of
from experiments.evals.evaluator import Evaluator
from prune.decoder import Decoder


@dataclass(frozen=True)
class Perplexity(Evaluator):
    """exp(mean over windows of their mean cross-entropy), logits in float32; one block on the device at a time.

    text: a data source, whose held-out part is evaluated. path: a file instead, its documents under `field`. length:
    tokens of a window, capped by the model's limit; a token file brings its own. Keys: ppl/<name>@<length>, and
    ppl_stderr/... over the windows.
    outputs: the folder of the runs, whose cache keeps windows made from text; None keeps none.
    """

    text: Source
    path: str | None
    length: int
    field: str = "text"
    outputs: str | None = None
    together: ClassVar[bool] = True  # ranks share the windows

    @property
    def source(self) -> Source:
        """What is read: the file if one is given."""
        return at(self.path, self.field) if self.path else self.text

    def check(self) -> None:
        """ValueError or FileNotFoundError if there is nothing to evaluate on; reads no data."""
        source = self.source
        if not self.path and not source.heldout:
            raise ValueError(
                f"eval=perplexity: {source.name} is calibration text and has no held-out part; give "
                "eval.perplexity.path=FILE, or another text as eval=[wikitext2]"
            )
        source.check()

    def __call__(self, decoder: Decoder) -> dict[str, Any]:
        """The perplexity and its standard error (delta method), and the protocol that makes the number comparable."""
        length = min(self.length, decoder.limit)
        tokens = decoder.readable(cached_windows(self.source, "evaluation", decoder.tokenizer, length, self.outputs))
        key = f"{self.source.name}@{tokens.shape[1]}"
        if tokens.shape[1] == decoder.limit < self.length and not self.source.stored():
            note(f"ppl/{key}: windows of {decoder.limit} tokens, the most this model takes, not {self.length}")
        losses = decoder.losses(tokens).double()
        mean, count = losses.mean(), len(losses)
        metrics = {f"ppl/{key}": mean.exp().item()}
        if count > 1:
            metrics[f"ppl_stderr/{key}"] = (mean.exp() * losses.std() / count**0.5).item()
        if not losses.isfinite().all():
            raise ValueError(f"the loss is NaN or infinite, computed in {decoder.model.dtype}")
        protocol = {"windows": count, "length": tokens.shape[1], "sha256": sha256_of(tokens)}
        return {"metrics": metrics, "protocol": protocol, "details": {"losses": losses.tolist()}}
