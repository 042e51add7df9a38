"""The papers' own released code, on real models with its own tokens: our perplexity is the same, at the exact budget.

../shared/parity has the numbers. Released magnitude and SparseGPT prune slightly more than asked (up to 0.018 % of the
weights on the smallest model), and there a fraction of a percent of sparsity moves the perplexity by more than 1 %: in
those cells ours must not be higher.
"""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune.allocators.uniform import Uniform
from prune.decoder import Decoder
from prune.method import Method
from prune.patterns.n_m import NM
from prune.prune import prune
from tests import tiny

METHODS = {"magnitude": tiny.magnitude, "wanda": tiny.wanda, "sparsegpt": tiny.sparsegpt}
CASES = [("0.5", 0.5, ""), ("0.75", 0.75, ""), ("2:4", 0.5, "2:4")]


def method_of(name: str, sparsity: float, nm: str) -> Method:
    made = METHODS[name](sparsity)
    return Method(NM(2, 4), made.metric, Uniform(sparsity), made.update) if nm else made


def cells():
    for model in ("stories-260k", "babyllama-1m", "wiki-llama-3m"):
        for case in CASES:
            for method in METHODS:
                slow = model == "wiki-llama-3m" and (case[0] == "0.75" or method == "magnitude")
                yield pytest.param(model, case, method, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(scope="module")
def files(request):
    loaded = {}

    def get(shared, model, part):
        key = (model, part)
        if key not in loaded:
            loaded[key] = load_file(shared / "parity" / f"{model}-{part}.safetensors")["tokens"]
        return loaded[key]

    return get


@pytest.mark.parametrize(("model", "case", "method"), cells())
def test_perplexity_is_that_of_the_released_code(shared, files, model, case, method):
    _, sparsity, nm = case
    rows = json.loads((shared / "parity" / "reference.json").read_text())[model]["rows"]
    released = next(r for r in rows if (r["method"], r["target"], r["nm"]) == (method, sparsity, nm))
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
    subject = Decoder(net, batch=16)
    kept = total = 0
    for solved in prune(subject, files(shared, model, "calib"), method_of(method, sparsity, nm)):
        kept += sum(int(p.mask.sum()) for p in solved.linears.values())
        total += sum(p.mask.numel() for p in solved.linears.values())
    assert total - kept == round(sparsity * total)
    ours = math.exp(subject.losses(files(shared, model, "eval")).double().mean())
    low = 0.99 if released["sparsity"] <= sparsity + 1e-4 else 0.9
    assert low * released["ppl"] <= ours <= 1.01 * released["ppl"]


@pytest.mark.parametrize("model", ["stories-260k", "babyllama-1m", "wiki-llama-3m"])
def test_the_dense_perplexity_is_the_papers_protocol(shared, files, model):
    dense = json.loads((shared / "parity" / "reference.json").read_text())[model]["dense"]
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
    ours = math.exp(Decoder(net, batch=16).losses(files(shared, model, "eval")).double().mean())
    assert ours == pytest.approx(dense, abs=1e-4 * dense)
