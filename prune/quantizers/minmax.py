"""A grid from the least to the largest weight, zero included: round-to-nearest's, GPTQ's and SparseGPT's."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prune.grid import extremes
from prune.rounding import Rounding


@dataclass(frozen=True)
class MinMax(Rounding):
    """Its settings are those of every quantizer."""

    def ends(self, values: Float[Tensor, "o g c"]) -> tuple[Float[Tensor, "o g"], Float[Tensor, "o g"]]:
        """The least and the largest value of each group."""
        return extremes(values)
