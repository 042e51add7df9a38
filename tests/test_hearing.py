"""Whatever way a block writes a product, what enters the matrix is heard; what is not heard is skipped by name."""

from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.functional import linear

from prune.network import Network
from prune.prune import prune
from prune.statistics.inputs import Gram, Squares
from tests.test_contracts import composed
from tests.tiny import Memory, network, sparsegpt, tokens, wanda

NAME = "mlp.down_proj"


class Way(nn.Module):
    """Llama's MLP, which applies its last weight in this way."""

    def __init__(self, mlp: nn.Module, way) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj, self.way = mlp.gate_proj, mlp.up_proj, mlp.down_proj, way

    def forward(self, x):
        return self.way(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x), self.down_proj.weight)


def tiny(way) -> Network:
    subject = network()
    for block in subject.blocks:
        block.mlp = Way(block.mlp, way)
    return Network(subject.model)


def by_rows(x, w):
    return torch.cat([linear(x, part) for part in w.chunk(4)], -1)


HEARD = {
    "linear": linear,
    "matmul": lambda x, w: x @ w.T,
    "weight on the left": lambda x, w: (w @ x.mT).mT,
    "einsum": lambda x, w: torch.einsum("bti,oi->bto", x, w),
    "einsum, weight first": lambda x, w: torch.einsum("oi,bti->bto", w, x),
    "addmm": lambda x, w: torch.addmm(torch.zeros(len(w)), x.flatten(0, 1), w.T).unflatten(0, x.shape[:2]),
    "addmm of the transposed": lambda x, w: torch.addmm(torch.zeros(1), w, x.flatten(0, 1).T).T.unflatten(
        0, x.shape[:2]
    ),
    "baddbmm": lambda x, w: torch.baddbmm(torch.zeros(1), x, w.T.expand(len(x), -1, -1)),
    "bmm": lambda x, w: torch.bmm(x, w.T.expand(len(x), -1, -1)),
    "token by token": lambda x, w: torch.stack([torch.stack([w @ one for one in row]) for row in x]),
    "rows in chunks": by_rows,
    "a view of a view": lambda x, w: linear(x, w.view(-1).view(4, -1, w.shape[1]).flatten(0, 1)),
    "another dtype": lambda x, w: linear(x.double(), w.double()).float(),
    "an input that does not lie in order": lambda x, w: linear(x.mT.contiguous().mT, w),
}


@pytest.mark.parametrize("way", HEARD)
def test_what_enters_a_matrix_is_heard_however_the_product_is_written(way):
    statistics, data = [Gram(), Squares()], tokens()
    plain, subject = next(network().walk(data)), next(tiny(HEARD[way]).walk(data))
    expected, found = (block.collect(statistics, [NAME])[NAME] for block in (plain, subject))
    assert found.tokens == expected.tokens == data.numel()
    for statistic in statistics:
        torch.testing.assert_close(found.values[statistic], expected.values[statistic], rtol=1e-5, atol=1e-6)
    assert not subject.unheard()


def to_groups(x, w):
    """The rows in two groups, each applied to another input."""
    return torch.cat([linear(x, w[:16]), linear(x.roll(1, -1), w[16:])], -1)


def in_columns(x, w):
    return linear(x[..., :32], w[:, :32]) + linear(x[..., 32:], w[:, 32:])


UNHEARD = {
    "in parts": (to_groups, "applied in parts to different inputs"),
    "in columns": (in_columns, "applied in parts to different inputs"),
    "not as a product": (lambda x, w: (x[..., None, :] * w).sum(-1), "not heard when its block ran"),
    "not at all": (lambda x, w: x[..., :32], "not heard when its block ran"),
}


@pytest.mark.parametrize(("method", "granularity"), [(wanda, "block"), (sparsegpt, "sequential")])
@pytest.mark.parametrize("case", UNHEARD)
def test_what_is_not_heard_is_skipped_by_name_and_the_rest_meets_the_budget(case, granularity, method):
    way, reason = UNHEARD[case]
    subject = tiny(way)
    before = {name: weight.clone() for name, weight in subject.weights().items()}
    lost = {name for name in before if name.endswith(NAME)}
    store, data = Memory(), tokens()
    solved = {n: p for s in prune(subject, data, method(0.6), granularity, done=store) for n, p in s.linears.items()}
    assert solved.keys() == before.keys() - lost == subject.weights().keys()
    assert {name: why.startswith(reason) for name, why in subject.skipped().items()} == dict.fromkeys(lost, True)
    assert all(torch.equal(subject.model.get_submodule(name).weight, before[name]) for name in lost)
    total = sum(p.mask.numel() for p in solved.values())
    assert sum(int((~p.mask).sum()) for p in solved.values()) == round(0.6 * total)
    again = tiny(way)
    list(prune(again, data, method(0.6), granularity, done=store))
    assert again.skipped().keys() == lost and again.weights().keys() == solved.keys(), "a resumed run knows them too"
    third = tiny(way)
    rest = {n: p for s in prune(third, data, method(0.6), granularity, given=store) for n, p in s.linears.items()}
    assert third.skipped().keys() == lost, "so does one that is given its masks"
    assert all(torch.equal(p.mask, rest.pop(name).mask) for name, p in solved.items()) and not rest


@pytest.mark.parametrize("allocator", ["owl", "alphapruning", "sensitivity"])
def test_an_uneven_allocator_meets_the_budget_of_what_is_heard_to_the_weight(allocator):
    """What cannot be heard is known block by block, after the whole model's sparsities were wanted."""
    method = replace(wanda(), allocator=instantiate(composed(f"allocator={allocator}", "sparsity=0.6").allocator))
    solved = [p for s in prune(tiny(to_groups), tokens(), method) for p in s.linears.values()]
    assert sum(int((~p.mask).sum()) for p in solved) == round(0.6 * sum(p.mask.numel() for p in solved))
    assert len({round(p.target, 3) for p in solved}) > 1


def test_a_module_that_no_token_reaches_is_pruned_by_magnitude_as_before():
    solved = {
        n: p
        for s in prune(network("mixtral", num_local_experts=16), tokens(1, 3), wanda())
        for n, p in s.linears.items()
    }
    unseen = [name for name, p in solved.items() if "unseen" in p.notes]
    assert 3 * 2 * (16 - 2 * 3) <= len(unseen) < len(solved)
    assert all(2 * int(solved[name].mask.sum()) == solved[name].mask.numel() for name in unseen)
