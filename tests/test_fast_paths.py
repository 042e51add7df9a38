"""Every fast path finds what the plain one does: column by column, with triangular solves, by sorting."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prune import lowest as lowest_module
from prune.glance import finite, nonzeros
from prune.lowest import lowest
from prune.method import Linear
from prune.metrics.obs import OBS
from prune.metrics.ria import RIA
from prune.metrics.wanda import Wanda
from prune.network import Network
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.precision import as_fine_as
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Gram, InverseFactor, Squares, invert_
from prune.updates.admm import ADMM
from prune.updates.sparsegpt import SparseGPT
from tests.tiny import random

PATTERNS = [Unstructured("matrix"), Unstructured("row"), NM(2, 4), NM(4, 8)]


def linear(weight, values, tokens, pattern, metric) -> Linear:
    """A linear with these statistics, to be pruned by half."""
    half = torch.tensor([0.5], dtype=torch.float64)
    return Linear("layer", weight, Stats("layer", lambda: Gathered(values, tokens)), metric, pattern, half)


@pytest.fixture(scope="module")
def matrices(shared):
    """Weights with their statistics: random ones, and those of a block of a real model on its own tokens."""
    x = random(900, 304, seed=1) @ random(304, 304, seed=2) + 1
    found = [(random(70, 304), {Gram(): Gram().of(x), Squares(): Squares().of(x)}, 900)]
    net = AutoModelForCausalLM.from_pretrained(shared / "data" / "models" / "wiki-llama-3m", dtype=torch.float32)
    data = load_file(shared / "parity" / "wiki-llama-3m-calib.safetensors")["tokens"][:16]
    block = next(Network(net, batch=8).walk(data))
    for name, one in block.collect([Gram(), Squares()], ["self_attn.q_proj", "mlp.down_proj"]).items():
        found.append((block.weights[name], one.values, one.tokens))
    return found


def column_by_column(subject: Linear, size: int = 128):
    """SparseGPT as it is written: the error of each column goes to all columns behind it in its block at once."""
    upper = subject.stats[InverseFactor(0.01)].upper
    weight, mask = subject.weight.clone(), torch.ones_like(subject.weight, dtype=torch.bool)
    ahead = subject.pattern.width if subject.pattern.width > 1 else size
    for start in range(0, weight.shape[1], size):
        stop = min(start + size, weight.shape[1])
        errors = torch.zeros_like(weight[:, start:stop])
        for j in range(start, stop):
            if (j - start) % ahead == 0:
                columns = slice(j, min(j + ahead, stop))
                mask[:, columns] = subject.select(weight, columns)
            errors[:, j - start] = weight[:, j].masked_fill(mask[:, j], 0.0) / upper[j, j]
            weight[:, j + 1 : stop] -= errors[:, j - start, None] * upper[j, j + 1 : stop]
        weight[:, stop:] -= errors @ upper[start:stop, stop:]
    return weight.masked_fill(~mask, 0.0), mask


def by_solves(subject: Linear, iterations: int = 20, selections: int = 15):
    """ADMM with two triangular solves in each iteration."""
    gram = subject.stats[Gram()]
    squares = gram.diagonal()
    factor = torch.linalg.cholesky(gram + torch.diag(1.1 * squares))
    weight, dual = subject.weight, torch.zeros_like(subject.weight)
    for step in range(iterations):
        total = weight + dual
        if step < selections:
            fraction = ADMM().fraction(step) if subject.pattern.fixed else 1.0
            mask = subject.select(total, fraction=fraction)
        dual = total.masked_fill(mask, 0.0)
        change = torch.where(mask, total, -total) - subject.weight
        weight = subject.weight + torch.cholesky_solve((change * squares).T, factor).T
    return weight.masked_fill(~mask, 0.0), mask


def same(found, plain):
    """Identical masks; weights to 1e-5 of the largest."""
    weight, mask = plain
    assert torch.equal(found.mask, mask) and found.weight.is_contiguous() and found.mask.is_contiguous()
    torch.testing.assert_close(found.weight, weight, rtol=1e-5, atol=1e-5 * weight.abs().max().item())


@pytest.mark.parametrize("metric", [OBS(), RIA()])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_sparsegpt_in_steps_of_columns_is_sparsegpt_column_by_column(matrices, pattern, metric):
    for one in matrices:
        subject = linear(*one, pattern, metric)
        before = subject.weight.clone()
        same(SparseGPT().linear(subject), column_by_column(subject))
        assert torch.equal(subject.weight, before)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_admm_with_one_inverse_is_admm_with_two_solves(matrices, pattern):
    for one in matrices:
        subject = linear(*one, pattern, Wanda())
        before = subject.weight.clone()
        same(ADMM().linear(subject), by_solves(subject))
        assert torch.equal(subject.weight, before)


@pytest.mark.parametrize("width", [1, 100, 128, 300, 2100])
def test_half_of_a_gram_matrix_is_multiplied_and_all_of_it_found(width):
    x, more = random(40, width), random(30, width, seed=1)
    total = Gram().of(x)
    torch.testing.assert_close(total, x.T @ x, rtol=1e-5, atol=1e-4)
    assert Gram().add(total, more) is total and torch.equal(total, total.T)
    torch.testing.assert_close(total, x.T @ x + more.T @ more, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("width", [1, 100, 128, 300, 2100])
def test_a_triangular_inverse_half_by_half_is_one_solve_for_the_identity(width):
    lower = (random(width, width) / width**0.5).tril(-1) + torch.diag(1 + random(width, seed=1).abs())
    plain = torch.linalg.solve_triangular(lower, torch.eye(width), upper=False)
    found = invert_(lower)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())
    assert torch.equal(found, found.tril())


CASES = {
    "random": random(5000),
    "few values": (random(5000) * 2).round(),
    "equal": torch.ones(5000),
    "sorted": torch.arange(5000.0),
    "as the sample is spaced": torch.arange(5000.0) % 9,
    "infinite": random(5000).masked_fill(random(5000, seed=1) > 0, torch.inf),
}


@pytest.mark.parametrize("place", [0, 1, 7, 2500, 4999, 5000])
@pytest.mark.parametrize("case", CASES)
def test_a_sample_that_says_where_the_threshold_lies_changes_nothing(monkeypatch, case, place):
    scores = torch.stack([CASES[case], CASES[case].flip(0)])
    counts = torch.tensor([place, 5000 - place])
    plain = lowest(scores, counts)
    monkeypatch.setattr(lowest_module, "LARGE", 1)
    assert torch.equal(lowest(scores, counts), plain)


def test_a_sample_that_misleads_costs_time_alone(monkeypatch):
    scores = torch.ones(1, 5000)
    scores[0, :: 70 // 8 | 1] = -1.0  # all that is sampled lies below
    plain = lowest(scores, torch.tensor([2500]))
    monkeypatch.setattr(lowest_module, "LARGE", 1)
    assert torch.equal(lowest(scores, torch.tensor([2500])), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gram_matrix_of_half_precision_inputs_is_that_of_the_same_numbers_in_float32(dtype):
    x = random(200, 300).to(dtype)
    assert torch.equal(Gram().of(x), Gram().of(x.float())) and Gram().of(x).dtype == torch.float32


def test_products_on_a_cpu_stay_exact_whatever_the_model():
    before = torch.get_float32_matmul_precision()
    with as_fine_as([torch.zeros(2, dtype=torch.bfloat16)], torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 7, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_glance_finds_any_value_that_is_not_finite(dtype, place, bad):
    values = random(5, 40).to(dtype)
    assert finite(values) and finite(values[:0])
    values.view(-1)[place] = bad
    assert not finite(values)
    assert nonzeros(torch.tensor([0.0, -0.0, 1e-45, -2.0])) == 2 == nonzeros(torch.tensor([True, False, True]))


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_ties_in_some_groups_go_from_the_left_and_others_are_left_alone(values):
    scores = torch.randint(values, (40, 300), generator=torch.Generator().manual_seed(values)).float()
    scores[::3] = random(14, 300)  # without a tie
    counts = torch.arange(40) * 300 // 39
    order = scores.sort(dim=1, stable=True).indices
    due = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, torch.arange(300) < counts[:, None])
    assert torch.equal(lowest(scores, counts), due)
