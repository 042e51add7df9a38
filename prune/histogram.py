"""How the sizes of a matrix's weights and scores are spread, and which of them went."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FLOOR, PER_DECADE, BINS = -4, 10, 60  # the first edge as a power of ten, bins to a factor of ten, and how many
SAMPLE = 2**16  # so many weights of a matrix are enough for a picture

Histogram = dict[str, list[int]]


def sampled(rows: int, columns: int) -> slice:
    """Evenly spaced columns of a matrix that hold about SAMPLE weights; all of a matrix that is smaller."""
    return slice(None, None, min(max(rows * columns // SAMPLE, 1), columns))


@torch.no_grad()
def histogram(values: Float[Tensor, "o i"], mask: Bool[Tensor, "o i"]) -> Histogram:
    """Counts of |values| where the mask is False (`removed`) and where it is True (`kept`), BINS each.

    Values are relative to their root mean square r. Bin k holds r 10^(FLOOR + k/10) up to r 10^(FLOOR + (k+1)/10), the
    first one also all that is smaller, zeros too, and the last one all that is larger.
    """
    size = values.abs().float()
    level = size.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    place = size.div_(level).log10_().sub_(FLOOR).mul_(PER_DECADE)
    place = place.nan_to_num_(nan=0.0).clamp_(0, BINS - 1).byte().add_(mask, alpha=BINS)
    removed, kept = torch.bincount(place.flatten(), minlength=2 * BINS).split(BINS)
    return {"removed": removed.tolist(), "kept": kept.tolist()}
