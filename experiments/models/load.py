"""Loads a Hugging Face causal LM from the hub or a folder: complete, from safetensors, or says in one line why not."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.models import admission, stored
from experiments.models.library import explained, kind_of, quiet
from experiments.models.location import fetched
from experiments.models.shards import Memory
from experiments.models.skeleton import configured
from prune.decoder import Decoder


def load(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    blocks: str | None,
    batch: int,
    device: str,
    routers: bool = False,
) -> Decoder:
    """The model at `path` (hub id, folder or "demo"), and its tokenizer (None where a folder has none).

    Its blocks are read from the safetensors files when they are needed; a checkpoint whose tensors transformers renames
    or fuses (per-expert weights) is loaded whole, into host memory. `dtype` is float32, float16, bfloat16, or auto or
    None for the checkpoint's own; `blocks`, `batch`, `device`, `routers` are the Decoder's. ValueError or OSError, in
    one line, for what is not a complete safetensors checkpoint of a causal LM.
    """
    kind = kind_of(dtype)
    admission.check(path)
    with explained(path):
        folder = fetched(path, revision)
    admitted = admission.admit(path, folder, dtype, trust_remote_code, blocks)
    model, home = admitted.model, admitted.home
    if home is None:
        with explained(path):
            model = _whole(path, folder, kind, trust_remote_code)
        home = Memory(folder)
    model.config._commit_hash = folder.name if folder.parent.name == "snapshots" else None  # what a hub's main was
    return Decoder(model, admitted.tokenizer, blocks, batch, device, home=home, routers=routers)


def _whole(path: str, folder: Path, dtype: Any, trust_remote_code: bool) -> Any:
    """The model in host memory; ValueError for tensors that transformers finds wrong after all."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with quiet(), _as_transformers_names_it(folder) as place:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(place),
            config=configured(str(place), None, trust_remote_code),
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name, and refused with the missing ones
            trust_remote_code=trust_remote_code,
        )
    model, told = loaded
    wrong = {"missing": sorted(told["missing_keys"]), "reshaped": sorted(name for name, *_ in told["mismatched_keys"])}
    admission.refuse_partial(path, type(model).__name__, wrong)
    return model


@contextmanager
def _as_transformers_names_it(folder: Path) -> Iterator[Path]:
    """The folder, or where transformers would not find its weights a temporary one of links, with an index of them."""
    if stored.usual(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for file in folder.iterdir():
            (Path(place) / file.name).symlink_to(file.resolve())
        tensors = stored.contents(folder).tensors
        places = {name: str(tensor.file.relative_to(folder)) for name, tensor in tensors.items()}
        (Path(place) / stored.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        yield Path(place)
