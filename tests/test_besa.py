"""BESA against autograd through its soft mask, Wanda, and what its rates are able to reach."""

from dataclasses import replace

import pytest
import torch

from prune.allocators.besa import BESA, EPSILON, Masked, rank, relative_error
from prune.method import Linear, Method
from prune.metrics.magnitude import Magnitude
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from prune.statistic import Gathered, Stats
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.tiny import network, random, tokens, wanda

STEPS = 100
FAST = 500.0


def besa(sparsity: float = 0.5, **fields) -> Method:
    """As conf/experiment has it, but with steps that get somewhere in the few updates of a test."""
    return Method(Unstructured("row"), Wanda(), BESA(sparsity, **({"d_coef": FAST} | fields)), Zero())


def candidates():
    return torch.arange(STEPS, -1, -1).double() / STEPS


def linear(weight, scope="row") -> Linear:
    return Linear("layer", weight, Stats("layer", lambda: Gathered({}, 1)), Magnitude(), Unstructured(scope))


def solved(method, family="llama", **changes):
    """The pruned model's network and its answers by full name."""
    subject = network(family, **changes)
    walk = prune(subject, tokens(), method)
    return subject, {name: p for block in walk for name, p in block.linears.items()}


def masks(answers):
    return torch.cat([p.mask.flatten() for p in answers.values()])


@pytest.mark.parametrize(("scope", "rates"), [("row", 16), ("row", 1), ("matrix", 1)])
def test_the_gradient_is_that_of_autograd_through_the_soft_mask(scope, rates):
    weight, upstream = random(16, 64), random(16, 64, seed=1)
    belief = random(rates, STEPS + 1, seed=2).double().softmax(1).requires_grad_()
    ranked = rank(linear(weight, scope), STEPS)
    room = torch.empty(ranked.order.numel())
    masked = Masked.apply(belief, (belief @ candidates()).detach(), ranked, room, ranked.weight)
    answer = masked.detach().clone()  # it lies where its gradient will be
    (masked * upstream).sum().backward()
    closed, belief.grad = belief.grad, None

    scores = (weight.abs() if scope == "row" else weight.abs().reshape(1, -1)).double()
    place = scores.argsort(dim=1, stable=True).argsort(dim=1)
    n = place.shape[1]
    gone = torch.arange(n) < torch.tensor([n * (STEPS - k) // STEPS for k in range(STEPS + 1)])[:, None]  # [s, n]
    soft = (1 - belief @ gone.double()).expand(len(place), n).gather(1, place)
    hard = (place >= ((belief @ candidates()) * n).floor()[:, None]).double()
    straight_through = (hard + soft - soft.detach()).reshape(16, 64)
    (weight.double() * straight_through * upstream.double()).sum().backward()
    torch.testing.assert_close(closed, belief.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(answer.double(), (weight.double() * straight_through).detach())


@pytest.mark.parametrize("parametrisation", ["tilted", "released", "softmax"])
def test_equal_logits_remove_half_of_every_width_to_the_weight(parametrisation):
    allocator = BESA(0.5, parametrisation=parametrisation)
    belief = allocator.belief(
        torch.zeros(3, STEPS + 1, dtype=torch.float64), allocator.prior(candidates(), allocator.sparsity)
    )
    for width in (4096, 5120, 6656, 8192, 11008, 13824, 17920, 22016, 28672):
        assert ((belief @ candidates() * width + EPSILON).floor() == width // 2).all()


def test_equal_logits_have_wandas_mask_bit_for_bit():
    subject, data = network(), tokens()
    expected = next(prune(network(), data, wanda())).linears
    seen = {}

    class Look(BESA):
        def learned(self, block, linears, target):
            belief = torch.full((1, STEPS + 1), 1 / (STEPS + 1), dtype=torch.float64)
            rates = belief @ candidates()
            for one in linears.values():
                seen[one.name] = Masked.apply(belief, rates, rank(one, STEPS), torch.empty(0), one.weight) != 0
            return super().learned(block, linears, target)

    next(prune(subject, data, replace(besa(), allocator=Look(0.5))))
    assert seen.keys() == expected.keys()
    assert all(torch.equal(seen[name], expected[name].mask) for name in expected)


def reach(allocator):
    """The lowest and highest rate that logits without bounds can make."""
    far = torch.full((STEPS + 1,), -1e6, dtype=torch.float64)
    ends = [torch.where(torch.arange(STEPS + 1) < k, -far, far) for k in range(STEPS + 2)]
    logits = torch.stack([*ends, *(-end for end in ends)])
    rates = allocator.belief(logits, allocator.prior(candidates(), allocator.sparsity)) @ candidates()
    return rates.min().item(), rates.max().item()


def test_sigmoids_bound_the_rates_around_where_they_start_and_a_plain_softmax_does_not():
    assert reach(BESA(0.5, parametrisation="released")) == pytest.approx((0.3763, 0.6237), abs=5e-5)
    assert reach(BESA(0.5)) == pytest.approx((0.3763, 0.6237), abs=5e-5)
    low, high = reach(BESA(0.7))
    assert 0.5 < low < 0.65 and 0.75 < high < 0.85
    assert reach(BESA(0.5, parametrisation="softmax")) == pytest.approx((0.0, 1.0), abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.001, 0.1, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("parametrisation", ["tilted", "softmax"])
def test_learning_starts_at_the_target(sparsity, parametrisation):
    allocator = BESA(sparsity, parametrisation=parametrisation)
    belief = allocator.belief(
        torch.zeros(1, STEPS + 1, dtype=torch.float64), allocator.prior(candidates(), allocator.sparsity)
    )
    assert (belief @ candidates()).item() == pytest.approx(sparsity, abs=1e-9)


@pytest.mark.parametrize(("sparsity", "per_row", "slack"), [(0.3, True, 0), (0.5, True, 0.02), (0.7, False, 1)])
@pytest.mark.parametrize("family", ["llama", "opt", "mixtral"])
def test_the_budget_is_met_to_the_weight_and_the_layers_differ(sparsity, per_row, slack, family):
    subject, answers = solved(besa(sparsity, per_row=per_row, slack=float(slack)), family)
    total = sum(w.numel() for w in subject.weights().values())
    assert (~masks(answers)).sum() == round(sparsity * total)
    for block in range(3):
        inside = masks({name: p for name, p in answers.items() if f"layers.{block}." in name})
        assert abs((~inside).sum() - sparsity * len(inside)) < 1.5 + 4 * slack * len(inside)
    assert len({p.target for p in answers.values()}) > 3
    assert all(p.wanted is not None for p in answers.values())


def test_there_is_nothing_to_learn_at_the_ends():
    assert masks(solved(besa(0.0))[1]).all() and not masks(solved(besa(1.0))[1]).any()


def test_rows_get_sparsities_of_their_own():
    rows = solved(besa())[1]["model.layers.0.mlp.down_proj"].mask.sum(1)
    matrix = solved(besa(per_row=False))[1]["model.layers.0.mlp.down_proj"].mask.sum(1)
    assert rows.max() - rows.min() > 1 >= matrix.max() - matrix.min()


@pytest.mark.parametrize("per_row", [True, False])
def test_the_block_is_rebuilt_better_than_at_one_sparsity_for_all(per_row):
    data = tokens(32)
    learned, uniform = (next(prune(network(), data, m)).error for m in (besa(per_row=per_row, slack=0.0), wanda()))
    assert learned < uniform


def test_the_loss_falls_over_the_updates():
    losses = []

    class Watched(BESA):
        def learned(self, block, linears, target):
            def forward(call, weights):
                output = block.forward(call, weights)
                losses.append(relative_error(output, block.reference(call)).item())
                return output

            return super().learned(replace(block, forward=forward), linears, target)

    watched = Watched(0.5, epochs=4, d_coef=50.0)
    next(prune(network(), tokens(24), replace(besa(), allocator=watched)))
    assert len(losses) == 96
    assert sum(losses[-24:]) < 0.98 * sum(losses[:24]), "the same sequences, the last epoch against the first"


def test_the_answer_is_the_same_again_and_at_every_batch_size():
    first, again, single = (masks(solved(besa(), batch=batch)[1]) for batch in (4, 4, 1))
    assert torch.equal(first, again) and torch.equal(first, single)


def test_the_dense_model_as_target_changes_later_blocks_only():
    method = besa()
    targets = [replace(method.allocator, reference=reference) for reference in ("pruned", "dense")]
    pruned, dense = (solved(replace(method, allocator=allocator))[1] for allocator in targets)
    same = [all(torch.equal(pruned[n].mask, dense[n].mask) for n in pruned if f"layers.{k}." in n) for k in range(3)]
    assert same[0] and not same[2]


def test_a_model_in_half_precision_is_learned_in_float32():
    subject = network()
    subject.model.bfloat16()
    removed = ~torch.cat([p.mask.flatten() for s in prune(subject, tokens(), besa(0.7)) for p in s.linears.values()])
    assert removed.sum() == round(0.7 * len(removed))
    assert all(w.dtype == torch.bfloat16 for w in subject.weights().values())


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_sparsegpt_solves_what_besa_allots(scope):
    method = Method(Unstructured(scope), OBS(), BESA(0.6, scope == "row"), SparseGPT(block_size=16))
    method.check()
    answers = solved(method)[1]
    assert (~masks(answers)).sum() == round(0.6 * len(masks(answers)))
    methods = [replace(method, update=update) for update in (Zero(), SparseGPT(block_size=16))]
    errors = [next(prune(network("opt"), tokens(12), one)).error for one in methods]
    assert errors[1] < errors[0]


def test_a_channel_that_is_zero_in_the_target_counts_as_right_and_has_no_gradient():
    output, target = random(1, 5, 4).requires_grad_(), random(1, 5, 4, seed=1)
    target[..., 2] = 0.0
    error = relative_error(output, target)
    error.backward()
    ratios = ((output - target).square().sum(1) / target.square().sum(1))[0, [0, 1, 3]]
    torch.testing.assert_close(error, ratios.sum() / 4)
    assert output.grad.isfinite().all() and (output.grad[..., 2] == 0).all()


def test_experts_that_no_token_reached_want_the_target_itself():
    subject = network("mixtral")
    for block in subject.blocks:
        block.mlp.gate.weight.data.zero_()  # the two experts of every token are those that come first among equals
    answers = [p for s in prune(subject, tokens(), besa(slack=0.0)) for p in s.linears.values()]
    unseen = [p for p in answers if "unseen" in p.notes]
    assert len(unseen) == 3 * 2 * 2, "in each block gate_up and down of two experts"
    assert all(abs(p.wanted - 0.5) < 1e-3 for p in unseen)
    assert (~torch.cat([p.mask.flatten() for p in answers])).sum() * 2 == sum(p.mask.numel() for p in answers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 0.7, "parametrisation": "released"}, "expected a sparsity of 0.4 to 0.6, found 0.7"),
        ({"step": 0.03}, "expected a step that divides 1, as 0.01 does, found step=0.03"),
        ({"epochs": 0}, "expected epochs >= 1"),
        ({"d_coef": 0.0}, "d_coef > 0, found .*d_coef=0.0"),
        ({"parametrisation": "plain"}, "expected one of .*softmax.*, found 'plain'"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        BESA(**({"sparsity": 0.5} | fields))
    assert "\n" not in str(caught.value)
