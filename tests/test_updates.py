"""Scores and updates against closed forms, brute force and identities."""

import pytest
import torch

from prune.method import Linear
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Gram, InverseFactor, Squares
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.tiny import network, random, sparsegpt, tokens, wanda


def linear(weight, x, metric, pattern, sparsity=0.5) -> Linear:
    """A linear on these inputs [tokens, i], which count as one sequence."""
    values = {Squares(): Squares().of(x), Gram(): Gram().of(x)}
    share = torch.tensor([sparsity], dtype=torch.float64)
    return Linear("layer", weight, Stats("layer", lambda: Gathered(values, len(x))), metric, pattern, share)


def damped(x, damping=0.01):
    gram = (x.T @ x).double()
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)


def brute_force(weight, hessian, sparsity, block):
    """Optimal brain surgery, column by column, with a fresh inverse of the remaining Hessian at every step."""
    weight, (rows, width) = weight.double().clone(), weight.shape
    mask = torch.ones_like(weight, dtype=torch.bool)
    for j in range(width):
        inverse = torch.linalg.inv(hessian[j:, j:])
        if j % block == 0:
            stop = min(j + block, width)
            costs = torch.stack(
                [weight[:, c] ** 2 / torch.linalg.inv(hessian[c:, c:])[0, 0] for c in range(j, stop)], 1
            )
            order = costs.flatten().argsort(stable=True)[: round(sparsity * costs.numel())]
            mask[:, j:stop] = mask[:, j:stop].flatten().index_fill(0, order, False).reshape(rows, -1)
        for row in range(rows):
            if not mask[row, j]:
                weight[row, j:] -= weight[row, j] / inverse[0, 0] * inverse[0]
    return weight * mask, mask


@pytest.mark.parametrize("block", [4, 8, 3])
def test_sparsegpt_is_brute_force_optimal_brain_surgery(block):
    weight, x = random(6, 8), random(50, 8, seed=1)
    expected, mask = brute_force(weight, damped(x), 0.5, block)
    found = SparseGPT(block_size=block).linear(linear(weight, x, OBS(), Unstructured("matrix")))
    assert torch.equal(found.mask, mask)
    torch.testing.assert_close(found.weight, expected.float(), rtol=1e-4, atol=1e-5)


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    x = random(40, 12)
    upper = InverseFactor(0.01).of(x.T @ x).upper
    torch.testing.assert_close((upper.T @ upper).double(), torch.linalg.inv(damped(x)), rtol=1e-3, atol=1e-6)
    assert torch.equal(upper, upper.triu())


def test_masks_and_weights_do_not_depend_on_the_scale_of_the_hessian():
    weight, x = random(6, 16), random(60, 16, seed=1)
    answers = [SparseGPT().linear(linear(weight, scale * x, OBS(), Unstructured("matrix"))) for scale in (1.0, 4.0)]
    assert torch.equal(answers[0].mask, answers[1].mask)
    torch.testing.assert_close(answers[0].weight, answers[1].weight)


@pytest.mark.parametrize("block", [1, 5, 16, 128])
def test_with_a_fixed_mask_the_block_size_does_not_matter(block):
    weight, x = random(6, 16), random(60, 16, seed=1)
    mask = random(6, 16, seed=2) > 0

    class Given(Unstructured):
        def select(self, scores, sparsity):
            start = next(c for c in range(16) if torch.equal(scores[:, 0], marks[:, c]))
            return mask[:, start : start + scores.shape[1]]

    class Marks(Wanda):
        def __call__(self, weight, stats, columns=slice(None)):
            return marks[:, columns]

    marks = random(6, 16, seed=3)
    found = [SparseGPT(block_size=size).linear(linear(weight, x, Marks(), Given())).weight for size in (block, 16)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_losses_are_ordered_exact_solve_then_sparsegpt_then_zeroing():
    weight, x = random(8, 32), random(200, 32, seed=1) @ random(32, 32, seed=2)
    found = SparseGPT(block_size=8).linear(linear(weight, x, OBS(), Unstructured("matrix")))
    hessian = damped(x)

    def loss(candidate):
        change = candidate.double() - weight.double()
        return torch.einsum("oi,ij,oj->", change, hessian, change).item()

    exact = torch.zeros(8, 32, dtype=torch.float64)
    for row, kept in enumerate(found.mask):
        exact[row, kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ weight[row].double())
    assert loss(exact) < loss(found.weight) < loss(weight * found.mask)


def test_with_independent_inputs_sparsegpt_moves_no_weight():
    x = torch.eye(16) * torch.arange(1, 17)
    weight = random(6, 16)
    found = SparseGPT().linear(linear(weight, x, OBS(), Unstructured("matrix")))
    scores = weight.abs() * (x.square().sum(0) + 0.01 * x.square().sum(0).mean()).sqrt()
    assert torch.equal(found.mask, Unstructured("matrix").select(scores, torch.tensor([0.5], dtype=torch.float64)))
    torch.testing.assert_close(found.weight, weight * found.mask)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8)])
@pytest.mark.parametrize("block", [3, 8, 128])
def test_sparsegpt_chooses_n_of_m_group_by_group(pattern, block):
    weight, x = random(6, 32), random(100, 32, seed=1)
    sparsity = 1 - pattern.n / pattern.m
    found = SparseGPT(block_size=block).linear(linear(weight, x, OBS(), pattern, sparsity))
    assert (found.mask.reshape(-1, pattern.m).sum(1) == pattern.n).all()
    assert (found.weight[~found.mask] == 0).all()


def test_wanda_masks_agree_with_a_loop_over_its_formula():
    subject, data = network("llama"), tokens()
    dense = {name: weight.clone() for name, weight in subject.weights().items()}
    name, inputs = "model.layers.0.mlp.down_proj", []
    hook = subject.blocks[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        subject.model(data, use_cache=False)
    hook.remove()
    x = torch.cat([part.reshape(-1, 64) for part in inputs])
    mask = next(prune(subject, data, wanda(0.375))).linears[name].mask
    for i, row in enumerate(dense[name]):
        scores = [abs(w.item()) * x[:, j].square().sum().sqrt().item() for j, w in enumerate(row)]
        dropped = sorted(range(64), key=lambda j: scores[j])[: round(0.375 * 64)]
        assert set((~mask[i]).nonzero().flatten().tolist()) == set(dropped)


def test_dead_features_go_first_and_are_counted_and_move_no_other_weight():
    x, weight = random(50, 16), random(4, 16)
    x[:, [2, 5, 11]] = 0
    for metric in (Wanda(), OBS()):
        subject = linear(weight, x, metric, Unstructured("row"), 0.25)
        answer = (Zero() if isinstance(metric, Wanda) else SparseGPT()).linear(subject)
        assert not answer.mask[:, [2, 5, 11]].any()
        assert subject.stats.notes()["dead_columns"] == 3
        assert (~answer.mask).sum() == 16
    alone = linear(weight, x, OBS(), Unstructured("row"), 1 / 16)  # only one of the dead columns fits the budget
    assert torch.equal(SparseGPT().linear(alone).weight[:, 3:], weight[:, 3:])


def test_a_hessian_that_cannot_be_factorised_is_damped_more_and_the_run_says_so():
    direction = random(1, 24)
    x = direction.repeat(5, 1) * 1e4  # rank one: the damping of 1e-9 drowns in float32
    subject = linear(random(4, 24), x, OBS(damping=1e-9), Unstructured("matrix"))
    answer = SparseGPT(damping=1e-9).linear(subject)
    assert answer.weight.isfinite().all()
    assert subject.stats.notes()["damping_raises"] >= 1


def test_a_hessian_beyond_repair_names_the_layer():
    subject = linear(random(4, 8), random(10, 8), OBS(), Unstructured("matrix"))
    subject.stats._gather().values[Gram()].fill_(-1.0).fill_diagonal_(1e-30)
    with pytest.raises(ValueError, match="layer: its Gram matrix cannot be factorised"):
        SparseGPT().linear(subject)


def test_zeros_are_positive_and_a_kept_weight_lost_to_half_precision_is_counted():
    subject = network("llama")
    subject.model.half()
    subject.weights()["model.layers.0.mlp.up_proj"].fill_(-1e-3)
    found = next(prune(subject, tokens(), sparsegpt()))
    for name, p in found.linears.items():
        written = subject.weights()[name]
        assert not torch.signbit(written[~p.mask]).any(), "every zero is +0.0"
    block = next(subject.walk())
    tiny = torch.full((64, 32), -1e-9)
    assert block.write("mlp.up_proj", tiny) == 64 * 32
    assert not torch.signbit(subject.weights()["model.layers.0.mlp.up_proj"]).any()
    with pytest.raises(ValueError, match=r"model.layers.0.mlp.up_proj: its new weights overflow torch.float16"):
        block.write("mlp.up_proj", tiny - 1e6)


def test_sparsegpt_repairs_what_wandas_mask_breaks():
    errors = [[s.error for s in prune(network("opt"), tokens(24), method(0.6))] for method in (wanda, sparsegpt)]
    assert errors[1][0] < errors[0][0]
