"""How far a pruned model's predictions are from the dense model's: KL divergence and agreement, token by token.

The dense model runs once. Of every prediction p the cache keeps the log-probabilities of its `top` tokens T, the mass
P of all others R together, and `drawn` tokens of R. A pruned model's q is then held against it:

    KL(p || q) = [sum over T of p log(p / q) + P log(P / Q)] + P KL(p_R || q_R)

where Q is the mass that q has on R, p_R = p / P and q_R = q / Q. The first part takes all of R for one token. It is
exact, and never more than the whole (data processing: the second part is a divergence). The second part is an estimate
without bias, for the tokens of R are drawn by p_R: the mean over them of d + w (exp(-d) - 1), d = log(p_R / q_R). The
term behind w has the mean 0, whatever w is, and takes most of the noise away: it is x / (exp(x) - 1), which is best
where d is normal with variance x, and x is twice the first part. Draws are systematic (one offset a token, the same
in every run), so that runs are held against the same ones.

Log-probabilities are kept in float32: in float16 the dense model would not be at 0 from itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.console.families import Family
from experiments.data.windows import sha256_of
from experiments.evals.windowed import Windowed
from prune.network import Network

FEW = 5  # tokens of which the agreement of the most probable ones is told
AT_ONCE = 2**22  # logits that are looked at together
SMALL = 2**15  # ids up to which two bytes do
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class KL(Windowed):
    """KL(dense || pruned) in nats per token, over the tokens whose loss the perplexity of these windows is made of.

    top: tokens of each prediction whose log-probabilities are kept; with as many as the vocabulary has, all is exact.
    drawn: tokens that stand for all others. Keys, all /<name>@<length>, with a standard error over the windows each:
    kl (mean), kl_median and kl_p99 over tokens; top1, the share of tokens whose most probable one is the dense model's
    too; top5, the share of the dense model's five that are among the pruned one's; kl_gap, the estimated part of kl:
    kl - kl_gap is the exact lower bound.
    """

    top: int = 64
    drawn: int = 16
    name: str = "kl"
    dense: ClassVar[bool] = False  # 0, and 1 in agreement
    referred: ClassVar[bool] = True
    copies: ClassVar[int] = 0  # it looks at pieces of them
    families: ClassVar[dict[str, Family]] = {
        "kl": Family("KL to the dense model, nats per token", difference=False),
        "kl_median": Family("median over tokens of the KL to the dense model, nats", main=False, difference=False),
        "kl_p99": Family(
            "99th percentile over tokens of the KL to the dense model, nats", main=False, difference=False
        ),
        "top1": Family("tokens whose first choice is the dense model's", True, percent=True, difference=False),
        "top5": Family("the dense model's first five that are shared", True, True, main=False, difference=False),
    }

    def check(self) -> None:
        """ValueError or FileNotFoundError for settings that cannot work; reads no data."""
        for name, least in (("top", FEW), ("drawn", 1)):
            if not isinstance(value := getattr(self, name), int) or value < least:
                raise ValueError(f"eval.{self.name}.{name}: expected a whole number of at least {least}, found {value}")
        super().check()

    def reference_size(self, windows: int, length: int, vocabulary: int) -> float:
        """Bytes that `reference` takes for so many windows."""
        kept = min(self.top, vocabulary)
        tokens = kept + self.drawn if kept < vocabulary else kept
        return float(windows * (length - 1) * (tokens * (id_type(vocabulary).itemsize + 4) + 4))

    def reference(self, network: Network) -> Tensors:
        """The dense model's predictions. ids [n, t - 1, k + m]: of its k most probable tokens, and of m drawn ones.

        logs [n, t - 1, k + m + 1]: their log-probabilities in float32, and that of all but the k together.
        """
        tokens, _ = self.read(network)
        generator = torch.Generator().manual_seed(0)
        offsets = 1 - torch.rand(tokens.shape[0], tokens.shape[1] - 1, generator=generator)  # above 0, up to 1

        def find(number: int, logits: Float[Tensor, "s v"]) -> list[Tensor]:
            ids, logs = in_pieces(self._kept, logits, offsets[number].to(logits.device))
            return [ids.to(id_type(logits.shape[1])), logs]

        ids, logs = map(torch.stack, zip(*network.read(tokens, find), strict=True))
        if logs.isnan().any():
            raise ValueError(f"a prediction of the dense model is NaN, computed in {network.model.dtype}")
        return {"ids": ids, "logs": logs}

    def _kept(self, logits: Float[Tensor, "s v"], offsets: Float[Tensor, "s"]) -> tuple[Tensor, Tensor]:
        top = logits.topk(min(self.top, logits.shape[1])).indices
        ids = top
        if top.shape[1] < logits.shape[1]:
            ids = torch.cat([top, draw(logits, top, offsets, self.drawn)], 1)
        return ids, logarithms(logits, ids, top.shape[1])

    def __call__(self, network: Network, reference: Tensors) -> dict[str, Any]:
        """How far this model is from the one that the reference is of, and each window's part in every number."""
        tokens, what = self.read(network)
        ids, logs = reference["ids"], reference["logs"]

        def find(number: int, logits: Float[Tensor, "s v"]) -> Float[Tensor, "s 4"]:
            dense = (each[number].to(logits.device) for each in (ids, logs))
            return in_pieces(lambda *parts: (compared(*parts, self.top),), logits, *dense)[0]

        parts = torch.stack(network.read(tokens, find)).numpy()
        if not numpy.isfinite(parts).all():
            raise ValueError(f"a prediction is NaN, or infinitely far, computed in {network.model.dtype}")
        kl, gap, first, five = parts[:, :, 0] + parts[:, :, 1], *numpy.moveaxis(parts[:, :, 1:], 2, 0)
        means = {"kl": kl, "top1": first, "top5": five, "kl_gap": gap}
        scores = {name: values.mean(1) for name, values in means.items()}
        scores |= {"kl_median": quantile(kl, 0.5), "kl_p99": quantile(kl, 0.99)}
        metrics = {f"{name}/{what}": float(values.mean()) for name, values in scores.items()}
        if len(tokens) > 1:
            error = lambda values: float(values.std(ddof=1) / len(values) ** 0.5)
            metrics |= {f"{name}_stderr/{what}": error(values) for name, values in scores.items()}
        protocol = {"windows": len(tokens), "length": tokens.shape[1], "sha256": sha256_of(tokens)}
        protocol |= {"top": self.top, "drawn": self.drawn}
        details = {"scores": {f"{name}/{what}": values.tolist() for name, values in scores.items()}}
        return {"metrics": metrics, "protocol": protocol, "details": details}


def id_type(vocabulary: int) -> torch.dtype:
    """The narrowest integers that hold all ids."""
    return torch.int16 if vocabulary <= SMALL else torch.int32


def in_pieces(find: Callable[..., tuple[Tensor, ...]], logits: Float[Tensor, "s v"], *beside: Tensor) -> list[Tensor]:
    """What `find` makes of a window, on the host, by so many positions as fit; `beside` has a row for each, too."""
    rows = max(1, AT_ONCE // logits.shape[1])
    parts = [find(*piece) for piece in zip(*(each.split(rows) for each in (logits, *beside)), strict=True)]
    return [torch.cat(part).cpu() for part in zip(*parts, strict=True)]


def logarithms(logits: Float[Tensor, "s v"], ids: Int[Tensor, "s k+m"], top: int) -> Float[Tensor, "s k+m+1"]:
    """Log-probabilities of these tokens, and of all but the first `top` of them together."""
    others = logits.scatter(1, ids[:, :top], -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, ids), others], 1) - logits.logsumexp(1, keepdim=True)


def draw(
    logits: Float[Tensor, "s v"], top: Int[Tensor, "s k"], offsets: Float[Tensor, "s"], count: int
) -> Int[Tensor, "s m"]:
    """So many tokens but the top ones, by their probabilities: one in each of as many equal parts of their mass."""
    sums = logits.double().scatter(1, top, -torch.inf).softmax(1).cumsum(1)
    places = (torch.arange(count, device=logits.device) + offsets.double()[:, None]) / count
    return torch.searchsorted(sums, places * sums[:, -1:]).clamp(max=logits.shape[1] - 1)


def compared(
    logits: Float[Tensor, "s v"], ids: Int[Tensor, "s k+m"], dense: Float[Tensor, "s k+m+1"], top: int
) -> Float[Tensor, "s 4"]:
    """For every position KL where all tokens but the top ones are one, the estimate of the rest, top1 and top5.

    A token that is as probable as the last of the first ones is among them.
    """
    ids, top = ids.long(), min(top, logits.shape[1])
    logs, dense = logarithms(logits, ids, top).double(), dense.double()
    certain = [*range(top), dense.shape[1] - 1]
    p, q, ratio = dense[:, certain].exp(), logs[:, certain].exp(), dense[:, certain] - logs[:, certain]
    exact = (torch.where(p > 0, p * ratio, 0.0) - p + q).sum(1)  # p and q sum to one each: no term is below 0
    best = logits.topk(min(FEW, logits.shape[1])).values
    own = logits.gather(1, ids[:, : best.shape[1]])
    first, five = (own[:, 0] >= best[:, 0]).double(), (own >= best[:, -1:]).double().mean(1)
    return torch.stack([exact, estimated(dense - logs, p[:, -1], exact, top), first, five], 1)


def estimated(
    ratio: Float[Tensor, "s k+m+1"], mass: Float[Tensor, "s"], exact: Float[Tensor, "s"], top: int
) -> Float[Tensor, "s"]:
    """P KL(p_R || q_R) from the tokens that were drawn; 0 where nothing was left to draw."""
    drawn = ratio[:, top:-1] - ratio[:, -1:]
    if not drawn.shape[1]:
        return torch.zeros_like(exact)
    spread = 2 * exact[:, None]
    weight = torch.where(spread == 0, 1.0, spread / torch.expm1(spread))
    return torch.where(mass > 0, mass * (drawn + weight * torch.expm1(-drawn)).mean(1), 0.0)


def quantile(values: Float[numpy.ndarray, "n s"], share: float) -> Float[numpy.ndarray, "n"]:
    """A quantile of all values, as the mean of what each window adds to it, so that its error is theirs.

    A window of which a greater share lies below the quantile draws it down: linearised, the slope between the quantiles
    at one standard error of that share to both sides (Woodruff, 1952).
    """
    middle = numpy.quantile(values, share)
    below = (values <= middle).mean(1)
    error = below.std(ddof=1) / len(below) ** 0.5 if len(below) > 1 else 0.0
    low, high = max(share - error, 0.0), min(share + error, 1.0)
    slope = float(numpy.diff(numpy.quantile(values, (low, high)))[0]) / (high - low) if high > low else 0.0
    return middle - slope * (below - below.mean())
