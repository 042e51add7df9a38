"""Whether a folder is a model that can be pruned, before a weight is read: loading and planning refuse the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console.errors import note
from experiments.models import library, stored
from experiments.models.architecture import misfits
from experiments.models.causality import causal
from experiments.models.location import located
from experiments.models.refusals import refuse_quantised
from experiments.models.shards import Shards, match
from experiments.models.skeleton import skeleton

MANY = 4  # names that a line gives
FEW = 8  # ids that a tokenizer may have beyond the embedding, or a hundredth of it: added ones that are hardly used


@dataclass(frozen=True)
class Admitted:
    """The model without its weights, the files as its home, and its tokenizer (None where the folder has none).

    home: None for a checkpoint that only transformers can read: fused on loading, or of mixed precision.
    """

    model: Any
    home: Shards | None
    tokenizer: Any


def admit(path: str, folder: Path, dtype: str | None, trust_remote_code: bool, blocks: str | None) -> Admitted:
    """The model in the `folder` that model.path=`path` means; ValueError or OSError in one line if it is not whole.

    `blocks` is the path of the decoder blocks, as in model.blocks.
    """
    check(path, folder)
    held = stored.contents(folder)
    if held.faults:
        raise ValueError(f"model.path={path}: {'; '.join(held.faults[:MANY])}; give the model's own checkpoint")
    with library.explained(path), library.quiet():
        model = skeleton(str(folder), None, dtype, trust_remote_code, held.tensors)
        home, wrong = match(model, folder, held.tensors)
        if alone := any(wrong.values()):
            wrong = misfits(folder, held.tensors, trust_remote_code)
    refuse_partial(path, type(model).__name__, wrong)
    refuse_encoder(path, model, blocks)
    if old := [name for name, tensor in held.tensors.items() if tensor.obsolete]:
        note(f"{folder}: {len(old)} tables and masks of an older transformers are not read ({_some(old)})")
    tokenizer = library.tokenizer(path, folder, trust_remote_code)
    if tokenizer is not None:
        refuse_foreign(path, tokenizer.get_vocab().values(), model.get_input_embeddings().weight.shape[0])
    mixed = model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict
    if alone or mixed:
        return Admitted(model, None, tokenizer)
    home.settle(model)
    return Admitted(model, home, tokenizer)


def empty(
    path: str, revision: str | None, dtype: str | None, trust_remote_code: bool, blocks: str | None = None
) -> Any:
    """The model without its weights: admitted from a folder; of a hub model, and of a folder without any weights, made
    of config.json alone.
    """
    folder = located(path)
    if folder is not None and stored.filled(folder):
        return admit(path, folder, dtype, trust_remote_code, blocks).model
    model = skeleton(path, revision, dtype, trust_remote_code)
    refuse_encoder(path, model, blocks)
    return model


def check(path: str, folder: Path | None = None) -> None:
    """Refuses early a folder without config.json, without all of its safetensors files, quantised or with an adapter.

    `folder`: where a hub model has been downloaded to; without it, one that has not is not looked at.
    """
    folder = folder or located(path)
    if folder is None:
        return
    try:
        held = stored.contents(folder)
        refuse_quantised(stored.configuration(folder), held.tensors.values())
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"model.path={path}: {str(error).removeprefix(f'{folder}: ')}") from error


def refuse_encoder(path: str, model: Any, blocks: str | None) -> None:
    """ValueError for a model whose tokens see later ones: what it says of the next token is no prediction."""
    if not causal(model, blocks):
        raise ValueError(
            f"model.path={path}: {type(model).__name__} shows every token the later ones, as encoders do, and so has no"
            " perplexity; give a decoder"
        )


def refuse_partial(path: str, kind: str, wrong: dict[str, list[str]]) -> None:
    """ValueError naming the tensors that the checkpoint lacks, has too many, in another shape or as integers."""
    words = {"reshaped": "of another shape", "whole": "of whole numbers"}
    found = [f"{len(names)} {words.get(what, what)} ({_some(names)})" for what, names in wrong.items() if names]
    if found:
        raise ValueError(f"model.path={path}: {'; '.join(found)} tensors for {kind}; give its own checkpoint")


def refuse_foreign(path: str, ids: Iterable[int], rows: int) -> None:
    """ValueError for a tokenizer with many ids beyond the `rows` of the embedding; a line for one with a few."""
    beyond = [number for number in ids if number >= rows]
    found = f"model.path={path}: {len(beyond)} of the tokenizer's ids, up to {max(beyond, default=0)}, are beyond the"
    if len(beyond) > max(FEW, rows // 100):
        raise ValueError(f"{found} {rows} that the model embeds; use the tokenizer this model was trained with")
    if beyond:
        note(f"{found} {rows} that the model embeds; a text with one of them will be refused")


def _some(names: list[str]) -> str:
    return ", ".join(names[:MANY]) + (", ..." if len(names) > MANY else "")
