"""Tiny quantised models, solved into a store of blocks, saved and certified."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from experiments.models import packing, saving
from experiments.models.certificate import certify
from experiments.models.load import load
from experiments.runs.stores import BlockStore
from prune.prune import prune
from prune.quantizers.minmax import MinMax
from tests.tiny import network, sparsegpt, tokens

needed = pytest.mark.skipif(not packing.installed(), reason="compressed-tensors is not installed")


def quantised(bits=4, group=None, symmetric=True, sparsity=0.5):
    return replace(sparsegpt(sparsity), quantizer=MinMax(bits=bits, group=group, symmetric=symmetric))


def stored(folder, family="llama", dtype=torch.float32):
    """A tiny random model in a folder."""
    network(family).model.to(dtype).save_pretrained(folder)
    return folder


def opened(folder, compute=None):
    return load(str(folder), None, None, False, None, 4, "cpu", compute=compute)


def solve(folder, store, method=None, blocks=None):
    """The model with its first `blocks` pruned, and what became of them."""
    model = opened(folder)
    return model, list(islice(prune(model, tokens(), method or quantised(), done=store), blocks))


CERTIFIED = {"method": "joint", "pattern": "unstructured", "sparsity": 0.5}
MODEL = {"blocks": None, "trust_remote_code": False}


def vouched(tmp_path, kind, quantizer=True, method=None):
    """The folder of a certified model of a run, and its store."""
    store = BlockStore(tmp_path / "run")
    model, _ = solve(stored(tmp_path / "base"), store, method)
    saving.save(model, tmp_path / kind, store if kind == "packed" else None)
    config = {"model": MODEL, "quantizer": {"bits": 4, "group": None} if quantizer else {}}
    certify(tmp_path / kind, CERTIFIED | {"config": config}, {"metrics": {}})
    return tmp_path / kind, store
