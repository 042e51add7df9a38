"""How the sizes of a matrix's weights and scores are spread, and which of them went."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FLOOR, PER_DECADE, BINS = -4, 10, 60  # the first edge as a power of ten, bins to a factor of ten, and how many
SAMPLE = 2**18  # values of a matrix that are counted, evenly spaced: a picture needs no more

Histogram = dict[str, list[int]]


@torch.no_grad()
def histogram(values: Float[Tensor, "o i"], mask: Bool[Tensor, "o i"]) -> Histogram:
    """Counts of |values| where the mask is False (`removed`) and where it is True (`kept`), BINS each.

    Values are relative to their root mean square r. Bin k holds r 10^(FLOOR + k/10) up to r 10^(FLOOR + (k+1)/10), the
    first one also all that is smaller, zeros too, and the last one all that is larger.
    """
    step = max(values.numel() // SAMPLE, 1)
    size, kept = values.flatten()[::step].abs().double(), mask.flatten()[::step]
    level = size.square().mean().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    place = ((size / level).log10() - FLOOR) * PER_DECADE
    place = place.nan_to_num(nan=0.0).clamp(0, BINS - 1).long()
    return {
        name: torch.bincount(place[chosen], minlength=BINS).tolist()
        for name, chosen in (("removed", ~kept), ("kept", kept))
    }
