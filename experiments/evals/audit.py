"""Does the model that is left keep the contract: sparsity, pattern, finite weights, zeros that are +0.0?"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.evals.evaluator import Evaluator
from prune.network import Network
from prune.pattern import Pattern

FAULTS = ("nonfinite", "violations", "negative_zeros")


@dataclass(frozen=True)
class Audit(Evaluator):
    """Counts in the weights themselves, not in the masks. pattern: what they must obey; sparsity: what they must reach.

    Keys: audit/zeros (their share: of a quantised model those that rounding made are among them, the share of its masks
    is that of `layers`), audit/violations (groups of m with more than n non-zeros), audit/nonfinite,
    audit/negative_zeros. A violated contract is a ValueError that names the first matrix and the number.
    """

    pattern: Pattern
    sparsity: float
    dense: ClassVar[bool] = False  # the dense model has no contract to keep

    def __call__(self, network: Network) -> dict[str, Any]:
        """The counts in total as metrics, per linear as details."""
        counts: dict[str, dict[str, int]] = {}
        total: Counter[str] = Counter()
        for block in network.walk():
            for name, weight in block.weights.items():
                matrix = block.full_name(name)
                counts[matrix] = self._counts(weight)
                total.update(counts[matrix])
                for fault in FAULTS:
                    if number := counts[matrix][fault]:
                        raise ValueError(f"{matrix} has {number} {fault}, expected 0 ({self.pattern})")
        share = total["zeros"] / total["weights"]
        least = int(self.sparsity * total["weights"] + 0.5)  # allocators meet the budget to the weight
        if total["zeros"] < least:
            raise ValueError(
                f"{total['zeros']} of {total['weights']} weights are zero, a share of {share:.6f}; "
                f"{least} were asked for, by sparsity {self.sparsity:g}"
            )
        metrics = {"audit/zeros": share} | {f"audit/{fault}": 0.0 for fault in FAULTS}
        return {"metrics": metrics, "protocol": {}, "details": counts}

    def _counts(self, weight: Float[Tensor, "o i"]) -> dict[str, int]:
        zero = weight == 0
        return {
            "weights": weight.numel(),
            "zeros": int(zero.sum()),
            "violations": self.pattern.violations(~zero) if self.sparsity else 0,
            "nonfinite": int((~weight.isfinite()).sum()),
            "negative_zeros": int((zero & torch.signbit(weight)).sum()),
        }
