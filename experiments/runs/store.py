"""Solved blocks on disk: the masks for good, the weights until the run is over (a restart goes on behind them).

The weights stay where another run builds on them (`given`).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from experiments.files.tensors import intact, read_tensors, write_tensors
from prune import ranks
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
    bits, facts = read_tensors(file)
    return {name: unpack(bits[name], tuple(shape)) for name, shape in facts["shapes"].items()}


@dataclass(frozen=True)
class BlockStore:
    """The blocks of one run in its folder: blocks/ (weights, as the model holds them) and masks/ (bits)."""

    folder: Path

    def _file(self, kind: str, block: str) -> Path:
        return self.folder / kind / f"{block}.safetensors"

    def __contains__(self, block: str) -> bool:
        """Whether the block is there, whole and as it was written; one line is logged if it is there otherwise."""
        return intact(self._file("blocks", block)) and intact(self._file("masks", block))

    @property
    def whole(self) -> bool:
        """Whether every block that has masks has its weights too, all as they were written."""
        blocks = [file.stem for file in (self.folder / "masks").glob("*.safetensors")]
        return bool(blocks) and all(block in self for block in blocks)

    def save(self, solved: Solved) -> None:
        """Keep a solved block; the masks first, so that a block with weights is complete. The first rank does it."""
        ranks.told(lambda: self._write(solved))

    def _write(self, solved: Solved) -> None:
        parts = solved.inside
        shapes = {name: list(p.mask.shape) for name, p in parts.items()}
        masks = {name: pack(p.mask) for name, p in parts.items()}
        write_tensors(masks, self._file("masks", solved.block), shapes=shapes)
        weights = {name: p.weight.contiguous() for name, p in parts.items()}
        facts = {name: p.facts for name, p in parts.items()}
        cost = {"error": solved.error, "seconds": solved.seconds}
        write_tensors(weights, self._file("blocks", solved.block), facts=facts, cost=cost)

    def load(self, block: str) -> Solved:
        """A block as it was saved."""
        masks = load_masks(self._file("masks", block))
        weights, said = read_tensors(self._file("blocks", block))
        parts = {name: Pruned(weights[name], mask, **said["facts"][name]) for name, mask in masks.items()}
        return Solved(block, {f"{block}.{name}": p for name, p in parts.items()}, **said["cost"])

    def drop_weights(self) -> None:
        """The run is over: its weights are in model/ if they were asked for, and can be computed again."""
        if (blocks := self.folder / "blocks").is_dir():
            going = blocks.rename(self.folder / ".blocks.part")  # all are there or none, should the process be killed
            shutil.rmtree(going, ignore_errors=True)
