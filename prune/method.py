"""The four questions a pruning method answers.

    Pattern    which masks are allowed, and which weights compete?    scores  -> mask
    Metric     how much does each weight matter?                      weight  -> scores
    Allocator  how sparse is each layer?                              unit    -> sparsities
    Update     what are the final weights and masks?                  unit    -> weights, masks

Shapes: o = out_features, i = in_features, c = columns of a slice of a weight (c <= i),
        b = batch, t = tokens, h = hidden size, n = sequences.
A mask is True where the weight is kept. A sparsity is the share removed, float64: [1], or [o] with one per row.
Statistics, scores and solvers are float32; a weight is cast to the model's dtype when it is written back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from prune.statistic import Component, InputStatistic, Statistic, Stats

ALL = slice(None)


class Pattern:
    """Which masks are allowed, and which weights compete with each other."""

    @property
    def width(self) -> int:
        """Columns that are decided together: m for n:m."""
        return 1

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if this pattern cannot reach `sparsity`, or does not fit a matrix of `shapes` (name -> (o, i))."""

    def share(self, sparsity: Float[Tensor, "#o"], rows: int, start: int, stop: int) -> Float[Tensor, "#o"]:
        """The sparsity of the columns start to stop that keeps the count of a matrix solved slice by slice exact."""
        return sparsity

    def select(self, scores: Float[Tensor, "o c"], sparsity: Float[Tensor, "#o"]) -> Bool[Tensor, "o c"]:
        """Drop the lowest scores of every group: exactly round(sparsity x group), the leftmost of equal ones first."""
        raise NotImplementedError

    def violations(self, mask: Bool[Tensor, "o i"]) -> int:
        """How many groups of a whole matrix keep more weights than this pattern allows, whatever the sparsity."""
        return 0


class Metric(Component):
    """How much each weight matters; larger is kept."""

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """Scores of these columns. The whole current weight comes in, because a score may look at a whole row."""
        raise NotImplementedError


@dataclass
class Pruned:
    """The answer for one matrix: weights that are +0.0 wherever the mask is False, and what happened on the way."""

    weight: Float[Tensor, "o i"]
    mask: Bool[Tensor, "o i"]
    target: float | None = None  # the sparsity it was allocated, on average over its rows
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class Linear:
    """One weight matrix, and everything a method may know about it."""

    name: str  # full name in the model
    weight: Float[Tensor, "o i"]  # dense, float32; a method never changes it in place
    stats: Stats
    metric: Metric
    pattern: Pattern
    sparsity: Float[Tensor, "#o"] | None = None  # None until the allocator has spoken

    def score(self, weight: Float[Tensor, "o i"] | None = None, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """The metric's scores for these columns of `weight` (default: the dense weight)."""
        return self.metric(self.weight if weight is None else weight, self.stats, columns)

    def select(self, weight: Float[Tensor, "o i"] | None = None, columns: slice = ALL) -> Bool[Tensor, "o c"]:
        """The mask for these columns of the *current* weight.

        Updates pull the mask when and where they need it: once (Zero), or per column block (SparseGPT).
        """
        start, stop, _ = columns.indices(self.weight.shape[1])
        share = self.pattern.share(self.target, len(self.weight), start, stop)
        return self.pattern.select(self.score(weight, columns), share)

    @property
    def target(self) -> Float[Tensor, "#o"]:
        """The allocated sparsity."""
        assert self.sparsity is not None, f"{self.name} was solved before its sparsity was allocated"
        return self.sparsity


@dataclass
class Unit:
    """Linears that are solved together, keyed by their name inside the block."""

    linears: dict[str, Linear]


@dataclass(frozen=True)
class Survey:
    """The whole dense model at a glance: weights per prunable matrix, by full name."""

    sizes: Mapping[str, int]


class Allocator(Component):
    """How sparse each linear of a block is, given the whole model's survey."""

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Float[Tensor, "#o"]]:
        """Sparsities by name inside the block: [1], or [o] with one for each row."""
        raise NotImplementedError


class Update(Component):
    """Solves a unit. Override `linear` when layers are independent, `__call__` when they are not."""

    def linear(self, linear: Linear) -> Pruned:
        """Final weight and mask of one matrix."""
        raise NotImplementedError

    def __call__(self, unit: Unit) -> dict[str, Pruned]:
        """Final weights and masks of all linears of the unit."""
        return {name: self.linear(linear) for name, linear in unit.linears.items()}


@dataclass(frozen=True)
class Method:
    """Four answers: every published one-shot method is a choice of these."""

    pattern: Pattern
    metric: Metric
    allocator: Allocator
    update: Update

    @property
    def needs(self) -> list[Statistic]:
        """The union of what the parts ask for, each once, in a fixed order."""
        return list(dict.fromkeys(self.metric.needs + self.allocator.needs + self.update.needs))

    @property
    def inputs(self) -> list[InputStatistic]:
        """Those of them that are sums over the calibration tokens."""
        return [s for s in self.needs if isinstance(s, InputStatistic)]
