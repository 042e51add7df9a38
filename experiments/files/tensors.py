"""Tensors on disk as safetensors: there as a whole or not at all, sealed with a hash (`disk.intact` checks it)."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from experiments.files.disk import digest_tensors, intact, replacing


def write_tensors(tensors: dict[str, Tensor], file: Path, **facts: Any) -> None:
    """A safetensors file with facts as JSON in its metadata, sealed with a sha256 over both; the whole file or none.

    OSError if it cannot be written.
    """
    content = lambda tensor: tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    parts = ((f"{name} {t.dtype} {list(t.shape)}", content(t)) for name, t in sorted(tensors.items()))
    metadata = {name: json.dumps(fact) for name, fact in facts.items()}
    metadata["sha256"] = digest_tensors(parts, metadata)
    with replacing(file) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"{file} cannot be written: {error}") from error


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of `write_tensors`; ValueError if they are not as they were written, or not there."""
    if not intact(file):
        raise ValueError(f"{file}: expected a whole file as this project writes them; remove it and run again")
    with safe_open(file, "pt") as opened:
        facts = {name: json.loads(fact) for name, fact in opened.metadata().items() if name != "sha256"}
        return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118 - it is no dict
