"""Solved blocks on disk: the masks for good, the weights until the run is over (a restart goes on behind them).

The weights stay where another run builds on them (`given`).
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prune.method import Pruned
from prune.prune import Solved


def pack(mask: Tensor) -> Tensor:
    """A boolean mask [o, i] as bits, uint8 [ceil(o i / 8)], first weight in the highest bit, row by row."""
    return torch.from_numpy(numpy.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(bits: Tensor, shape: tuple[int, int]) -> Tensor:
    """The mask again."""
    count = shape[0] * shape[1]
    return torch.from_numpy(numpy.unpackbits(bits.numpy(), count=count).astype(bool)).reshape(shape)


def load_masks(file: Path) -> dict[str, Tensor]:
    """The boolean masks of one block, by name inside the block, from <run>/masks/<block>.safetensors."""
    with safe_open(file, "pt") as opened:
        shapes = json.loads(opened.metadata()["shapes"])
        return {name: unpack(opened.get_tensor(name), tuple(shape)) for name, shape in shapes.items()}


def write_tensors(tensors: dict[str, Tensor], file: Path, **facts: Any) -> None:
    """A safetensors file with facts as JSON in its metadata; there is the whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, temporary, metadata={name: json.dumps(fact) for name, fact in facts.items()})
    temporary.replace(file)


@dataclass(frozen=True)
class BlockStore:
    """The blocks of one run in its folder: blocks/ (weights, as the model holds them) and masks/ (bits)."""

    folder: Path

    def _file(self, kind: str, block: str) -> Path:
        return self.folder / kind / f"{block}.safetensors"

    def __contains__(self, block: str) -> bool:
        return self._file("blocks", block).exists() and self._file("masks", block).exists()

    @property
    def whole(self) -> bool:
        """Whether every block that has masks has its weights too."""
        kinds = [{file.name for file in (self.folder / kind).glob("*.safetensors")} for kind in ("masks", "blocks")]
        return bool(kinds[0]) and kinds[0] == kinds[1]

    def save(self, solved: Solved) -> None:
        """Keep a solved block; the masks first, so that a block with weights is complete."""
        parts = solved.inside
        shapes = {name: list(p.mask.shape) for name, p in parts.items()}
        masks = {name: pack(p.mask) for name, p in parts.items()}
        write_tensors(masks, self._file("masks", solved.block), shapes=shapes)
        weights = {name: p.weight.contiguous() for name, p in parts.items()}
        facts = {name: {"target": p.target, "wanted": p.wanted, "notes": p.notes} for name, p in parts.items()}
        cost = {"error": solved.error, "seconds": solved.seconds}
        write_tensors(weights, self._file("blocks", solved.block), facts=facts, cost=cost)

    def load(self, block: str) -> Solved:
        """A block as it was saved."""
        kept = load_masks(self._file("masks", block))
        with safe_open(self._file("blocks", block), "pt") as opened:
            facts, cost = (json.loads(opened.metadata()[name]) for name in ("facts", "cost"))
            parts = {name: Pruned(opened.get_tensor(name), mask, **facts[name]) for name, mask in kept.items()}
        return Solved(block, {f"{block}.{name}": p for name, p in parts.items()}, **cost)

    def drop_weights(self) -> None:
        """The run is over: its weights are in model/ if they were asked for, and can be computed again."""
        shutil.rmtree(self.folder / "blocks", ignore_errors=True)
