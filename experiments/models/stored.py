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

from experiments.console.errors import one_line
from experiments.models.location import located

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth")
WEIGHTS = ("*.safetensors*", *PICKLED, "*.bin.index.json", "adapter_config.json")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ROWS = 4096  # of two tensors that are compared at once
MANY = 4  # names that a line gives
QUANTISATION = ("quantization_config", "compression_config")
PACKED = re.compile(  # what only a quantised matrix has beside it, or is called
    r"[.:](qweight|qzeros|qdata|weight_packed|weight_scale|weight_scale_inv|absmax|SCB|W_q|compressed|bitmask)$"
    r"|_proj_(blocks|scales)$"
)
TABLE = re.compile(r"rotary_emb\.inv_freq$|\b(attn|attention)\.masked_bias$")  # of an older transformers
MASK = re.compile(r"\b(attn|attention)\.(bias|causal_mask)$")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its shape as stored, and its type as safetensors calls it (BF16)."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

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


def filled(folder: Path) -> bool:
    """Whether there are weights of any kind; a plan does without."""
    return any(True for kind in WEIGHTS for _ in folder.glob(kind))


def configuration(folder: Path) -> dict[str, Any]:
    """The folder's config.json; ValueError where it is no JSON object."""
    return _json(folder / "config.json")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.parent}: broken {file.name} ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.parent}: broken {file.name} (no JSON object); copy it again")
    return content


def check(path: str) -> None:
    """Refuses early a model.path=`path` that is no folder of a model, or of one that cannot be read or pruned."""
    if folder := located(path):
        sound(path, folder)


def sound(path: str, folder: Path) -> dict[str, Stored]:
    """The tensors in the `folder` of model.path=`path`; FileNotFoundError or ValueError in one line for one without
    config.json or all of its safetensors files, for quantised weights and for an adapter.
    """
    try:
        tensors = contents(folder)
        refuse_quantised(configuration(folder), tensors.values())
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"model.path={path}: {str(error).removeprefix(f'{folder}: ')}") from error
    return tensors


def refuse_quantised(config: dict[str, Any], tensors: Iterable[Stored]) -> None:
    """ValueError for quantised weights, and for a config.json that asks transformers to quantise plain ones."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    settings = next((part[key] for part in parts for key in QUANTISATION if part.get(key)), None)
    packed = next((tensor for tensor in tensors if tensor.dtype.startswith("F8") or PACKED.search(tensor.name)), None)
    if packed is None and settings is None:
        return
    if settings is None:
        raise ValueError(f"quantised ({packed.name} is {packed.dtype}): dequantise it first")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    method = method or ("bitsandbytes" if "load_in_" in str(settings) else "of no name")
    remedy = "dequantise it first, or give the model that it was made from"
    if method == "compressed-tensors":
        remedy += "; from_pretrained(FOLDER, quantization_config=CompressedTensorsConfig(dequantize=True)) does"
    if packed is None:
        raise ValueError(
            f"config.json asks for quantisation ({method}), but the weights are plain; take quantization_config out of"
            " it, or give the weights it was written for"
        )
    raise ValueError(f"quantised ({method}): {remedy}")


def refuse_adapter(folder: Path) -> None:
    """ValueError for an adapter, alone or beside a model: transformers would apply it, and no number would be right."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    if (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: adapter_config.json lies beside the model, and transformers would apply it;"
            " merge the adapter into the weights (peft: merge_and_unload), or move it away"
        )
    base = _json(file).get("base_model_name_or_path", "another model")
    raise ValueError(f"{folder}: an adapter of {base}; merge it into that (peft: merge_and_unload) and save it")


def files(folder: Path) -> list[str]:
    """The weight files that transformers reads of a folder. No weight is read.

    FileNotFoundError without config.json, PermissionError for what may not be read, ValueError for broken JSON, for
    absent files and for pickled weights in their place.
    """
    refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        packed = next(iter(sorted(folder.glob("*.gguf"))), None)
        instead = f", or {packed} itself" if packed else ""
        raise FileNotFoundError(f"{folder}: no config.json in it; expected a Hugging Face model folder{instead}")
    own = configuration(folder).get("transformers_weights")
    usual = [own] if isinstance(own, str) else [SINGLE, INDEX]
    first = next((name for name in usual if (folder / name).is_file()), SINGLE)
    names = [first]
    if first.endswith(".json"):
        places = _json(folder / first).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(f"{folder}: broken {first} (no weight_map from tensors to files); copy it again")
        names = sorted(set(places.values())) or [SINGLE]
    if absent := [name for name in names if not (folder / name).is_file()]:
        pickled = ", ".join(sorted(file.name for kind in PICKLED for file in folder.glob(kind)))
        instead = f", found {pickled}, which is pickled and could run code" if pickled else ""
        raise ValueError(f"{folder}: expected {', '.join(absent)}{instead}; save the model as safetensors")
    for name in names:
        (folder / name).open("rb").close()  # safetensors calls a file that may not be read absent
    return names


def contents(folder: Path) -> dict[str, Stored]:
    """What the headers of the weight files that transformers reads name; raises what `files` does, and ValueError for a
    broken header, for a tensor in two files and for fewer tensors than blocks, whose building would take hours.
    """
    tensors: dict[str, Stored] = {}
    for name in files(folder):
        for stored in header(folder / name):
            if stored.name in tensors:
                first = tensors[stored.name].file.name
                raise ValueError(f"{folder}: {stored.name} is in {first} and again in {name}; copy the model again")
            tensors[stored.name] = stored
    depth = configuration(folder).get("num_hidden_layers")
    if isinstance(depth, int) and depth > len(tensors):
        raise ValueError(f"{folder}: config.json asks for {depth} blocks, the files hold {len(tensors)} tensors")
    return tensors


def header(file: Path) -> list[Stored]:
    """What a safetensors file holds."""
    with opened(file) as source:
        pieces = [(name, source.get_slice(name)) for name in source.keys()]  # noqa: SIM118 - it is not a dict
        return [Stored(name, file, tuple(piece.get_shape()), piece.get_dtype()) for name, piece in pieces]


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


def some(names: list[str]) -> str:
    """The first of these names."""
    return ", ".join([*names[:MANY], "..."] if len(names) > MANY else names)
