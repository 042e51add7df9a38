"""Drop what the mask drops; leave the rest alone."""

from dataclasses import dataclass
from typing import ClassVar

from prune.method import Linear, Pruned, Update


@dataclass(frozen=True)
class Zero(Update):
    """No weight update: magnitude's and Wanda's answer."""

    refits: ClassVar[bool] = False

    def linear(self, linear: Linear) -> Pruned:
        """The dense weight where the mask is True."""
        mask = linear.select()
        return Pruned(linear.weight.masked_fill(~mask, 0.0), mask)
