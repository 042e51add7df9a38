"""A Hugging Face causal LM from the hub or a folder: complete, from safetensors, or refused in one line that says why.

Loading and planning refuse the same, before a weight is read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from experiments.console.errors import note
from experiments.models import stored
from experiments.models.causality import causal
from experiments.models.checkpoint import Memory, Shards, match
from experiments.models.location import fetched, located
from experiments.models.skeleton import configured, explained, faults, judged, kind_of, skeleton, tokenizer
from prune.decoder import Decoder

FEW = 8  # ids that a tokenizer may have beyond the embedding, or a hundredth of it: added ones that are hardly used


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
    with explained(path):
        folder = fetched(path, revision)
    model, words, home = admit(path, folder, dtype, trust_remote_code, blocks)
    if home is None:
        with explained(path):
            config = configured(str(folder), None, trust_remote_code)
            options = {"dtype": kind, "use_safetensors": True, "trust_remote_code": trust_remote_code}
            model = AutoModelForCausalLM.from_pretrained(str(folder), config=config, **options)
        home = Memory(folder)
    model.config._commit_hash = folder.name if folder.parent.name == "snapshots" else None  # what a hub's main was
    return Decoder(model, words, blocks, batch, device, home=home, routers=routers)


def empty(
    path: str, revision: str | None, dtype: str | None, trust_remote_code: bool, blocks: str | None = None
) -> Any:
    """The model without its weights: admitted from a folder; of a hub model, and of a folder without any weights, made
    of config.json alone.
    """
    folder = located(path)
    if folder is not None and stored.filled(folder):
        return admit(path, folder, dtype, trust_remote_code, blocks)[0]
    model = skeleton(path, revision, dtype, trust_remote_code)
    refuse_encoder(path, model, blocks)
    return model


def admit(
    path: str, folder: Path, dtype: str | None, trust_remote_code: bool, blocks: str | None
) -> tuple[Any, Any, Shards | None]:
    """The model without its weights in the `folder` that model.path=`path` means, its tokenizer, and its files as home.

    The tokenizer is None where the folder has none; the home is None for a checkpoint that only transformers can read:
    fused on loading, or of mixed precision. ValueError or OSError in one line if it is not whole.
    """
    tensors = stored.sound(path, folder)
    model = skeleton(str(folder), None, dtype, trust_remote_code, tensors)
    with explained(path):
        home = match(model, folder, tensors)
        wrong = [] if home else faults(judged(folder, tensors, trust_remote_code)[1])
    if wrong:
        kind = type(model).__name__
        raise ValueError(f"model.path={path}: {'; '.join(wrong)}; give a checkpoint of this {kind} itself")
    refuse_encoder(path, model, blocks)
    if old := [name for name, tensor in tensors.items() if tensor.obsolete]:
        note(f"{folder}: {len(old)} tables and masks of an older transformers are not read ({stored.some(old)})")
    words = tokenizer(path, folder, trust_remote_code)
    if words is not None:
        refuse_foreign(path, words.get_vocab().values(), model.get_input_embeddings().weight.shape[0])
    if home is None or model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict:
        return model, words, None
    home.settle(model)
    return model, words, home


def refuse_encoder(path: str, model: Any, blocks: str | None) -> None:
    """ValueError for a model whose tokens see later ones: what it says of the next token is no prediction."""
    if not causal(model, blocks):
        raise ValueError(
            f"model.path={path}: {type(model).__name__} shows every token the later ones, as encoders do, and so has no"
            " perplexity; give a decoder"
        )


def refuse_foreign(path: str, ids: Iterable[int], rows: int) -> None:
    """ValueError for a tokenizer with many ids beyond the `rows` of the embedding; a line for one with a few."""
    beyond = [number for number in ids if number >= rows]
    line = f"model.path={path}: {len(beyond)} of the tokenizer's ids, up to {max(beyond, default=0)}, are beyond the"
    if len(beyond) > max(FEW, rows // 100):
        raise ValueError(f"{line} {rows} that the model embeds; use the tokenizer this model was trained with")
    if beyond:
        note(f"{line} {rows} that the model embeds; a text with one of them will be refused")
