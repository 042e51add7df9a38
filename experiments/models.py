"""Loads a Hugging Face causal LM from the hub or a folder: complete, from safetensors, or says in one line why not.

The runner's only module that imports transformers.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from prune.decoder import Decoder

DTYPES = {"auto": "auto", "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "spiece.model")  # what a folder keeps its tokenizer in
IDENTIFYING = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.py", *TOKENIZER)
WHOLE = 64 * 2**20  # bytes up to which a file is hashed whole: reading 140 GB to name a run would take minutes


def load(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    blocks: str | None,
    batch: int,
    device: str,
) -> Decoder:
    """The model at `path` (hub id, folder or "demo"), on the CPU, and its tokenizer (None where a folder has none).

    `dtype` is float32, float16, bfloat16, or auto or None for the checkpoint's own; `blocks`, `batch`, `device` are the
    Decoder's. ValueError or OSError, in one line, for what is not a complete safetensors checkpoint of a causal LM.
    """
    check(path)
    kind = DTYPES.get(dtype or "auto")
    if kind is None:
        raise ValueError(f"model.dtype={dtype}: expected one of {', '.join(DTYPES)}")
    try:
        model, tokenizer, report = _read(path, kind, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"model.path={path}: {line.rstrip('.')}; {_remedy(path)}") from error
    _refuse_partial(path, type(model).__name__, report)
    _refuse_foreign(path, tokenizer, model.get_input_embeddings().weight.shape[0])
    return Decoder(model, tokenizer, blocks, batch, device)


def located(path: str) -> Path | None:
    """The folder that `path` means; None for a hub id, owner/name. FileNotFoundError for anything else."""
    folder = Path(__file__).parent / "demo" / "model" if path == "demo" else Path(path)
    if folder.is_dir():
        return folder
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", path):
        return None
    raise FileNotFoundError(f"model.path={path}: no such folder; give a model's folder or a hub id, owner/name")


def check(path: str) -> None:
    """Refuses early, before any weight is read, a folder without config.json or all of its safetensors files."""
    folder = located(path)
    if folder is None:
        return
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"model.path={path}: no config.json in it; expected a Hugging Face model folder")
    index, single = folder / "model.safetensors.index.json", "model.safetensors"
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sharded = index.is_file() and not (folder / single).is_file()
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if sharded else {single}
    except (ValueError, KeyError) as error:
        raise ValueError(f"model.path={path}: broken config.json or weight index ({error}); copy it again") from error
    if absent := sorted(name for name in names if not (folder / name).is_file()):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f", found {', '.join(pickled)}, which is pickled and could run code" if pickled else ""
        raise ValueError(f"model.path={path}: expected {', '.join(absent)}{found}; save the model as safetensors")


def fingerprint(path: str, revision: str | None) -> str:
    """What a model is, as text: id and revision of a hub model, a sha256 over a folder's config, weights and tokenizer.

    A file above 64 MB counts with its header, size and time of change: touching it is taken for a change, and its bytes
    changed in place with the old time would go unseen.
    """
    folder = located(path)
    if folder is None:
        return f"{path}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in IDENTIFYING for file in folder.glob(pattern)}):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    status = file.stat()
    if status.st_size <= WHOLE:
        return file.read_bytes()
    with file.open("rb") as opened:
        size = opened.read(8)  # a safetensors file opens with the length of its header, which names every tensor
        header = opened.read(min(int.from_bytes(size, "little"), WHOLE))
    return header + f"{status.st_size} {status.st_mtime_ns}".encode()


def _read(path: str, dtype: Any, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and what transformers reports about the tensors it found."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - seconds; `fingerprint` does without

    folder = located(path)
    source = str(folder or path)
    with _quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name, and refused with the missing ones
            **options,
        )
        bare = folder is not None and not any(True for pattern in TOKENIZER for _ in folder.glob(pattern))
        tokenizer = None if bare else AutoTokenizer.from_pretrained(source, **options)
    model, report = loaded
    return model, tokenizer, report


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the table of tensors that transformers logs: what is wrong with them becomes one error of ours.

    Its progress bars are for people: in a log file they would be a line per step.
    """
    from transformers.utils import logging  # noqa: PLC0415

    before = logging.get_verbosity()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _refuse_partial(path: str, kind: str, report: dict[str, Any]) -> None:
    """ValueError naming the tensors that the checkpoint lacks, has too many or in another shape than the model."""
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(name for name, *_ in report["mismatched_keys"]),
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for what, names in wrong.items()
        if names
    ]
    if found:
        raise ValueError(f"model.path={path}: {'; '.join(found)} tensors for {kind}; give its own checkpoint")


def _refuse_foreign(path: str, tokenizer: Any, rows: int) -> None:
    """ValueError for a tokenizer that makes ids beyond the `rows` of the embedding."""
    if tokenizer is not None and len(tokenizer) > rows:
        found = f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}"
        raise ValueError(f"model.path={path}: {found}; use the tokenizer this model was trained with")


def _remedy(path: str) -> str:
    if located(path) is not None:
        return "expected a folder that AutoModelForCausalLM of transformers loads from safetensors"
    return "check id and revision (which must hold safetensors), `hf auth login` if gated, or give model.path=FOLDER"
