"""BESA beside its own released code, on real models with its own tokens (numbers in ../shared/parity).

The released code misses its target of 0.5, so ours is asked for the sparsity that theirs realised, to the weight.
Learning is chaotic: with the calibration windows in another order the same recipe, theirs rebuilt or ours, gives a
perplexity that differs by 3 % or more on the two small models. Their one run is a draw of that, and so is ours.
"""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune.allocators.besa import BESA
from prune.method import Method
from prune.metrics.wanda import Wanda
from prune.network import Network
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.updates.zero import Zero

FIELDS = {"besa-row": {"per_row": True, "d_coef": 5.0}, "besa-layer": {"per_row": False, "d_coef": 50.0}}
STREAM = {"besa-row": "pruned", "besa-layer": "dense"}
CASES = [  # model, released method, how much worse ours may be
    ("stories-260k", "besa-row", 0.04),
    ("stories-260k", "besa-layer", 0.02),
    ("babyllama-1m", "besa-row", 0.02),
    ("babyllama-1m", "besa-layer", 0.04),
    ("wiki-llama-3m", "besa-row", 0.02),
    ("wiki-llama-3m", "besa-layer", 0.02),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name", "margin"), CASES)
def test_at_the_released_sparsity_the_perplexity_is_no_worse_and_far_below_wandas(shared, model, name, margin):
    tokens = {
        part: load_file(shared / "parity" / f"{model}-{part}.safetensors")["tokens"] for part in ("calib", "eval")
    }
    rows = json.loads((shared / "parity" / "reference.json").read_text())[model]["rows"]
    theirs, wanda = (next(r for r in rows if (r["method"], r["target"]) == (m, 0.5)) for m in (name, "wanda"))
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
    subject, allocator = Network(net, batch=16), BESA(theirs["sparsity"], reference=STREAM[name], **FIELDS[name])
    method = Method(Unstructured("row"), Wanda(), allocator, Zero())
    masks = [p.mask for s in prune(subject, tokens["calib"], method) for p in s.linears.values()]
    total = sum(mask.numel() for mask in masks)
    assert sum(int((~mask).sum()) for mask in masks) == round(theirs["sparsity"] * total)
    perplexity = math.exp(subject.losses(tokens["eval"]).double().mean())
    assert perplexity < min((1 + margin) * theirs["ppl"], wanda["ppl"])
