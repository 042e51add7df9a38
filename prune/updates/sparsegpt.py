"""Choose the mask a block of columns at a time, and let later columns absorb the error.

SparseGPT (Frantar & Alistarh, 2023, arXiv 2301.00774, algorithm 1); the loop over columns is prune.sweep's.
"""

from dataclasses import dataclass
from typing import ClassVar

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram, InverseFactor
from prune.sweep import sweep


@dataclass(frozen=True)
class SparseGPT(Update):
    """`block_size` columns share one mask decision (a group of m for n:m); `damping` is relative to mean(diag H).

    A quantizer with order=joint rounds every column in the same sweep (equation 7); at sparsity 0 that is GPTQ.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.damping < 0:
            raise ValueError(f"sparsegpt: expected block_size >= 1 and damping >= 0, found {self}")

    def linear(self, linear: Linear) -> Pruned:
        """Columns are frozen from left to right; each block's mask is chosen on its already compensated weights."""
        grid, ordered = linear.quantizer.swept(linear)
        factor = linear.stats[InverseFactor(self.damping, ordered)]
        return sweep(linear, linear.weight, factor, self.block_size, grid)
