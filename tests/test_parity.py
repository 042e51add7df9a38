"""The papers' own released code, on real models with its own tokens (numbers in ../shared/parity).

Released magnitude and SparseGPT drop one weight more than floor(k s) per group, up to 0.018 % of a model. With that
count imitated our perplexity is theirs. At the exact count it is theirs within 1 %, but where one weight per group
moves it more: then it may be lower, or, as pruning on changed weights is chaotic, up to 2 % higher.
"""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune.metrics.obs import OBS
from prune.network import Network
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.updates.sparsegpt import SparseGPT
from tests import tiny
from tests.test_updates import linear

METHODS = {"magnitude": tiny.magnitude, "wanda": tiny.wanda, "sparsegpt": tiny.sparsegpt}
CASES = {"0.5": (0.5, ""), "0.75": (0.75, ""), "2:4": (0.5, "2:4")}
QUICK = [("0.5", "magnitude"), ("0.5", "wanda"), ("0.5", "sparsegpt"), ("2:4", "sparsegpt")]
MODELS = ["stories-260k", *(pytest.param(name, marks=pytest.mark.slow) for name in ("babyllama-1m", "wiki-llama-3m"))]


@dataclass(frozen=True)
class Released(Unstructured):
    """The released count: everything up to the score at place floor(k s) goes, that one included."""

    def select(self, scores, sparsity):
        return scores > scores.flatten().sort().values[int(scores.numel() * sparsity.item() + 1e-9)]


def released_sparsegpt(weight, sequences, sparsity, nm):
    """Mask and weights by the released algorithm, column by column, after sequences of [tokens, i]; nm: at 2:4."""
    hessian, weight, width = torch.zeros(weight.shape[1], weight.shape[1]), weight.clone(), 4 if nm else 128
    for n, x in enumerate(sequences, 1):
        hessian = (n - 1) / n * hessian + (math.sqrt(2 / n) * x).T @ (math.sqrt(2 / n) * x)
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for j in range(weight.shape[1]):
        if j % width == 0:
            scores = (weight[:, j : j + width] / factor.diagonal()[j : j + width]).square()
            flat = scores.flatten().sort().values
            lowest = scores.topk(2, largest=False).values[:, -1:] if nm else flat[int(len(flat) * sparsity)]
            gone[:, j : j + width] = scores <= lowest
        error = torch.where(gone[:, j], weight[:, j], 0.0) / factor[j, j]
        weight[:, j:] -= torch.outer(error, factor[j, j:])
    return ~gone, weight.masked_fill(gone, 0.0)


@pytest.mark.parametrize("case", CASES)
def test_a_linear_is_pruned_as_the_released_algorithm_prunes_it(case):
    """With its running mean of the Hessian, its three factorisations and its count, on weights of few values."""
    (sparsity, nm), width = CASES[case], 144
    weight = (4 * tiny.random(24, width)).round() / 4 + 0.05
    x = tiny.random(4, 100, width, seed=1) @ tiny.random(width, width, seed=2)
    mask, expected = released_sparsegpt(weight, x, sparsity, nm)
    pattern = NM(2, 4) if nm else Released("matrix")
    found = SparseGPT().linear(linear(weight, x.flatten(0, 1), OBS(), pattern, sparsity))
    assert torch.equal(found.mask, mask)
    torch.testing.assert_close(found.weight, expected, rtol=1e-3, atol=1e-4)


def cells():
    for model in ("stories-260k", "babyllama-1m", "wiki-llama-3m"):
        for case in CASES:
            for method in METHODS:
                quick = model == "stories-260k" and (case, method) in QUICK
                yield pytest.param(model, case, method, marks=[] if quick else [pytest.mark.slow])


@pytest.fixture(scope="module")
def files():
    loaded = {}

    def get(shared, model, part):
        key = (model, part)
        if key not in loaded:
            loaded[key] = load_file(shared / "parity" / f"{model}-{part}.safetensors")["tokens"]
        return loaded[key]

    return get


def found(shared, files, model, method):
    """Perplexity and realised sparsity after pruning this model with this method."""
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
    subject = Network(net, batch=16)
    masks = [p.mask for s in prune(subject, files(shared, model, "calib"), method) for p in s.linears.values()]
    share = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    return math.exp(subject.losses(files(shared, model, "eval")).double().mean()), share


def released(shared, model, case, method):
    sparsity, nm = CASES[case]
    rows = json.loads((shared / "parity" / "reference.json").read_text())[model]["rows"]
    return next(r for r in rows if (r["method"], r["target"], r["nm"]) == (method, sparsity, nm))


@pytest.mark.parametrize(("model", "case", "method"), list(cells()))
def test_perplexity_at_the_exact_count_is_near_that_of_the_released_code(shared, files, model, case, method):
    sparsity, nm = CASES[case]
    made, theirs = METHODS[method](sparsity), released(shared, model, case, method)
    perplexity, share = found(shared, files, model, replace(made, pattern=NM(2, 4)) if nm else made)
    assert share == pytest.approx(sparsity, abs=1e-9)
    low, high = (0.99, 1.01) if theirs["sparsity"] == sparsity else (0.95, 1.02)
    low, high = (0.9999, 1.0001) if method == "wanda" else (low, high)
    assert low * theirs["ppl"] <= perplexity <= high * theirs["ppl"]


@pytest.mark.parametrize(
    ("model", "case", "method"), [c for c in cells() if c.values[1] != "2:4" and "wanda" not in c.values]
)
def test_with_the_released_count_the_perplexity_is_theirs(shared, files, model, case, method):
    theirs = released(shared, model, case, method)
    perplexity, share = found(
        shared, files, model, replace(METHODS[method](CASES[case][0]), pattern=Released("matrix"))
    )
    assert share == pytest.approx(theirs["sparsity"], abs=1e-6)
    noise = 0.01 if (model, method) == ("babyllama-1m", "sparsegpt") else 1e-4  # its Hessians are nearly singular
    assert perplexity == pytest.approx(theirs["ppl"], rel=noise)


@pytest.mark.parametrize("model", MODELS)
def test_the_dense_perplexity_is_the_papers_protocol(shared, files, model):
    dense = json.loads((shared / "parity" / "reference.json").read_text())[model]["dense"]
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / model, dtype=torch.float32)
    ours = math.exp(Network(net, batch=16).losses(files(shared, model, "eval")).double().mean())
    assert ours == pytest.approx(dense, abs=1e-4 * dense)
