"""The budget: what allocators want, moved onto whole numbers of weights that add up to it, against brute force."""

import pytest
import torch
from hydra.utils import instantiate

from prune.budget import meet, part_of
from tests.test_contracts import composed, options, solve

SHAPES = [(8, 16), (24, 8), (5, 7), (1, 13), (16, 32), (3, 3)]


def wishes(seed: int, rows: bool, low: float = 0.0, high: float = 1.0):
    """Random shares by name, uniform in low to high: every other matrix with one per row if `rows`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {f"layer{k}": o * i for k, (o, i) in enumerate(SHAPES)}
    lengths = [o if rows and k % 2 else 1 for k, (o, _) in enumerate(SHAPES)]
    draws = [low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64) for n in lengths]
    return dict(zip(sizes, draws, strict=True)), sizes


def removed(allotted, sizes):
    """Weights removed of each share's group, which must be whole numbers: name -> [1] or [o]."""
    counts = {name: one.sparsity * (sizes[name] / len(one.sparsity)) for name, one in allotted.items()}
    for count in counts.values():
        torch.testing.assert_close(count, count.round(), rtol=0, atol=1e-6)
    return {name: count.round() for name, count in counts.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.013, 0.37, 0.5, 0.7, 0.99, 1.0])
def test_the_total_is_exact_in_whole_weights_between_nothing_and_everything(seed, rows, sparsity):
    wanted, sizes = wishes(seed, rows)
    allotted = meet(wanted, sizes, sparsity)
    counts = removed(allotted, sizes)
    assert sum(count.sum().item() for count in counts.values()) == int(sparsity * sum(sizes.values()) + 0.5)
    for name, one in allotted.items():
        assert one.sparsity.shape == wanted[name].shape and one.sparsity.dtype == torch.float64
        assert one.sparsity.min() >= 0 and one.sparsity.max() <= 1
        assert one.wanted == pytest.approx(wanted[name].mean().item())


def shifted(wanted, sizes, total):
    """Brute force: the one shift, of a fine grid, whose clipped shares come nearest to the total."""
    shares = torch.cat(list(wanted.values()))
    weights = torch.cat([torch.full((len(w),), sizes[n] / len(w), dtype=torch.float64) for n, w in wanted.items()])
    grid = torch.linspace(-1, 1, 100_001, dtype=torch.float64)
    found = torch.cat([(shares + part[:, None]).clamp(0, 1) @ weights for part in grid.split(10_000)])
    return (shares + grid[(found - total).abs().argmin()]).clamp(0, 1), weights


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("sparsity", [0.05, 0.37, 0.9])
def test_all_shares_move_by_one_number_as_far_as_the_ends_allow(seed, rows, sparsity):
    wanted, sizes = wishes(seed, rows)
    expected, weights = shifted(wanted, sizes, round(sparsity * sum(sizes.values())))
    found = torch.cat([one.sparsity for one in meet(wanted, sizes, sparsity).values()])
    assert ((found - expected).abs() * weights < 1 + 0.01).all(), (
        "no share is off by more than the rounding to a weight"
    )
    assert ((found - expected) * weights).cumsum(0).abs().max() < 0.5 + 0.1, "nor their running sum by more than half"
    assert (found[expected == 0] * weights[expected == 0] < 1).all() and (expected > 0).any()


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_what_is_wanted_is_kept_up_to_a_weight(seed):
    wanted, sizes = wishes(seed, rows=True, low=0.2, high=0.9)
    allotted = meet(wanted, sizes, 0.6)
    asked, given = (torch.cat([*parts]) for parts in (wanted.values(), [one.sparsity for one in allotted.values()]))
    weights = torch.cat([torch.full((len(w),), sizes[n] / len(w), dtype=torch.float64) for n, w in wanted.items()])
    more = asked[:, None] > asked[None, :]
    slack = 1 / weights[:, None] + 1 / weights[None, :]
    assert ((given[:, None] - given[None, :] > -slack) | ~more).all()


def test_shares_that_are_on_budget_already_come_back_as_they_are():
    wanted, sizes = wishes(3, rows=True)
    first = meet(wanted, sizes, 0.61)
    again = meet({name: one.sparsity for name, one in first.items()}, sizes, 0.61)
    assert all(torch.equal(again[name].sparsity, one.sparsity) for name, one in first.items())


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_nothing_and_everything_can_be_asked_for_whatever_is_wanted(sparsity):
    wanted, sizes = wishes(1, rows=True)
    assert all((one.sparsity == sparsity).all() for one in meet(wanted, sizes, sparsity).values())


@pytest.mark.parametrize("shares", [[3.0, -2.0, 0.4], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
def test_shares_outside_0_to_1_or_all_at_one_end_still_meet_the_budget(shares):
    sizes = {"a": 100, "b": 50, "c": 51}
    wanted = {name: torch.tensor([share], dtype=torch.float64) for name, share in zip(sizes, shares, strict=True)}
    counts = removed(meet(wanted, sizes, 0.5), sizes)
    assert sum(count.item() for count in counts.values()) == 101, "half of 201, and halves go up"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinite_shares_are_refused(bad):
    wanted, sizes = wishes(0, rows=False)
    wanted["layer2"] = torch.tensor([bad], dtype=torch.float64)
    with pytest.raises(ValueError, match="the allocator wants 1 sparsities that are NaN or infinite"):
        meet(wanted, sizes, 0.5)


@pytest.mark.parametrize("sparsity", [0.37, 0.5, 0.7, 1 / 3])
def test_the_parts_of_a_model_add_up_to_its_budget(sparsity):
    sizes = {f"blocks.{k}.{name}": 7 * k + n for k in range(9) for n, name in enumerate(("a", "b"), 3)}
    blocks = [[f"blocks.{k}.a", f"blocks.{k}.b"] for k in range(9)]
    parts = [(sum(sizes[n] for n in names), part_of(names, sizes, sparsity)) for names in blocks]
    counts = [round(size * part) for size, part in parts]
    assert all(size * part == pytest.approx(count, abs=1e-9) for (size, part), count in zip(parts, counts, strict=True))
    assert sum(counts) == int(sparsity * sum(sizes.values()) + 0.5)
    assert all(abs(count - sparsity * size) <= 1 for (size, _), count in zip(parts, counts, strict=True))


def scopes(allocator: str) -> list[str]:
    """Where weights may compete under this allocator: in the whole matrix only if it gives no row its own sparsity."""
    per_row = instantiate(composed(allocator).allocator).per_row
    return ["row"] if per_row else ["row", "matrix"]


@pytest.mark.parametrize("allocator", options("allocator"))
def test_every_allocator_meets_a_budget_that_no_matrix_meets_by_itself_to_the_weight(allocator):
    for scope in scopes(allocator):
        _, _, solved = solve(allocator, f"scope={scope}", "sparsity=0.37", family="mixtral")
        total = sum(p.mask.numel() for p in solved.values())
        assert sum(int((~p.mask).sum()) for p in solved.values()) == round(0.37 * total)
        assert sum(p.target * p.mask.numel() for p in solved.values()) == pytest.approx(round(0.37 * total))
