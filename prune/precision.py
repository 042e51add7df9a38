"""How exactly a GPU multiplies float32 where a half precision model is run and differentiated."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def as_fine_as(weights: Iterable[Tensor], device: torch.device) -> Iterator[None]:
    """Products on this device's matrix units while this lasts, if it is a GPU and these weights are all half precision.

    They take float32 operands with 10 bits behind the point (TF32), as many as float16 has and three more than
    bfloat16, which the model's own forward is made of, and add up in float32. Nothing is solved so: a factorisation
    needs all 23 bits.
    """
    before = torch.get_float32_matmul_precision()
    if device.type != "cpu" and all(weight.dtype.itemsize == 2 for weight in weights):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
