"""transformers as this project hears it: quiet, and what it cannot do in one line."""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from experiments.console.errors import one_line
from experiments.models.location import TOKENIZER, located

DTYPES = {"auto": "auto", "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def explained(path: str, what: str = "") -> Iterator[None]:
    """What transformers, the hub or safetensors raise becomes a ValueError in one line that says what to do.

    `what` stands in front of it: what was being read.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a configuration or a file can break a library anywhere
        if str(error).startswith("model."):
            raise
        raise ValueError(f"model.path={path}: {what}{reason(error)}; {_remedy(path)}") from error


def reason(error: Exception) -> str:
    """What such an error says, in one line that is not too long; of code that it would not run, how to allow it."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own: read that, and allow it with model.trust_remote_code=true"
    return textwrap.shorten(one_line(error), 300, placeholder=" ...").rstrip(".")


def kind_of(dtype: str | None) -> Any:
    """The torch dtype of that name, or "auto"; ValueError for another name."""
    kind = DTYPES.get(dtype or "auto")
    if kind is None:
        raise ValueError(f"model.dtype={dtype}: expected one of {', '.join(DTYPES)}")
    return kind


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


def tokenizer(path: str, folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer in the `folder` of model.path=`path`; None where there is none, ValueError where it is broken."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds, later than a mistake

    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        return None
    with explained(path, "its tokenizer: "), quiet():
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)


def _remedy(path: str) -> str:
    if located(path) is not None:
        return "expected a folder that AutoModelForCausalLM of transformers loads from safetensors"
    return "check id and revision (which must hold safetensors), `hf auth login` if gated, or give model.path=FOLDER"
