"""A causal LM or image classifier of Hugging Face, from the hub or a folder: complete, from safetensors, or refused in
one line that says why.

Loading and planning refuse the same, before a weight is read.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from experiments.console.errors import note
from experiments.models import stored
from experiments.models.checkpoint import Memory, Shards, match
from experiments.models.location import fetched, located
from experiments.models.skeleton import (
    auto,
    configured,
    explained,
    judged,
    kind_of,
    narrow,
    skeleton,
    tokenizer,
    widened,
)
from experiments.models.vision import reader
from prune.call import Reached, first_of, leading
from prune.feeder import Samples, feeder_of
from prune.home import Slot
from prune.network import Network
from prune.own import depends

STRIDES = (11, 7, 5, 3, 1)  # of made-up numbers: a matrix of any size is a few of them, shifted from row to row
SLOW = "several times slower on a CPU than float32, which is what it computes in there without model.dtype="
FEW_TOKENS = 3  # of a sequence that is tried
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
    compute: str | None = None,
) -> Network:
    """The model at `path` (hub id, folder or "demo"), and its tokenizer or ImageReader (None where a folder has none).

    Its blocks are read from the safetensors files when they are needed; a checkpoint whose tensors transformers renames
    or fuses (per-expert weights) is loaded whole, into host memory. `dtype` is float32, float16, bfloat16, or auto or
    None for the checkpoint's own; `compute` is a wider one to compute in, while weights stay what `dtype` can hold;
    `blocks`, `batch`, `device`, `routers` are the Network's. ValueError or OSError, in one line, for what is not a
    complete safetensors checkpoint of a causal LM or image classifier.
    """
    kind = kind_of(dtype)
    with explained(path):
        folder = fetched(path, revision)
    model, words, home = admit(path, folder, dtype, trust_remote_code, blocks, compute)
    if home is None:
        with explained(path):
            config = configured(str(folder), None, trust_remote_code)
            options = {"dtype": kind, "use_safetensors": True, "trust_remote_code": trust_remote_code}
            model = auto(config).from_pretrained(str(folder), config=config, **options)
        home = Memory(folder, {name: tensor.dtype for name, tensor in model.state_dict().items()})
        model = widened(model, compute)
    model.config._commit_hash = folder.name if folder.parent.name == "snapshots" else None  # what a hub's main was
    if device == "cpu" and model.dtype == torch.float16:
        note(f"model.dtype={dtype}: computing in float16, {SLOW}")
    return Network(model, words, blocks, batch, device, home=home, routers=routers, narrow=narrow(model))


def empty(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    blocks: str | None = None,
    compute: str | None = None,
) -> tuple[Any, Any]:
    """The model without its weights, and its tokenizer: admitted from a folder; of a hub model, and of a folder without
    any weights, made of config.json alone, without a tokenizer.
    """
    folder = located(path)
    if folder is not None and stored.filled(folder):
        return admit(path, folder, dtype, trust_remote_code, blocks, compute)[:2]
    model = skeleton(path, revision, dtype, trust_remote_code, compute=compute)
    refuse_encoder(path, model, blocks)
    return model, None


def unread(model: Mapping[str, Any]) -> Network:
    """The model of these settings of conf/model, without its weights; with its tokenizer where a folder has both."""
    options = (model[name] for name in ("path", "revision", "dtype", "trust_remote_code", "blocks"))
    made, words = empty(*options, model.get("compute"))
    return Network(made, words, model["blocks"], routers=model["routers"], narrow=narrow(made))


def admit(
    path: str, folder: Path, dtype: str | None, trust_remote_code: bool, blocks: str | None, compute: str | None
) -> tuple[Any, Any, Shards | None]:
    """The model without its weights in the `folder` that model.path=`path` means, its tokenizer, and its files as home.

    The tokenizer is None where the folder has none; the home is None for a checkpoint that only transformers can read:
    fused on loading, or of mixed precision. ValueError or OSError in one line if it is not whole.
    """
    tensors = stored.sound(path, folder)
    model = skeleton(str(folder), None, dtype, trust_remote_code, tensors, compute)
    with explained(path):
        home = match(model, folder, tensors)
        wrong = [] if home else judged(folder, tensors, trust_remote_code)[1]
    if wrong:
        kind = type(model).__name__
        raise ValueError(f"model.path={path}: {'; '.join(wrong)}; give a checkpoint of this {kind} itself")
    refuse_encoder(path, model, blocks)
    if old := [name for name, tensor in tensors.items() if tensor.obsolete]:
        note(f"{folder}: {len(old)} tables and masks of an older transformers are not read ({stored.some(old)})")
    words: Any = None
    if not feeder_of(model).causal:
        words = reader(path, folder, model.config)
    elif (words := tokenizer(path, folder, trust_remote_code)) is not None:
        refuse_foreign(path, words.get_vocab().values(), model.get_input_embeddings().weight.shape[0])
    if home is None or model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict:
        return model, words, None
    home.settle(model)
    return model, words, home


def refuse_foreign(path: str, ids: Iterable[int], rows: int) -> None:
    """ValueError for a tokenizer with many ids beyond the `rows` of the embedding; a line for one with a few."""
    beyond = [number for number in ids if number >= rows]
    line = f"model.path={path}: {len(beyond)} of the tokenizer's ids, up to {max(beyond, default=0)}, are beyond the"
    if len(beyond) > max(FEW, rows // 100):
        raise ValueError(f"{line} {rows} that the model embeds; use the tokenizer this model was trained with")
    if beyond:
        note(f"{line} {rows} that the model embeds; a text with one of them will be refused")


def refuse_encoder(path: str, model: Any, blocks: str | None) -> None:
    """ValueError for a causal LM whose tokens see later ones: what it says of the next token is no prediction."""
    if feeder_of(model).causal and not causal(model, blocks):
        raise ValueError(
            f"model.path={path}: {type(model).__name__} shows every token the later ones, as encoders do, and so has no"
            " perplexity; give a decoder"
        )


def causal(model: Any, blocks: str | None) -> bool:
    """Whether a later token leaves what the first block tells earlier ones as it is: on made-up numbers in place of the
    weights, so that none is read.

    True, too, where the model cannot be run so: then it is not known before a walk looks at every block (prune.own).
    """
    state = first_state(model, blocks, torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]]))
    if state is None:
        return True
    one, other = state[:, :-1].split(1)
    return not depends(one, other)


def sample_shape(model: Any, blocks: str | None, samples: Samples | None = None) -> tuple[int, int]:
    """Tokens of one of these samples, or of a blank one, and numbers of a token's hidden state, of all streams where a
    model has several; its config's where it cannot run.
    """
    feeder = feeder_of(model)
    one = feeder.blank(1, FEW_TOKENS) if samples is None else samples[:1]
    state = first_state(model, blocks, one)
    return (FEW_TOKENS, feeder.config.hidden_size) if state is None else (state.shape[1], state[0, 0].numel())


def first_state(model: Any, blocks: str | None, samples: Samples) -> Tensor | None:
    """What the first block answers to these samples on made-up weights, as [n, t, ...]; None where it cannot."""
    states: list[Tensor] = []

    def stop(_: nn.Module, args: Any, output: Any) -> None:
        states.append(first_of(output))
        raise Reached

    network = Network(model, None, blocks, home=MadeUp())
    handle = network.blocks[0].register_forward_hook(stop)
    try:
        with torch.no_grad(), network.at(0), network.outside(), suppress(Exception):
            network.feeder.body(**network.feeder.keywords(samples, network.device))
    finally:
        handle.remove()
    axis = network.feeder.axis(states[0].shape, samples) if states else None
    return None if axis is None else leading(states[0], axis)


class MadeUp:
    """The home of a model on the meta device whose parameters are not read: other numbers stand in for them."""

    forgets: ClassVar[bool] = True

    def __init__(self) -> None:
        self.bare: dict[str, nn.Parameter] = {}

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None:
        """Parameters are made up; buffers are there."""
        for slot in tensors:
            there = slot.tensor
            if isinstance(there, nn.Parameter) and there.is_meta:
                self.bare[slot.name] = there
                numbers = made_up(there.shape).to(device)
                slot.owner._parameters[slot.short] = nn.Parameter(numbers, requires_grad=False)

    def leave(self, tensors: Iterable[Slot]) -> None:
        """The model is as it was."""
        for slot in tensors:
            if slot.name in self.bare:
                slot.owner._parameters[slot.short] = self.bare.pop(slot.name)


def made_up(shape: torch.Size) -> Tensor:
    """Numbers in float32, near 1 on one axis and with a mean of 0 on several; a matrix takes the memory of its rows."""
    generator = torch.Generator().manual_seed(0)
    strides = STRIDES[len(STRIDES) - len(shape) :]
    size = 1 + sum((width - 1) * stride for width, stride in zip(shape, strides, strict=True))
    numbers = torch.randn(size, generator=generator)
    if len(shape) < 2:
        return 1 + 0.1 * numbers.view(shape)
    return (numbers / shape[-1] ** 0.5).as_strided(shape, strides)
