"""A pruned model as a checkpoint: safetensors, zeros +0.0, and every other file of the model's folder as it was.

Loading needs nothing of this: how a model is saved decides no number.
"""

import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments.files.disk import write_json
from experiments.models.checkpoint import Shards
from experiments.models.location import CERTIFICATE, companions, hashes
from experiments.models.packing import pack
from experiments.models.skeleton import narrow
from experiments.models.stored import INDEX, configuration, read
from prune.home import slots
from prune.network import Network
from prune.progress import passing
from prune.prune import Store

GENERATION = "generation_config.json"


def save(network: Network, folder: Path, solved: Store | None = None) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it.

    solved: where the grids of its matrices are, which are then saved as codes (`packing`).
    """
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(network.home, Shards):
        write(network, network.home, temporary)
    else:
        write_whole(network.model, network.home.dtypes, temporary)
    accompany(network.home.folder, temporary, network.model)
    if solved is not None:
        pack(network, temporary, solved)
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
    kind = str(narrow(model) or model.config.dtype).removeprefix("torch.")
    config.pop("transformers_weights", None)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and {"dtype", "torch_dtype"} & part.keys():
            part.pop("torch_dtype", None)
            part["dtype"] = kind
    write_json(folder / "config.json", {"dtype": kind} | config)


def write(network: Network, home: Shards, folder: Path) -> None:
    """What the files hold in a new folder, under the same names: a file for each block, one for the rest of the model,
    and one for each file that holds more than the model. One of them is in memory at a time.
    """
    folder.mkdir(parents=True)
    count, held = len(network.blocks) + 1 + len({tensor.file for tensor in home.beside}), dict[str, str]()
    for number, part in enumerate(passing(_parts(network, home), "", count, "file"), 1):
        tensors = {name: tensor for name, tensor in part.items() if name not in held}  # blocks may share some
        file = f"model-{number:05}-of-{count:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        held |= dict.fromkeys(tensors, file)
    size = sum((folder / file).stat().st_size for file in set(held.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": held})


def _parts(network: Network, home: Shards) -> Iterator[dict[str, Tensor]]:
    """What goes into one file each."""
    for number in range(len(network.blocks) + 1):
        inside = number < len(network.blocks)
        with network.at(number) if inside else network.outside():
            path = f"{network.path}.{number}"
            own = slots(network.blocks[number], path) if inside else slots(network.model, but=network.blocks)
            there = {home.names[slot.name]: slot.tensor for slot in own if slot.name in home.names}
            yield {name: t.to("cpu", home.narrow or t.dtype).contiguous() for name, t in there.items()}
    for _, members in groupby(read(home.beside), lambda pair: pair[0].file):
        yield {stored.name: tensor for stored, tensor in members}
