"""Gradients of the dense model's loss, weight by weight, averaged over the calibration samples: sequences or images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prune import ranks
from prune.glance import finite
from prune.reverse import Objective, backward
from prune.statistic import ModelStatistic

Target = Literal["label", "argmax", "sampled"]


@dataclass(frozen=True)
class LossGradient(ModelStatistic):
    """The mean over samples of |g| (order 1), of g^2 (order 2), or of g itself (order 0); g = dL/dW_ij, float32.

    L is the mean next-token cross-entropy of one sequence, or the cross-entropy of one image's class. `target`: what
    counts as right there: the data's `label`, the model's own `argmax`, or one `sampled` from what it says, whose g^2
    is then the diagonal of the true Fisher matrix; the k-th sample always draws the same.

    Only weights and states of a half precision model are half: released GBLM's gradients are too, without a loss
    scale, so that those below 6e-8 become 0.
    """

    holds: ClassVar[int] = 1
    published: ClassVar[int] = 128  # sequences that released GBLM sums over, where its inputs are a mean
    order: int = 1
    target: Target = "label"

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"target={self.target}: expected {', '.join(get_args(Target))}")
        if self.order not in (0, 1, 2):
            raise ValueError(f"order={self.order}: expected 1 (mean |g|), 2 (mean g^2) or 0 (mean g, with its sign)")

    def passes(self, sequences: int) -> tuple[int, int]:
        """Out and back: a block is run again before it is differentiated."""
        return 2 * sequences, sequences

    def of(self, network: Any, samples: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Last block first; ValueError for a block whose output is NaN or infinite. Ranks share the samples."""
        mine, numbers = ranks.share(samples), ranks.share(torch.arange(len(samples)))
        for block, sequences in backward(network, mine, Aimed(self.target, numbers)):
            total = ranks.total if mine is not samples else lambda sums: sums
            yield (
                block.path,
                {  # not kept here: the next block's are as large
                    block.full_name(name): total(sums).div_(len(samples)).cpu()
                    for name, sums in self._sums(block.weights, sequences).items()
                },
            )

    def _sums(self, weights: Mapping[str, Tensor], sequences: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(matrix, dtype=torch.float32) for name, matrix in weights.items()}
        for gradients in sequences:
            for name in list(gradients):
                gradient = gradients.pop(name)
                if self.order == 2:
                    total[name].addcmul_(gradient, gradient)
                else:
                    total[name].add_(gradient.abs_() if self.order else gradient)  # fresh memory costs more
                del gradient  # it would be held while those of the next sequence are made
        return total

    def norm(self, mean: Float[Tensor, "o c"], name: str) -> Float[Tensor, "o c"]:
        """sum |g|, sqrt(sum g^2) or |sum g| over 128 sequences like these, whatever their number was.

        Raises ValueError naming the matrix for NaN or infinite gradients.
        """
        if not finite(mean):
            raise ValueError(f"{name}: NaN or infinite loss gradients; check the checkpoint and its dtype")
        total = self.published * mean
        return total.sqrt() if self.order == 2 else total.abs()

    def notes(self, value: Float[Tensor, "o i"]) -> dict[str, int]:
        """How many weights have no gradient at all: those of experts that no token reached, or what underflowed."""
        count = int((value == 0).sum())
        return {"zero_gradients": count} if count else {}


class Aimed(Objective):
    """The loss against a target; `numbers` are those of the samples among all, whose draws are their own."""

    def __init__(self, target: Target, numbers: Int[Tensor, "n"]) -> None:
        self.aim, self.numbers = target, numbers

    def target(self, sample: int, logits: Float[Tensor, "s v"], labels: Int[Tensor, "s"]) -> Int[Tensor, "s"]:
        """The labels; or what is most probable; or a draw from softmax(logits), on the host."""
        if self.aim == "label":
            return labels
        if self.aim == "argmax":
            return logits.argmax(1)
        generator = torch.Generator().manual_seed(int(self.numbers[sample]))
        return torch.multinomial(logits.cpu().softmax(1), 1, generator=generator)[:, 0].to(logits.device)
