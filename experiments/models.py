"""Loads a Hugging Face causal LM from the hub or a folder: complete, from safetensors, or says in one line why not.

The runner's only module that imports transformers.
"""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from experiments.checkpoints import stored
from experiments.checkpoints.shards import Shards, match
from experiments.checkpoints.skeleton import skeleton
from experiments.checkpoints.whereabouts import TOKENIZER, fetched, located
from experiments.hints import one_line
from prune.decoder import Decoder

DTYPES = {"auto": "auto", "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    blocks: str | None,
    batch: int,
    device: str,
) -> Decoder:
    """The model at `path` (hub id, folder or "demo"), and its tokenizer (None where a folder has none).

    Its blocks are read from the safetensors files when they are needed; a checkpoint whose tensors transformers renames
    or fuses (per-expert weights) is loaded whole, into host memory. `dtype` is float32, float16, bfloat16, or auto or
    None for the checkpoint's own; `blocks`, `batch`, `device` are the Decoder's. ValueError or OSError, in one line,
    for what is not a complete safetensors checkpoint of a causal LM.
    """
    kind = kind_of(dtype)
    check(path)
    with explained(path):
        folder = fetched(path, revision)
    check(str(folder))
    with explained(path):
        tokenizer = _tokenizer(folder, trust_remote_code)
        model, wrong, home = _streamed(folder, dtype, trust_remote_code)
        if home is None:
            model, wrong = _whole(folder, kind, trust_remote_code)
    _refuse_partial(path, type(model).__name__, wrong)
    _refuse_foreign(path, tokenizer, model.get_input_embeddings().weight.shape[0])
    model.config._commit_hash = folder.name if folder.parent.name == "snapshots" else None  # what a hub's main was
    return Decoder(model, tokenizer, blocks, batch, device, home=home)


@contextmanager
def explained(path: str) -> Iterator[None]:
    """What transformers, the hub or safetensors raise becomes a ValueError in one line that says what to do."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a configuration or a file can break a library anywhere
        line = textwrap.shorten(one_line(error), 300, placeholder=" ...").rstrip(".")
        if line.startswith("model."):
            raise
        raise ValueError(f"model.path={path}: {line}; {_remedy(path)}") from error


def kind_of(dtype: str | None) -> Any:
    """The torch dtype of that name, or "auto"; ValueError for another name."""
    kind = DTYPES.get(dtype or "auto")
    if kind is None:
        raise ValueError(f"model.dtype={dtype}: expected one of {', '.join(DTYPES)}")
    return kind


def check(path: str) -> None:
    """Refuses early, before any weight is read, a folder without config.json or all of its safetensors files."""
    folder = located(path)
    if folder is None:
        return
    try:
        stored.files(folder)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"model.path={path}: {str(error).removeprefix(f'{folder}: ')}") from error


def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The folder's tokenizer; None where there is none."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds; `fingerprint` does without

    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        return None
    with quiet():
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)


def _streamed(folder: Path, dtype: str | None, trust_remote_code: bool) -> tuple[Any, dict[str, Any], Shards | None]:
    """The model without weights, what is wrong with its tensors, and the files as its home.

    The home is None for a checkpoint that only transformers can read: fused on loading, quantised, of mixed precision.
    """
    tensors = stored.contents(folder).tensors
    with quiet():
        model = skeleton(str(folder), None, dtype, trust_remote_code, tensors)
        home, wrong = match(model, folder, tensors)
    mixed = model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict
    if wrong["unexpected"] or mixed or getattr(model.config, "quantization_config", None):
        return model, {}, None
    if not any(wrong.values()):
        home.settle(model)
    return model, wrong, home


def _whole(folder: Path, dtype: Any, trust_remote_code: bool) -> tuple[Any, dict[str, list[str]]]:
    """The model in host memory, and the names of the tensors that transformers finds wrong."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name, and refused with the missing ones
            trust_remote_code=trust_remote_code,
        )
    model, told = loaded
    wrong = {"missing": sorted(told["missing_keys"]), "unexpected": sorted(told["unexpected_keys"])}
    return model, wrong | {"reshaped": sorted(name for name, *_ in told["mismatched_keys"])}


@contextmanager
def quiet() -> Iterator[None]:
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


def _refuse_partial(path: str, kind: str, wrong: dict[str, list[str]]) -> None:
    """ValueError naming the tensors that the checkpoint lacks, has too many, in another shape or as integers."""
    words = {"reshaped": "of another shape", "whole": "of whole numbers"}
    found = [
        f"{len(names)} {words.get(what, what)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
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
