"""A checkpoint's tensors as its safetensors files name them, read one by one: a shard is open at a time, and the model
is never in memory. Nothing is unpickled.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from experiments.console.errors import note, one_line
from experiments.models.refusals import refuse_adapter

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ROWS = 4096  # of two tensors that are compared at once
VARIANT = re.compile(r"model\.\w+\.safetensors|model\.safetensors\.index\.\w+\.json")
SHARD = re.compile(r"(model(?:\.\w+)?)-(\d+)-of-(\d+)(\.\w+)?\.safetensors")
TABLE = re.compile(r"rotary_emb\.inv_freq$|\b(attn|attention)\.masked_bias$")  # of an older transformers
MASK = re.compile(r"\b(attn|attention)\.(bias|causal_mask)$")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: the shape as stored, the type as safetensors calls it (BF16), its size in bytes."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole, as no weight's are."""
        return self.dtype.startswith(("I", "U", "BOOL"))

    @property
    def obsolete(self) -> bool:
        """Whether it is a table or a mask that checkpoints of an older transformers hold, and models now compute."""
        if MASK.search(self.name):  # of tokens on tokens; a bias has one axis
            return len(self.shape) == 4 and self.shape[:2] == (1, 1) and self.shape[2] == self.shape[3]
        return bool(TABLE.search(self.name)) and len(self.shape) < 2


@dataclass(frozen=True)
class Contents:
    """What a folder holds: its tensors by name, and where its files, its index and each other disagree."""

    tensors: dict[str, Stored]
    faults: list[str]
    notes: list[str]


def files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The weight files of a folder, and the file of each tensor as their index has it ({}: no index).

    They are those that transformers reads; where it would find none, those of the one variant there is
    (model.fp16.safetensors), or all shards of a set without an index, and a line says so. No weight is read.
    FileNotFoundError without config.json, PermissionError for what may not be read, ValueError for broken JSON, for
    absent files and for pickled weights in their place.
    """
    refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json in it; expected a Hugging Face model folder")
    configuration(folder)
    first = _first(folder)
    told = _json(folder / first).get("weight_map") if first.endswith(".json") else {}
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told.values()):
        raise ValueError(f"{folder}: broken {first} (no weight_map from tensors to files); copy it again")
    names = sorted(set(told.values())) or ([SINGLE] if first.endswith(".json") else [first])
    if names == [SINGLE] and not (folder / SINGLE).is_file():
        names = _shards(folder) or names
    if absent := [name for name in names if not (folder / name).is_file()]:
        pickled = sorted(file.name for kind in PICKLED for file in folder.glob(kind))
        found = f", found {', '.join(pickled)}, which is pickled and could run code" if pickled else ""
        raise ValueError(f"{folder}: expected {', '.join(absent)}{found}; save the model as safetensors")
    for name in names:
        (folder / name).open("rb").close()  # safetensors calls a file that may not be read absent
    return names, told


def usual(folder: Path) -> str | None:
    """The file that transformers begins with, the weights or their index; None where it would find neither."""
    named = configuration(folder).get("transformers_weights")
    names = [named] if isinstance(named, str) else [SINGLE, INDEX]
    return next((name for name in names if (folder / name).is_file()), None)


def _first(folder: Path) -> str:
    """The file that loading begins with."""
    if found := usual(folder):
        return found
    variants = sorted(file.name for file in folder.iterdir() if VARIANT.fullmatch(file.name))
    if len(variants) > 1:
        raise ValueError(f"{folder}: no {SINGLE}, but {', '.join(variants)}; leave one of them in it")
    if variants:
        note(f"{folder}: no {SINGLE}; its variant {variants[0]} is read")
    return variants[0] if variants else SINGLE


def _shards(folder: Path) -> list[str]:
    """All files of the one set of shards that a folder holds; [] for none and for several."""
    found = [match for file in folder.glob("*.safetensors") if (match := SHARD.fullmatch(file.name))]
    sets = {(match[1], match[3], match[4] or "") for match in found}
    if len(sets) != 1:
        return []
    ((begins, count, ends),) = sets
    note(f"{folder}: no {INDEX}; all {int(count)} files named {begins}-*-of-{count}{ends}.safetensors are read")
    return [f"{begins}-{number:0{len(count)}}-of-{count}{ends}.safetensors" for number in range(1, int(count) + 1)]


def filled(folder: Path) -> bool:
    """Whether there are weights of any kind; a plan does without."""
    kinds = ("*.safetensors*", *PICKLED, "*.bin.index.json", "adapter_config.json")
    return any(True for kind in kinds for _ in folder.glob(kind))


def configuration(folder: Path) -> dict[str, Any]:
    """The folder's config.json; ValueError where it is no JSON object."""
    return _json(folder / "config.json")


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.parent}: broken {file.name} ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file.parent}: broken {file.name} (no JSON object); copy it again")
    return found


def contents(folder: Path) -> Contents:
    """The headers of the weight files that transformers reads; raises what `files` does, and for a broken header."""
    names, told = files(folder)
    tensors: dict[str, Stored] = {}
    faults: list[str] = []
    for name in names:
        for stored in _header(folder / name):
            if stored.name in tensors:
                faults.append(f"{stored.name} is in {tensors[stored.name].file.name} and again in {name}")
            tensors[stored.name] = stored
    depth = configuration(folder).get("num_hidden_layers")
    if isinstance(depth, int) and depth > len(tensors):  # building as many would take hours
        raise ValueError(f"{folder}: config.json asks for {depth} blocks, the files hold {len(tensors)} tensors")
    for name, file in told.items():
        if name in tensors and tensors[name].file != folder / file:
            faults.append(f"{name} is in {tensors[name].file.name}, the index says {file}")
        elif name not in tensors:
            faults.append(f"{name} is in no file, the index says {file}")
    faults += [f"{name} is not in the index" for name in tensors if told and name not in told]
    others = {file.name for kind in ("*.safetensors", *PICKLED) for file in folder.glob(kind)} - set(names)
    notes = [f"not read, as no index names it: {name}" for name in sorted(others)]
    return Contents(tensors, faults, notes)


def read(tensors: Iterable[Stored]) -> Iterator[tuple[Stored, Tensor]]:
    """Each tensor with its values, file after file; they are mapped from disk and go with the next one."""
    place = lambda stored: stored.file
    for file, members in groupby(sorted(tensors, key=place), place):
        with opened(file) as source:
            for stored in members:
                yield stored, source.get_tensor(stored.name)


def first_dtype(tensors: Mapping[str, Stored]) -> torch.dtype:
    """The dtype of the first floating-point tensor, for a configuration that names none; float32 without any."""
    return next((FLOATS[stored.dtype] for stored in tensors.values() if stored.dtype in FLOATS), torch.float32)


def alike(one: Stored, other: Stored, dtype: torch.dtype) -> bool:
    """Whether two tensors have the same values in this dtype; a few rows of them are in memory at a time."""
    if one.shape != other.shape or not one.shape:
        return False
    with opened(one.file) as left, opened(other.file) as right:
        mine, theirs = left.get_slice(one.name), right.get_slice(other.name)
        pieces = (slice(start, start + ROWS) for start in range(0, one.shape[0], ROWS))
        return all(torch.equal(mine[piece].to(dtype), theirs[piece].to(dtype)) for piece in pieces)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file; ValueError that names it where it is not whole."""
    try:
        with safe_open(file, "pt") as source:
            yield source
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({one_line(error)}); copy it again") from error


def _header(file: Path) -> list[Stored]:
    with opened(file) as source:
        slices = {name: source.get_slice(name) for name in source.keys()}  # noqa: SIM118 - it is not a dict
        return [_stored(name, file, piece) for name, piece in slices.items()]


def _stored(name: str, file: Path, piece: Any) -> Stored:
    shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
    count = 1
    for size in shape:
        count *= size
    bits = int("".join(filter(str.isdigit, dtype.partition("_")[0])) or 8)  # BOOL is a byte, F8_E4M3 has 8 bits
    return Stored(name, file, shape, dtype, count * bits // 8)
