"""Perplexity in the papers' protocol: non-overlapping windows, mean cross-entropy over the predicted tokens."""

from dataclasses import dataclass
from typing import Any

from experiments.data.windows import sha256_of
from experiments.evals.windowed import Windowed
from prune.network import Network


@dataclass(frozen=True)
class Perplexity(Windowed):
    """exp(mean over windows of their mean cross-entropy), logits in float32; one block on the device at a time.

    Keys: ppl/<name>@<length>, and ppl_stderr/... over the windows.
    """

    def __call__(self, network: Network) -> dict[str, Any]:
        """The perplexity and its standard error (delta method), and the protocol that makes the number comparable."""
        tokens, what = self.read(network)
        losses = network.losses(tokens).double()
        mean, count = losses.mean(), len(losses)
        metrics = {f"ppl/{what}": mean.exp().item()}
        if count > 1:
            metrics[f"ppl_stderr/{what}"] = (mean.exp() * losses.std() / count**0.5).item()
        if not losses.isfinite().all():
            raise ValueError(f"the loss is NaN or infinite, computed in {network.model.dtype}")
        protocol = {"windows": count, "length": tokens.shape[1], "sha256": sha256_of(tokens)}
        return {"metrics": metrics, "protocol": protocol, "details": {"losses": losses.tolist()}}
