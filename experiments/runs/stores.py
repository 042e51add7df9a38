"""Tensors of runs on disk: the solved blocks of one run, and the statistics of dense models that all runs share.

Of a solved block the masks stay for good, the weights until the run is over (a restart goes on behind them), or where
another run builds on them (`given`).
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from torch import Tensor

from experiments.console.bars import labelled
from experiments.files.disk import intact, seal, sealed, shared
from experiments.files.tensors import read_tensors, write_tensors
from experiments.runs import machine
from experiments.runs.identity import survey
from prune import ranks
from prune.grid import Grid
from prune.method import Pruned
from prune.prune import Solved
from prune.statistic import ModelStatistic

COMPLETE = "complete.json"  # of a survey, written last: its blocks, and the seconds and memory that making it took
GRID = ("scale", "zero")  # the tensors of a grid
Find = Callable[[], Iterator[tuple[str, dict[str, Tensor]]]]


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


def masks_of(run: Path) -> Callable[[str], Tensor | None]:
    """The mask of a matrix of a finished run by its full name, None where it has none; ValueError for no such run."""
    files = {file.stem: file for file in (run / "masks").glob("*.safetensors")}
    if not files:
        raise ValueError(f"{run}: no masks/*.safetensors in it; expected the folder of a run that pruned")
    masks = lru_cache(maxsize=1)(load_masks)  # matrices of a block follow each other

    def mask(name: str) -> Tensor | None:
        block = next((block for block in files if name.startswith(f"{block}.")), None)
        return masks(files[block]).get(name.removeprefix(f"{block}.")) if block else None

    return mask


@dataclass(frozen=True)
class BlockStore:
    """The blocks of one run in its folder: blocks/ (weights as the model holds them, their grids) and masks/ (bits).

    loaded: the blocks that were read back.
    """

    folder: Path
    loaded: set[str] = field(default_factory=set, compare=False)

    def _file(self, kind: str, block: str) -> Path:
        return self.folder / kind / f"{block}.safetensors"

    def __contains__(self, block: str) -> bool:
        """Whether the block is there, whole and as it was written; one line is logged if it is there otherwise."""
        return intact(self._file("blocks", block)) and intact(self._file("masks", block))

    def save(self, solved: Solved) -> None:
        """Keep a solved block; the masks first, so that a block with weights is complete. The first rank does it."""
        ranks.told(lambda: self._write(solved))

    def _write(self, solved: Solved) -> None:
        parts = solved.inside
        shapes = {name: list(p.mask.shape) for name, p in parts.items()}
        masks = {name: pack(p.mask) for name, p in parts.items()}
        write_tensors(masks, self._file("masks", solved.block), shapes=shapes)
        weights = {name: p.weight.contiguous() for name, p in parts.items()}
        grids = {name: p.grid for name, p in parts.items() if p.grid is not None}
        weights |= {f"{name}:{part}": getattr(grid, part) for name, grid in grids.items() for part in GRID}
        facts = {name: p.facts for name, p in parts.items()}
        bits = {name: grid.bits for name, grid in grids.items()}
        cost = {"error": solved.error, "seconds": solved.seconds}
        write_tensors(weights, self._file("blocks", solved.block), facts=facts, cost=cost, bits=bits)

    def load(self, block: str) -> Solved:
        """A block as it was saved."""
        self.loaded.add(block)
        masks = load_masks(self._file("masks", block))
        weights, metadata = read_tensors(self._file("blocks", block))
        bits = metadata.get("bits", {})  # earlier versions wrote none
        grids = {name: Grid(*(weights[f"{name}:{part}"] for part in GRID), bits[name]) for name in bits}
        facts = metadata["facts"]
        parts = {name: Pruned(weights[name], mask, grids.get(name), **facts[name]) for name, mask in masks.items()}
        return Solved(block, {f"{block}.{name}": p for name, p in parts.items()}, **metadata["cost"])

    def drop_weights(self) -> None:
        """The run is over: its weights are in model/ if they were asked for, and can be computed again."""
        if (blocks := self.folder / "blocks").is_dir():
            going = blocks.rename(self.folder / ".blocks.part")  # all are there or none, should the process be killed
            shutil.rmtree(going, ignore_errors=True)


@dataclass(frozen=True)
class Shelf(Mapping[str, Tensor]):
    """The tensors of all safetensors files in a folder, by name, each read when it is asked for."""

    folder: Path

    @cached_property
    def _files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                files |= dict.fromkeys(opened.keys(), file)
        return files

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as opened:
            return opened.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class Surveys:
    """Statistics of whole dense models in <outputs>/cache/surveys, kept for every run that asks the same of one.

    They depend on model, tokens and the statistic's own fields; on the batch too, for sums over other batches differ in
    their last bits. tokens: sha256, shape and name of the calibration windows, as the manifest has them; None for what
    reads no data. counted: the folders of those that this run made itself. spent: seconds that finding others took.
    """

    config: dict[str, Any]
    tokens: dict[str, Any] | None
    counted: set[str] = field(default_factory=set)
    spent: dict[str, float] = field(default_factory=dict)

    def __call__(self, statistic: ModelStatistic, find: Find) -> Mapping[str, Tensor]:
        """Its values by full name of the matrix: from disk, or computed now block by block and put there.

        One process computes them, or its ranks together, and others wait. A file that is not as it was written makes
        them be computed again.
        """
        folder, start = self._folder(statistic), time.perf_counter()

        def make() -> None:
            blocks, begun = [], time.perf_counter()
            with labelled(type(statistic).__name__):
                for block, values in find():
                    file = folder / f"{block}.safetensors"
                    ranks.told(lambda values=values, file=file: write_tensors(values, file))
                    blocks.append(block)
            if self._folder(statistic) != folder:
                raise ValueError("model: its files changed while they were read; run it again")
            facts = {"statistic": repr(statistic), "model": self.config["model"]["path"], "blocks": blocks}
            facts |= {"tokens": self.tokens if statistic.data else None, "seconds": time.perf_counter() - begun}
            facts["peaks"] = machine.peaks(self.config["device"])
            ranks.told(lambda: seal(folder / COMPLETE, facts))
            self.counted.add(folder.name)

        ranks.told(lambda: folder.mkdir(parents=True, exist_ok=True))
        shared(folder, lambda: complete(folder), make)
        self.spent[folder.name] = time.perf_counter() - start
        return Shelf(folder)

    def _folder(self, statistic: ModelStatistic) -> Path:
        sha256 = (self.tokens or {}).get("sha256") if statistic.data else None
        name = f"{type(statistic).__name__}-{survey(self.config, sha256, statistic)}"
        return Path(self.config["outputs"]) / "cache" / "surveys" / name

    def unspent(self, statistic: ModelStatistic) -> tuple[float | None, dict[str, Any]]:
        """Seconds that making it would have taken more than finding it did, and the peaks of memory of that.

        None where it is gone or an earlier version made it, which did not say.
        """
        folder = self._folder(statistic)
        if folder.name in self.counted:
            return 0.0, {}
        facts = sealed(folder / COMPLETE) or {}
        seconds = facts.get("seconds")
        return None if seconds is None else seconds - self.spent.get(folder.name, 0.0), facts.get("peaks", {})


def complete(folder: Path) -> bool:
    """Whether a survey ended here, and all its files are as they were written."""
    facts = sealed(folder / COMPLETE)
    return facts is not None and all(intact(folder / f"{block}.safetensors") for block in facts["blocks"])
