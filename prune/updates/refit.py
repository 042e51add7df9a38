"""Kept weights get the values whose output is nearest to the dense one: W_K = (H_KK)^-1 (H W)_K in each row.

H = X'X, K the kept columns of a row. The exact answer to what OPTIMA (2025, arXiv 2512.13886) solves as a quadratic
program, and to which ADMM with a fixed mask converges.
"""

from dataclasses import dataclass
from typing import ClassVar

from prune.method import Linear, Pruned, Update
from prune.statistic import Statistic
from prune.statistics.inputs import Gram
from prune.statistics.scaled import Scaled


@dataclass(frozen=True)
class Refit(Update):
    """On the mask of the metric on the dense weight, or on a given one (Linear.given), from whose weights it starts.

    `damping` is added to the diagonal of H, relative to its mean, and pulls towards the dense weight. A row is done
    when its gradient is at most `tolerance` times that of a row of zeros; after so many `iterations` all stop, and a
    note counts the rows that were not done. ValueError for fields out of range.
    """

    needs: ClassVar[tuple[Statistic, ...]] = (Gram(),)
    goes_on: ClassVar[bool] = True
    damping: float = 0.01
    tolerance: float = 1e-4
    iterations: int = 500

    def __post_init__(self) -> None:
        if not (self.damping >= 0 and self.tolerance > 0 and self.iterations >= 1):
            raise ValueError(f"refit: expected damping >= 0, tolerance > 0 and iterations >= 1, found {self}")

    def linear(self, linear: Linear) -> Pruned:
        """Where it starts changes how long it takes, not where it ends."""
        mask, problem = linear.select(), linear.stats[Scaled(self.damping)]
        dense = linear.weight * problem.norm
        start = dense if linear.given is None else linear.given.weight * problem.norm
        found, open_rows = problem.solve(dense, mask, start, self.tolerance, self.iterations)
        weight = (found / problem.norm).masked_fill_(~mask, 0.0)
        unfinished = int(open_rows.sum())
        return Pruned(weight, mask, notes={"unfinished_rows": unfinished} if unfinished else {})
