"""Does the model that is left keep the contract: sparsity, pattern, finite weights, zeros that are +0.0?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from experiments.evals.evaluator import Evaluator
from prune.decoder import Decoder
from prune.method import Pattern


@dataclass(frozen=True)
class Audit(Evaluator):
    """Counts in the weights themselves, not in the masks. pattern: what they must obey; sparsity: what they must reach.

    Keys: audit/sparsity (share of zeros), audit/violations (groups of m with more than n non-zeros), audit/nonfinite,
    audit/negative_zeros. A violated contract is a ValueError that names the first matrix and the number.
    """

    pattern: Pattern
    sparsity: float
    dense: ClassVar[bool] = False  # the dense model has no contract to keep

    def __call__(self, decoder: Decoder) -> dict[str, Any]:
        """The counts in total as metrics, per linear as details."""
        found = {}
        for block in tqdm(decoder.walk(), "audit", len(decoder.blocks), unit="block", leave=False, disable=None):
            found |= {block.full_name(name): self._counts(weight) for name, weight in block.weights.items()}
        total = {key: sum(counts[key] for counts in found.values()) for key in next(iter(found.values()))}
        for key in ("nonfinite", "violations", "negative_zeros"):
            for name, counts in found.items():
                if counts[key]:
                    raise ValueError(f"{name} has {counts[key]} {key}, expected 0 ({self.pattern})")
        least = int(self.sparsity * total["weights"] + 0.5)  # allocators meet the budget to the weight
        if total["zeros"] < least:
            share = total["zeros"] / total["weights"]
            raise ValueError(
                f"{total['zeros']} of {total['weights']} weights are zero, a share of {share:.6f}; "
                f"{least} were asked for, by sparsity {self.sparsity:g}"
            )
        metrics = {"audit/sparsity": total["zeros"] / total["weights"]}
        metrics |= {f"audit/{key}": float(total[key]) for key in ("violations", "nonfinite", "negative_zeros")}
        return {"metrics": metrics, "protocol": {}, "details": found}

    def _counts(self, weight: Float[Tensor, "o i"]) -> dict[str, int]:
        zero = weight == 0
        return {
            "weights": weight.numel(),
            "zeros": int(zero.sum()),
            "violations": self.pattern.violations(~zero) if self.sparsity else 0,
            "nonfinite": int((~weight.isfinite()).sum()),
            "negative_zeros": int((zero & torch.signbit(weight)).sum()),
        }
