"""The five questions a pruning method answers.

    Pattern    which masks are allowed, and which weights compete?    scores  -> mask
    Metric     how much does each weight matter?                      weight  -> scores
    Allocator  how sparse is each layer?                              unit    -> sparsities
    Update     what are the final weights and masks?                  unit    -> weights, masks
    Quantizer  on which grid do the kept weights lie?                 unit    -> weights on a grid

Shapes: o = out_features, i = in_features, c = some columns of it, b = batch, t = tokens, h = hidden, n = sequences.
A mask is True where the weight is kept. A sparsity is the share removed, float64: [1], or [o] with one per row.
Statistics, scores and solvers are float32; a weight is cast to the model's dtype when it is written back.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prune.clock import stage
from prune.grid import Grid, Unclipped
from prune.pattern import Pattern
from prune.statistic import Component, InputStatistic, ModelStatistic, Statistic, Stats
from prune.survey import Allotted, Survey

ALL = slice(None)


class Metric(Component):
    """How much each weight matters; larger is kept."""

    def __call__(self, weight: Float[Tensor, "o i"], stats: Stats, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """Scores of these columns. The whole current weight comes in, because a score may look at a whole row."""
        raise NotImplementedError


@dataclass(frozen=True)
class Unasked(Metric):
    """Where masks are given, no score is asked for, and nothing has to be known of the weights for one."""


@dataclass
class Pruned:
    """The answer for one matrix: weights that are +0.0 wherever the mask is False, and what happened on the way."""

    weight: Float[Tensor, "o i"]
    mask: Bool[Tensor, "o i"]
    grid: Grid | None = None  # on which all these weights lie
    target: float | None = None  # the sparsity it was allocated, on average over its rows
    notes: dict[str, int] = field(default_factory=dict)
    wanted: float | None = None  # what its allocator wanted before the budget was met exactly
    measures: dict[str, float] = field(default_factory=dict)  # what its update measured, such as losses
    histograms: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # of weights and scores: prune.histogram

    @property
    def facts(self) -> dict[str, Any]:
        """All that is said of it: everything but its tensors, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("weight", "mask", "grid")}


@dataclass
class Linear:
    """One weight matrix, and everything a method may know about it."""

    name: str  # full name in the model
    weight: Float[Tensor, "o i"]  # dense, float32; a method never changes it in place
    stats: Stats
    metric: Metric
    pattern: Pattern
    sparsity: Float[Tensor, "#o"] | None = None  # None until the allocator has spoken
    given: Pruned | None = None  # what an earlier run made of it: its mask is the mask
    quantizer: "Quantizer" = field(default_factory=lambda: Quantizer())  # noqa: PLW0108 - defined below
    stored: torch.dtype = torch.float32  # in which its weights and the scales of its grid are stored
    grid: Grid | None = None  # its grid, where that is settled before the update

    def score(self, weight: Float[Tensor, "o i"] | None = None, columns: slice = ALL) -> Float[Tensor, "o c"]:
        """The metric's scores for these columns of `weight` (default: the dense weight)."""
        return self.metric(self.weight if weight is None else weight, self.stats, columns)

    @stage("select")
    def select(
        self, weight: Float[Tensor, "o i"] | None = None, columns: slice = ALL, fraction: float = 1.0
    ) -> Bool[Tensor, "o c"]:
        """The mask for these columns of the *current* weight, at a `fraction` of the allocated sparsity, or as given.

        Updates pull the mask where they need it: once (Zero), per column block (SparseGPT), in every iteration (ADMM).
        """
        if self.given is not None:
            return self.given.mask[:, columns]
        rows, width = self.weight.shape
        start, stop, _ = columns.indices(width)
        share = self.pattern.share(self.target * fraction, (rows, width), start, stop)
        return self.pattern.select(self.score(weight, columns), share)

    @property
    def target(self) -> Float[Tensor, "#o"]:
        """The allocated sparsity."""
        assert self.sparsity is not None, f"{self.name} was solved before its sparsity was allocated"
        return self.sparsity


def _nothing(*_: Any) -> Any:
    raise AssertionError("this unit was made without calibration data; set `runs_block`")


@dataclass
class Unit:
    """Linears that are solved together, keyed by their name inside the block, and the deepest module that holds all.

    Components that set `runs_block` may run it, a call for each calibration sequence.
    """

    linears: dict[str, Linear]
    # The module's inputs on the stream as it is now, what was written before included.
    calls: Callable[[], Iterator[Any]] = _nothing
    # (call, weights by name) -> its output [1, t, h] with these weights, float32, differentiable; nothing is written.
    forward: Callable[[Any, Mapping[str, Tensor]], Tensor] = _nothing
    # (call) -> its dense output: on the same input, or, of a whole block, on the dense model's (Component.reference).
    reference: Callable[[Any], Tensor] = _nothing


class Allocator(Component):
    """How sparse each linear of a block is, given the whole model's survey."""

    uneven: ClassVar[bool] = True  # whether linears may get different sparsities
    per_row: bool = False  # whether rows of one linear may

    def __call__(self, block: Unit, survey: Survey) -> dict[str, Allotted]:
        """By name inside the block: [1], or [o] with one for each row."""
        raise NotImplementedError


class Update(Component):
    """Solves a unit. Override `linear` when layers are independent, `__call__` when they are not."""

    refits: ClassVar[bool] = True  # whether kept weights may get other values than they had
    goes_on: ClassVar[bool] = False  # whether it starts from the weights of Linear.given, where there are any

    def check(self, pattern: Pattern, given: str | None = None) -> None:
        """ValueError if this update cannot work with this pattern, or with (or without) the masks of another run."""

    def linear(self, linear: Linear) -> Pruned:
        """Final weight and mask of one matrix."""
        raise NotImplementedError

    def __call__(self, unit: Unit) -> dict[str, Pruned]:
        """Final weights and masks of all linears of the unit."""
        return {name: self.linear(linear) for name, linear in unit.linears.items()}


@dataclass(frozen=True)
class Quantizer(Component):
    """On which grid do the kept weights lie? This one: on none, they stay as they are."""

    def check(self, pattern: Pattern, update: Update, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where this makes no sense with these, or does not fit a matrix of `shapes` (name -> (o, i))."""

    def before(self, linear: Linear) -> Linear:
        """The matrix that is pruned, in place of the dense one."""
        return linear

    def clipping(self, linear: Linear) -> Unclipped:
        """What of this matrix's grid an allocator may learn beside its own."""
        return Unclipped()

    def swept(self, linear: Linear) -> tuple[Grid | None, bool]:
        """What an update that sweeps over columns rounds each to, and whether those of the largest input come first."""
        return None, False

    def __call__(self, unit: Unit, found: dict[str, Pruned]) -> dict[str, Pruned]:
        """The update's answers, rounded; as they are where the update has done that."""
        return found


@dataclass(frozen=True)
class Method:
    """Five answers: every published one-shot method is a choice of these."""

    pattern: Pattern
    metric: Metric
    allocator: Allocator
    update: Update
    quantizer: Quantizer = Quantizer()
    correction: Any = None  # of the weights that an update solves for (prune.correction.Correction); None: none

    @property
    def masked(self) -> "Method":
        """The same where masks are given (run key `given`)."""
        return replace(self, metric=Unasked())

    @property
    def components(self) -> tuple[Component, ...]:
        """The parts that may ask for calibration data."""
        parts = (self.metric, self.allocator, self.update, self.quantizer)
        return parts if self.correction is None else (*parts, self.correction)

    @property
    def needs(self) -> list[Statistic]:
        """The union of what the parts ask for, each once, in a fixed order."""
        return list(dict.fromkeys(statistic for part in self.components for statistic in part.needs))

    @property
    def inputs(self) -> list[InputStatistic]:
        """Those of them that are sums over the calibration tokens."""
        return [s for s in self.needs if isinstance(s, InputStatistic)]

    @property
    def surveyed(self) -> list[ModelStatistic]:
        """Those of them that are found on the whole dense model."""
        return [s for s in self.needs if isinstance(s, ModelStatistic)]

    @property
    def runs_block(self) -> bool:
        """Whether a part runs the block itself, one sequence at a time."""
        return any(part.runs_block for part in self.components)

    @property
    def reference(self) -> Literal["pruned", "dense"]:
        """Whose output parts that run blocks are held against: of the same input, or of the dense model."""
        return "dense" if any(part.reference == "dense" for part in self.components) else "pruned"

    @property
    def calibrated(self) -> bool:
        """Whether calibration data are needed at all."""
        return bool(self.inputs) or self.runs_block or any(s.data for s in self.surveyed)

    def fits(self, sparsity: float, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if a matrix of these shapes (name -> (o, i)) cannot have this pattern and sparsity, or grid."""
        self.pattern.check(sparsity, shapes)
        self.quantizer.check(self.pattern, self.update, shapes)

    def check(self, given: str | None = None) -> None:
        """ValueError, in one line, for parts that make no sense together; `given` is the run that masks come from."""
        who, metric = f"allocator {type(self.allocator).__name__}", f"metric {type(self.metric).__name__}"
        if self.allocator.uneven and self.pattern.fixed:
            raise ValueError(f"{who} varies the sparsity, which {self.pattern} fixes; use pattern=unstructured")
        if self.allocator.uneven and given:
            raise ValueError(f"{who} has nothing to decide: given={given} fixes the masks; use allocator=uniform")
        if self.allocator.per_row and not self.pattern.per_row:
            raise ValueError(f"{who} gives each row its sparsity, but rows compete here; set scope=row")
        if given and any(isinstance(s, ModelStatistic) for s in self.metric.needs):
            raise ValueError(f"{metric} is not used: given={given} fixes the masks; leave it out")
        if len({part.reference for part in self.components} - {None}) > 1:
            raise ValueError(f"{who}, update and correction want other targets; give all of them one reference")
        if self.correction is not None and not self.update.refits:
            kept = "keeps the dense weights, which there is nothing to correct"
            raise ValueError(f"update {type(self.update).__name__} {kept}; use correction=0, or an update that solves")
        self.update.check(self.pattern, given)
