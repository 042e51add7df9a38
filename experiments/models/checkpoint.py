"""A checkpoint as the home of a model, whose tensors are read when they are needed, and dropped; and a pruned model as
a checkpoint: dense safetensors, zeros +0.0, and every other file of the model's folder as it was.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.files.disk import write_json
from experiments.models.location import CERTIFICATE, companions, hashes
from experiments.models.skeleton import becomes, kept
from experiments.models.stored import INDEX, Stored, configuration, opened, read
from prune.decoder import Decoder
from prune.home import Host, Slot, slots
from prune.progress import passing

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Shards:
    """Reads a model's parameters from these files, in the dtype the model has on the meta device; its buffers stay.

    `kept`: the narrower dtype that they are rounded to on the way, if there is one (see `skeleton.kept`).

    `names`: the model's name of each tensor -> the name in the files, which differs where weights are tied. `beside`:
    what the files hold for others, as the vision tower that no causal language model has.
    """

    folder: Path
    tensors: dict[str, Stored]
    names: dict[str, str]
    beside: list[Stored]
    kept: torch.dtype | None = None
    forgets: ClassVar[bool] = True

    def bring(self, tensors: Iterable[Slot], device: torch.device) -> None:
        """Parameters are read, once for all that are tied; buffers move."""
        brought: dict[str, nn.Parameter] = {}
        for slot in tensors:
            there = slot.tensor
            if not isinstance(there, nn.Parameter):
                there.data = there.data.to(device)
            elif there.is_meta:
                name = self.names[slot.name]
                if name not in brought:
                    brought[name] = nn.Parameter(self.read(name, there.dtype, device), requires_grad=False)
                slot.owner._parameters[slot.short] = brought[name]

    def leave(self, tensors: Iterable[Slot]) -> None:
        """Parameters are dropped, with what was written into them; buffers move back."""
        dropped: dict[int, nn.Parameter] = {}
        for slot in tensors:
            there = slot.tensor
            if isinstance(there, nn.Parameter):
                bare = dropped.setdefault(id(there), nn.Parameter(there.to("meta"), requires_grad=False))
                slot.owner._parameters[slot.short] = bare
            else:
                there.data = there.data.cpu()

    def settle(self, model: nn.Module) -> None:
        """Reads the buffers that the checkpoint holds; they stay in memory from now on."""
        for slot in slots(model):
            if slot.short in slot.owner._buffers and slot.name in self.names:
                slot.tensor.copy_(self.read(self.names[slot.name], slot.tensor.dtype, slot.tensor.device))

    def read(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """One tensor, copied out of its file."""
        with opened(self.tensors[name].file) as source:
            tensor = source.get_tensor(name)
            return (tensor if self.kept is None else tensor.to(self.kept)).to(device, dtype, copy=True)


class Memory(Host):
    """The memory of the host, for a model that transformers read whole from this folder, in these dtypes."""

    def __init__(self, folder: Path, dtypes: dict[str, torch.dtype]) -> None:
        super().__init__(torch.device("cpu"))
        self.folder, self.dtypes = folder, dtypes


def match(model: nn.Module, folder: Path, tensors: dict[str, Stored]) -> Shards | None:
    """The folder's tensors as this model's home; None where they are not its parameters one by one: fused, or wrong."""
    state = model.state_dict(keep_vars=True)
    places = {key: name for name, (key, rule) in becomes(model, tensors).items() if rule is None}
    stored: dict[int, str] = {}  # by the tensor, which has several keys where it is tied
    for key, tensor in state.items():
        if key in places:
            stored.setdefault(id(tensor), places[key])
    names = {key: stored[id(tensor)] for key, tensor in state.items() if id(tensor) in stored}
    if names.keys() != state.keys():
        return None
    for key, tensor in state.items():
        source = tensors[names[key]]
        if source.shape != tuple(tensor.shape) or (source.whole and tensor.is_floating_point()):
            return None
    own = {places[key] for key in state if key in places}
    beside = [tensor for name, tensor in tensors.items() if name not in own and not tensor.obsolete]
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    if all(any(re.search(pattern, tensor.name) for pattern in ignored) for tensor in beside):
        return Shards(folder, tensors, names, beside, kept(model))
    return None


def save(decoder: Decoder, folder: Path) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(decoder.home, Shards):
        write(decoder, decoder.home, temporary)
    else:
        write_whole(decoder.model, decoder.home.dtypes, temporary)
    accompany(decoder.home.folder, temporary, decoder.model)
    write_json(temporary / CERTIFICATE, {"sha256_by_file": hashes(temporary)})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def write_whole(model: Any, dtypes: dict[str, torch.dtype], folder: Path) -> None:
    """A model in host memory, in these dtypes, without its generation settings, which transformers may read and yet
    refuse to write.
    """
    own = getattr(model, "generation_config", None)
    model.generation_config = type(own)()
    try:
        model.save_pretrained(folder, state_dict=_narrowed(model.state_dict(), dtypes))
    finally:
        model.generation_config = own
    (folder / GENERATION).unlink(missing_ok=True)  # that of the model is copied


def _narrowed(state: dict[str, Tensor], dtypes: dict[str, torch.dtype]) -> dict[str, Tensor]:
    """Tensors in these dtypes; those that are one, as tied ones are, stay one."""
    made: dict[tuple[int, torch.Size], Tensor] = {}
    for name, tensor in state.items():
        made.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(dtypes[name]))
    return {name: made[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}


def accompany(source: Path, folder: Path, model: Any) -> None:
    """Puts what else lies in the model's folder `source` beside the new weights: settings, tokenizer, processor, code.

    config.json is as it was, but for the dtype; where transformers made a model of a part of it, it is that part's.
    """
    for file in companions(source):
        (folder / file.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copy(file, folder / file.relative_to(source))
    config = configuration(source)
    written = configuration(folder) if (folder / "config.json").is_file() else config
    if written.get("model_type") != config.get("model_type"):
        return
    kind = str(kept(model) or model.config.dtype).removeprefix("torch.")
    config.pop("transformers_weights", None)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and {"dtype", "torch_dtype"} & part.keys():
            part.pop("torch_dtype", None)
            part["dtype"] = kind
    write_json(folder / "config.json", {"dtype": kind} | config)


def write(decoder: Decoder, home: Shards, folder: Path) -> None:
    """What the files hold in a new folder, under the same names: a file for each block, one for the rest of the model,
    and one for each file that holds more than the model. One of them is in memory at a time.
    """
    folder.mkdir(parents=True)
    count, held = len(decoder.blocks) + 1 + len({tensor.file for tensor in home.beside}), dict[str, str]()
    for number, part in enumerate(passing(_parts(decoder, home), "", count, "file"), 1):
        tensors = {name: tensor for name, tensor in part.items() if name not in held}  # blocks may share some
        file = f"model-{number:05}-of-{count:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        held |= dict.fromkeys(tensors, file)
    size = sum((folder / file).stat().st_size for file in set(held.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": held})


def _parts(decoder: Decoder, home: Shards) -> Iterator[dict[str, Tensor]]:
    """What goes into one file each."""
    for number in range(len(decoder.blocks) + 1):
        inside = number < len(decoder.blocks)
        with decoder.at(number) if inside else decoder.outside():
            path = f"{decoder.path}.{number}"
            own = slots(decoder.blocks[number], path) if inside else slots(decoder.model, but=decoder.blocks)
            there = {home.names[slot.name]: slot.tensor for slot in own if slot.name in home.names}
            yield {name: t.to("cpu", home.kept or t.dtype).contiguous() for name, t in there.items()}
    for _, members in groupby(read(home.beside), lambda pair: pair[0].file):
        yield {stored.name: tensor for stored, tensor in members}
