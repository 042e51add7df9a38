"""Every pair of choices prunes a small model, or is refused in one line. Options are found in conf/, none is listed."""

from functools import cache
from itertools import combinations, product

import pytest
import torch
from hydra.utils import instantiate

from prune.method import Method, Quantizer
from prune.prune import prune
from tests.test_contracts import PARTS, composed, options, solve
from tests.tiny import Memory, network, tokens

N_OF_M = [o for o in options("pattern") if "m" in composed(o).pattern]
CHOICES = {part: options(part) for part in PARTS} | {"pattern": ["scope=row", "scope=matrix", *N_OF_M]}
CHOICES["quantizer"].remove("quantizer=none")  # that of all other pairs
PAIRS = [pair for one, other in combinations(PARTS, 2) for pair in product(CHOICES[one], CHOICES[other])]
SAME = {"pattern=1of4", "pattern=4of8"}  # the class of pattern=2of4
CELLS = [pytest.param(pair, marks=[pytest.mark.slow] if SAME & set(pair) else []) for pair in PAIRS]
GIVEN = [("magnitude", "scope=row"), ("wanda", "pattern=2of4"), ("sparsegpt", "scope=matrix")]
LESS = {quantizer: {"bits": 3, "group": 8} for quantizer in CHOICES["quantizer"]}
LESS["quantizer=learned"] |= {"epochs": 2}
LESS["quantizer=mse"] |= {"steps": 20}

# What is refused, with a part of the reason; all else must run.
UNEVEN = [o for o in CHOICES["allocator"] if o != "allocator=uniform"]
REFUSED = {(n_of_m, allocator): "varies the sparsity, which NM" for n_of_m in N_OF_M for allocator in UNEVEN}
for per_row in ("allocator=besa", "allocator=cumulative"):
    REFUSED["scope=matrix", per_row] = "gives each row its sparsity, but rows compete here; set scope=row"
REFUSED["allocator=besa", "update=reconstruct"] = "want other targets"


def small(_: str = "llama"):
    """A Llama of two blocks."""
    return network(num_hidden_layers=2, hidden_size=16, intermediate_size=24)


DATA = tokens(3, 12)


@cache
def part(kind: str, choice: str | None, **changes):
    """The component of this choice, or the default one."""
    return instantiate(composed(*filter(None, [choice]))[kind], **changes)


def method_of(*choices: str) -> Method:
    """These choices, the defaults for what they leave open, and the sparsity that the pattern admits."""
    chosen = {kind: next((o for o in choices if o in CHOICES[kind]), None) for kind in PARTS}
    pattern = part("pattern", chosen["pattern"])
    sparsity = 1 - pattern.n / pattern.m if pattern.fixed else 0.6
    allocator = part("allocator", chosen["allocator"], sparsity=sparsity)
    quantizer = part("quantizer", chosen["quantizer"], **LESS.get(chosen["quantizer"], {}))
    return Method(pattern, part("metric", chosen["metric"]), allocator, part("update", chosen["update"]), quantizer)


def check(method: Method, given: Memory | None = None) -> dict:
    """Runs it: finite weights on their grid, zeros off the mask, the budget to the weight, the pattern obeyed."""
    subject = small()
    solved = {n: p for s in prune(subject, DATA, method, given=given) for n, p in s.linears.items()}
    for name, p in solved.items():
        weight = subject.weights()[name]
        assert weight.isfinite().all() and (weight[~p.mask] == 0).all()
        assert method.pattern.violations(p.mask) == 0
        if method.pattern.fixed:
            assert (p.mask.unflatten(1, (-1, method.pattern.m)).sum(2) == method.pattern.n).all()
        if method.quantizer != Quantizer():
            assert torch.equal(p.grid.nearest(weight), weight) and p.grid.bits == 3
            assert p.grid.scale.shape == (weight.shape[0], weight.shape[1] // 8)
    removed = sum(int((~p.mask).sum()) for p in solved.values())
    assert removed == round(method.allocator.sparsity * sum(p.mask.numel() for p in solved.values()))
    return solved


@pytest.mark.parametrize("pair", CELLS, ids=" ".join)
def test_a_pair_of_choices_prunes_or_is_refused_in_one_line(pair):
    method = method_of(*pair)
    if pair in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[pair]) as refusal:
            method.check()
        assert "\n" not in str(refusal.value)
    else:
        method.check()
        check(method)


def test_only_pairs_that_exist_are_expected_to_be_refused():
    assert set(REFUSED) <= set(PAIRS)


@cache
def earlier(experiment: str, *pattern: str) -> Memory:
    """The solved blocks of a run with this experiment."""
    store = Memory()
    solve(f"experiment={experiment}", *pattern, make=small, data=DATA, done=store)
    return store


@pytest.mark.parametrize(("given", "pattern"), GIVEN)
@pytest.mark.parametrize("update", options("update"))
def test_an_update_builds_on_the_masks_of_an_earlier_run(update, given, pattern):
    store = earlier(given, *([pattern] if pattern in N_OF_M else []))
    method = method_of(update, pattern)
    method = Method(method.pattern, method.metric, part("allocator", None, sparsity=0.5), method.update)
    method.check(given)
    solved = check(method, store)
    counts = {f"{block}.{name}": int(p.mask.sum()) for block, one in store.items() for name, p in one.inside.items()}
    assert {name: int(p.mask.sum()) for name, p in solved.items()} == counts, (
        "each matrix keeps as many as it was given"
    )


@pytest.mark.parametrize("allocator", UNEVEN)
def test_an_allocator_that_varies_the_sparsity_has_nothing_to_do_with_given_masks(allocator):
    with pytest.raises(ValueError, match="has nothing to decide: given=wanda fixes the masks; use allocator=uniform"):
        method_of(allocator).check("wanda")
