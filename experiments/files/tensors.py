"""Tensors on disk as safetensors: there as a whole or not at all, sealed with a hash that is checked without torch."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.files.disk import replacing, say_damaged, state

if TYPE_CHECKING:  # it takes seconds, which asking about a finished run need not wait for
    from torch import Tensor

# What torch calls a tensor that safetensors marks so.
KINDS = {"BOOL": "bool", "U8": "uint8", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
KINDS |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}


def write_tensors(tensors: dict[str, "Tensor"], file: Path, **facts: Any) -> None:
    """A safetensors file with facts as JSON in its metadata, sealed with a sha256 over both; the whole file or none.

    OSError if it cannot be written.
    """
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    content = lambda tensor: tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    parts = ((f"{name} {t.dtype} {list(t.shape)}", content(t)) for name, t in sorted(tensors.items()))
    said = {name: json.dumps(fact) for name, fact in facts.items()}
    said["sha256"] = _digest(parts, said)
    with replacing(file) as temporary:
        try:
            save_file(tensors, temporary, metadata=said)
        except SafetensorError as error:
            raise OSError(f"{file} cannot be written: {error}") from error


def read_tensors(file: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The tensors and facts of `write_tensors`; ValueError if they are not as they were written, or not there."""
    from safetensors import safe_open  # noqa: PLC0415

    if not intact(file):
        raise ValueError(f"{file}: expected a whole file as this project writes them; remove it and run again")
    with safe_open(file, "pt") as opened:
        facts = {name: json.loads(fact) for name, fact in opened.metadata().items() if name != "sha256"}
        return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118 - it is no dict


def intact(file: Path) -> bool:
    """Whether the file holds what `write_tensors` wrote; one line is logged if there is one that does not."""
    return file.exists() and _unchanged(file, *state(file))


@lru_cache(65536)  # a file is read once, not for every question about it, unless it changes
def _unchanged(file: Path, *stamp: int) -> bool:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(file, "numpy") as opened:  # refuses what is not whole
            said = opened.metadata() or {}
        if said.pop("sha256", None) == _digest(_stored(file), said):
            return True
    except (SafetensorError, OSError):
        pass
    say_damaged(file, *stamp)
    return False


def _stored(file: Path) -> Iterator[tuple[str, Any]]:
    """Name, kind and shape of each tensor of a whole safetensors file, as torch writes them, and its bytes.

    They are read without torch, which whoever asks about a finished run need not wait for.
    """
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as whole, memoryview(whole) as view:
        begin = 8 + int.from_bytes(view[:8], "little")
        for name, about in sorted(json.loads(bytes(view[8:begin])).items()):
            if name != "__metadata__":
                first, last = about["data_offsets"]
                with view[begin + first : begin + last] as part:
                    yield f"{name} torch.{KINDS.get(about['dtype'])} {about['shape']}", part


def _digest(tensors: Iterable[tuple[str, Any]], facts: dict[str, str]) -> str:
    """sha256 over the facts, and over what each tensor is and its bytes, in the order of their names."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for what, content in tensors:
        digest.update(what.encode())
        digest.update(content)
    return digest.hexdigest()
