"""What an allocator knows of the whole model, and what it says of one matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from prune.statistic import Surveyed


@dataclass(frozen=True)
class Survey:
    """The whole model at a glance: weights per prunable matrix by full name, in order; the dense model's statistics."""

    sizes: Mapping[str, int]
    values: Surveyed = field(default_factory=dict)
    removed: int = 0  # weights that are gone from the blocks in front of this one
    lost: int = 0  # matrices that could not be heard, and are no longer in `sizes`


@dataclass(frozen=True)
class Allotted:
    """What the allocator decided for one matrix; prune.budget makes these."""

    sparsity: Float[Tensor, "#o"]  # float64, exactly on budget
    wanted: float | None = None  # its mean before it was moved onto the budget
