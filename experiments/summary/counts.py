"""What tables say of a quantised run beside its sparsity: the share of zeros, and bits per weight."""

from collections.abc import Iterable
from typing import Any

from experiments.console.text import fraction
from experiments.runs.bits import quantised
from experiments.runs.record import Record

# Columns where any run is quantised: the share of zeros, of removed weights and of those whose nearest value is 0; and
# bits per weight of the pruned linears, with codes, grids and masks.
COUNTED = ["zeros", "bits"]


def counted(of: Any) -> list[str]:
    """Cells under `COUNTED` for a row or a group."""
    return ["" if of.zeros is None else fraction(of.zeros), "" if of.bits is None else f"{of.bits.linears.masked:.3f}"]


def along(of: Iterable[Any]) -> str:
    """The bits of several rows or groups: one number, or the least and the largest."""
    each = sorted({cells[-1] for one in of if (cells := counted(one))[-1]}, key=float)
    return " to ".join(dict.fromkeys((each[0], each[-1]))) if each else ""


def bits_per_weight(record: Record) -> str:
    """Those of a quantised run in words, three ways; empty for another."""
    if not quantised(record.results) or record.bits is None:
        return ""
    parts = {"linears": record.bits.linears, "whole model": record.bits.model}
    each = [
        f"{name} {bits.codes:.3f} codes, {bits.masked:.3f} with mask, {bits.disk:.3f} on disk"
        for name, bits in parts.items()
        if bits
    ]
    return "; ".join(each)
