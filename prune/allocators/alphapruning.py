"""Prune less where the spectrum of a weight has a heavier tail: AlphaPruning (Lu et al., 2024, arXiv 2410.10912)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prune.budget import of_model
from prune.method import Allocator, Unit
from prune.statistic import ModelStatistic, Statistic
from prune.survey import Allotted, Survey

BINS = 100  # of the histogram whose peak says where a tail may start
FLAT = 1e-4  # a mean log ratio of a tail's values below this is rounding, not a tail


@dataclass(frozen=True)
class TailIndex(ModelStatistic):
    """The power-law exponent of each matrix's squared singular values and the mean of its block: [own, block], float64.

    NaN marks a spectrum without a tail (an orthogonal or a zero matrix); no mean counts it. `window`: see `in_window`.
    """

    data: ClassVar[bool] = False
    window: str

    def empty(self, matrix: tuple[int, int]) -> Tensor:
        """[2]."""
        return torch.empty(2, dtype=torch.float64, device="meta")

    def of(self, network: Any, samples: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """One decomposition per matrix, on its device; the fit is done on the host."""
        for block in network.walk():
            block.refuse_damaged(block.weights)
            own = {name: tail_index(spectrum(weight), self.window) for name, weight in block.weights.items()}
            mean = torch.stack(list(own.values())).nanmean()
            yield block.path, {block.full_name(name): torch.stack([index, mean]) for name, index in own.items()}

    def notes(self, value: Float[Tensor, "2"]) -> dict[str, int]:
        """Whether this matrix has no tail."""
        return {"no_tail": 1} if value[0].isnan() else {}


def spectrum(weight: Float[Tensor, "o i"]) -> Float[Tensor, "n"]:
    """Squared singular values in rising order, float64, on the host, without those that are zero up to rounding.

    The eigenvalues of the smaller Gram matrix: in float64 as exact as float32 singular values, at a fifth of the time.
    """
    wide = (weight if len(weight) <= weight.shape[1] else weight.T).double()
    values = torch.linalg.eigvalsh(wide @ wide.T)
    return values[values > values[-1] * len(values) * torch.finfo(values.dtype).eps].cpu()


def tail_index(values: Float[Tensor, "n"], window: str) -> Float[Tensor, ""]:
    """Exponent of the power law that fits values[k:] best, over the tails k that start `in_window`; NaN without one.

    values: in rising order. Hill's estimator of each tail is 1 + (n - k) / sum_{j >= k} log(values_j / values_k).
    """
    logs, count = values.log(), torch.arange(len(values), 0, -1)  # [n]; values in the tail from each one on
    spread = logs.flip(0).cumsum(0).flip(0) / count - logs  # mean of log(values_j / values_k) over the tail
    usable = spread > FLAT
    if not usable.any():
        return torch.tensor(torch.nan, dtype=torch.float64)
    near = usable & in_window(values, window)
    starts = (near if near.any() else usable).nonzero()[:, 0]  # values at the peak may be all alike
    index = 1 + 1 / spread[starts]
    return index[distances(logs, starts, index).argmin()]


def in_window(values: Float[Tensor, "n"], window: str) -> Bool[Tensor, "n"]:
    """Whether a tail may start here: near the peak x of the histogram of log10(values), from 0.95 x to 1.5 x.

    The released code compares with log10(0.95 x) instead of 0.95 x, so that nearly every value below 1.5 x may.
    """
    logs = values.log10()
    peak = 10 ** (logs[0] + (logs[-1] - logs[0]) / BINS * torch.histc(logs, BINS).argmax())  # its bin's lower edge
    return (values >= (0.95 * peak if window == "peak" else (0.95 * peak).log10())) & (values <= 1.5 * peak)


def distances(logs: Float[Tensor, "n"], starts: Int[Tensor, "k"], index: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Kolmogorov-Smirnov distance between each tail and its power law, max_j |1 - (v_j / v_k)^(1 - index) - F(j)|."""
    found = []
    for k, power in zip(starts[:, None].split(256), index[:, None].split(256), strict=True):  # [k, 1]; bounds memory
        rank = torch.arange(len(logs)) - k  # [k, n], negative before the tail
        fitted = 1 - ((1 - power) * (logs - logs[k])).exp()
        gap = (fitted - rank / (len(logs) - k)).abs()
        found.append(gap.masked_fill(rank < 0, 0.0).amax(1))
    return torch.cat(found)


@dataclass(frozen=True)
class AlphaPruning(Allocator):
    """`spread` (eps): ratios reach from 1 - eps to 1 + eps times the mean, one for each block or matrix (`level`).

    `window` is where a tail may start: `released`, as the published numbers were made, or `peak`, as that code meant.
    """

    sparsity: float
    spread: float = 0.3
    level: str = "block"
    window: str = "released"

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise ValueError(f"alphapruning: expected a spread from 0 to 1, found {self.spread}")
        if self.level not in ("block", "matrix"):
            raise ValueError(f"alphapruning: expected level block or matrix, found {self.level!r}")
        if self.window not in ("released", "peak"):
            raise ValueError(f"alphapruning: expected window released or peak, found {self.window!r}")

    @property
    def needs(self) -> tuple[Statistic, ...]:  # type: ignore[override]
        return (TailIndex(self.window),)

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """r = 1 - eps + 2 eps (alpha - min) / (max - min), scaled so that its mean over all weights is the sparsity."""
        found = survey.values[TailIndex(self.window)]
        index = torch.stack([found[name] for name in survey.sizes])[:, int(self.level == "block")]
        index = index.nan_to_num(index.nanmean().nan_to_num(0.0).item())  # without a tail: as the others on average
        low, high = index.aminmax()
        ratio = 1 - self.spread + 2 * self.spread * (index - low) / (high - low).clamp(min=1e-12)
        sizes = torch.tensor(list(survey.sizes.values()), dtype=torch.float64)
        wanted = self.sparsity * ratio * sizes.sum() / (sizes @ ratio)
        return of_model(block.linears, dict(zip(survey.sizes, wanted.split(1), strict=True)), survey, self.sparsity)
