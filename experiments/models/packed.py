"""A checkpoint of codes, in compressed-tensors' format pack-quantized, read as if its weights were plain.

In place of a weight [o, i] it has weight_packed (`bits` for each code, rows of int32), weight_scale [o, g],
weight_shape and, where the grid is not symmetric, weight_zero_point. No model of it is made.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from experiments.models.stored import Stored, configuration, contents, opened

FORMAT, METHOD = "pack-quantized", "compressed-tensors"
PACKAGE = "the package compressed-tensors is not installed; pip install 'compressed-tensors>=0.20'"
PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


def installed() -> bool:
    """Whether what packs and unpacks is there."""
    return find_spec("compressed_tensors") is not None


@dataclass(frozen=True)
class Codes:
    """Where the codes of one matrix [o, i] are: its parts by their short names, and the bits of a code."""

    parts: Mapping[str, Stored]
    shape: tuple[int, int]
    bits: int

    @property
    def symmetric(self) -> bool:
        """Whether zero is the middle of its grids."""
        return "weight_zero_point" not in self.parts

    @property
    def group(self) -> int:
        """How many columns share a grid."""
        scale = self.parts["weight_scale"].shape
        return self.shape[1] // (scale[1] if len(scale) > 1 else 1)

    def values(self) -> Int[Tensor, "o i"]:
        """How many steps each weight lies from zero."""
        from compressed_tensors.compressors import unpack_from_int32  # noqa: PLC0415 - of an extra

        steps = unpack_from_int32(value(self.parts["weight_packed"]), self.bits, torch.Size(self.shape)).short()
        if self.symmetric:
            return steps
        rows, columns = self.shape[0], self.shape[1] // self.group
        packed = value(self.parts["weight_zero_point"])
        zero = unpack_from_int32(packed, self.bits, torch.Size((rows, columns)), packed_dim=0).short()
        groups = torch.arange(self.shape[1]) // self.group
        if "weight_g_idx" in self.parts:
            groups = value(self.parts["weight_g_idx"]).long()
        return steps - zero[:, groups]


@dataclass(frozen=True)
class Packed:
    """What is in a folder of codes: plain tensors, as Stored, and codes by the name that their weight would have."""

    plain: dict[str, Stored]
    codes: dict[str, Codes]

    @property
    def tensors(self) -> dict[str, Stored]:
        """Every tensor of the model, as if none were packed."""
        made = {name: self._stored(name, codes) for name, codes in self.codes.items()}
        return self.plain | made

    def _stored(self, name: str, codes: Codes) -> Stored:
        return Stored(name, codes.parts["weight_packed"].file, codes.shape, codes.parts["weight_scale"].dtype)

    @property
    def form(self) -> dict[str, Any]:
        """The settings of all its grids, each once."""
        each = self.codes.values()
        told = {
            "bits": {c.bits for c in each},
            "group": {c.group for c in each},
            "symmetric": {c.symmetric for c in each},
        }
        return {"format": FORMAT} | {name: sorted(found) for name, found in told.items()}

    @property
    def bytes(self) -> int:
        """Of all tensors as they are stored."""
        each = [*self.plain.values(), *(part for codes in self.codes.values() for part in codes.parts.values())]
        return sum(math.prod(stored.shape) * int(re.sub(r"^\D+(\d+).*", r"\1", stored.dtype)) // 8 for stored in each)

    def read(self) -> Iterator[tuple[Stored, Tensor]]:
        """Each tensor with its values: of a packed one how many steps each weight lies from zero, and its scales."""
        for stored in self.plain.values():
            yield stored, value(stored)
        for name, codes in self.codes.items():
            yield self._stored(name, codes), codes.values()
            yield codes.parts["weight_scale"], value(codes.parts["weight_scale"])


def value(stored: Stored) -> Tensor:
    """One tensor, from its file."""
    with opened(stored.file) as source:
        return source.get_tensor(stored.name)


def packed(folder: Path) -> Packed | None:
    """What is in a folder of codes, None for one of another kind; ValueError in one line for codes that do not fit."""
    settings = configuration(folder).get("quantization_config") if (folder / "config.json").is_file() else None
    if not isinstance(settings, dict) or (settings.get("quant_method"), settings.get("format")) != (METHOD, FORMAT):
        return None
    tensors = contents(folder)
    if not any(name.endswith(".weight_packed") for name in tensors):
        return None
    if not installed():
        raise ValueError(f"{folder}: its weights are packed ({FORMAT}), and {PACKAGE}")
    widths = _widths(settings)
    found: dict[str, dict[str, Stored]] = {}
    for name, stored in tensors.items():
        owner, _, short = name.rpartition(".")
        if short in PARTS and f"{owner}.weight_packed" in tensors:
            found.setdefault(owner, {})[short] = stored
    inside = {stored.name for parts in found.values() for stored in parts.values()}
    plain = {name: stored for name, stored in tensors.items() if name not in inside}
    return Packed(plain, {f"{owner}.weight": _codes(folder, owner, parts, widths) for owner, parts in found.items()})


def _widths(settings: dict[str, Any]) -> set[int]:
    """The bits of a code that config.json names."""
    groups = settings.get("config_groups")
    weights = [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else []
    return {each["num_bits"] for each in weights if isinstance(each, dict) and isinstance(each.get("num_bits"), int)}


def _codes(folder: Path, owner: str, parts: dict[str, Stored], widths: set[int]) -> Codes:
    """Those of one matrix; ValueError where its parts do not fit together."""
    if absent := [part for part in ("weight_scale", "weight_shape") if part not in parts]:
        raise ValueError(f"{folder}: {owner} has weight_packed without {absent[0]}; copy the model again")
    shape = tuple(value(parts["weight_shape"]).tolist())
    there, scale = parts["weight_packed"].shape, parts["weight_scale"].shape
    fitting = [bits for bits in sorted(widths) if there == (shape[0], math.ceil(shape[-1] * bits / 32))]
    if len(shape) != 2 or len(fitting) != 1 or parts["weight_packed"].dtype != "I32":
        said = f"found {parts['weight_packed'].dtype} {list(there)}, in config.json bits {sorted(widths)}"
        raise ValueError(f"{folder}: {owner}.weight_packed: expected the codes of {list(shape)} weights, {said}")
    if len(scale) > 1 and (not scale[1] or shape[1] % scale[1]):
        raise ValueError(f"{folder}: {owner}.weight_scale: {scale[1]} groups do not divide {shape[1]} columns")
    return Codes(parts, shape, fitting[0])
