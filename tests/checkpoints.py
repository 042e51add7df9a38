"""Small checkpoints on disk, pruned and certified, and what spoils them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from experiments import verify
from experiments.models.certificate import certify
from tests.tiny import network

MANIFEST = {"method": "magnitude", "pattern": "2of4", "sparsity": 0.5}
MANIFEST |= {"config": {"model": {"blocks": None, "trust_remote_code": False}}}
Q, EMBED, HEAD = "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight"


def pruned(folder: Path) -> Path:
    """A random Llama in bfloat16, pruned to 2:4 and certified."""
    network().model.to(torch.bfloat16).save_pretrained(folder)
    edit(folder, lambda tensors: [halve(tensor) for name, tensor in tensors.items() if "_proj" in name])
    certify(folder, MANIFEST, {"metrics": {"ppl/text": 7.0}})
    return folder


def halve(weight):
    """Sets the two smallest of every four to +0.0."""
    groups = weight.view(-1, 4)
    groups[torch.arange(len(groups))[:, None], groups.float().abs().argsort(dim=1)[:, :2]] = 0.0


def edit(folder, change):
    """Rewrites the weights of a folder after `change(tensors)`."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def configure(folder, **changes):
    """Changes settings of a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def shard(folder, *groups):
    """Splits the one file of a folder: each group of names a shard, then the rest, and an index over them."""
    tensors = load_file(folder / "model.safetensors")
    rest = [name for name in tensors if not any(name in group for group in groups)]
    places = {}
    for number, names in enumerate([*groups, rest]):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors").unlink()
    write_index(folder, places)
    return places


def write_index(folder, places):
    """An index of shards: the file of each tensor."""
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def answer(folder, capsys, *options, code):
    """What the command prints, after its exit code is as expected and a refusal is one line."""
    assert verify.main([str(folder), *options]) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err and (told.err.count("\n") == 1 if code == 2 else not told.err)
    return told.err if code == 2 else told.out
