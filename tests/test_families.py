"""Every experiment on small random models of many families, in half precision, and with other batch sizes."""

from functools import partial

import pytest
import torch

from tests.test_contracts import options, solve
from tests.tiny import FAMILIES, network, tokens

EXPERIMENTS = [o for o in options("experiment") if o != "experiment=dense"]
# Of all that read the same of a model one is enough where families or precisions differ; the others are for test-all.
KINDS = ["magnitude", "wanda", "sparsegpt", "gblm", "mixed", "besa", "barber", "dsnot", "owl", "wanda_joint"]
SMALL = {"num_hidden_layers": 2, "intermediate_size": 48}
# The share of a mask that may change with the last bits of sums, where decisions of many iterations hang together.
SENSITIVE = {"experiment=alps": 0.02}
CHANGES = {"opt": {"ffn_dim": 48}, "gemma3": {"layer_types": ["sliding_attention", "full_attention"]}}


def small(family: str, batch: int = 4, dtype: torch.dtype = torch.float32):
    """A dense model of two blocks."""
    subject = network(family, batch, **(SMALL | CHANGES.get(family, {})))
    subject.model.to(dtype)
    return subject


def check(subject, solved, sparsity: float) -> None:
    """Finite weights, zeros off the mask, and the budget to the weight."""
    assert sorted(solved) == sorted(subject.weights())
    for name, p in solved.items():
        weight = subject.weights()[name]
        assert weight.isfinite().all() and (weight[~p.mask] == 0).all()
    removed = sum(int((~p.mask).sum()) for p in solved.values())
    assert removed == round(sparsity * sum(p.mask.numel() for p in solved.values()))


def cells(first: str, second: str, *others: str) -> list:
    """Each experiment with each family: all with the first, one of each kind with the second, the others are slow."""
    quick = lambda experiment, family: family == first or (family == second and experiment.split("=")[1] in KINDS)
    every = [(experiment, family) for experiment in EXPERIMENTS for family in (first, second, *others)]
    return [pytest.param(*one, marks=[] if quick(*one) else [pytest.mark.slow]) for one in every]


@pytest.mark.parametrize(("experiment", "family"), cells("opt", "mixtral", "llama", "gpt_neox", "qwen3", "gemma3"))
def test_an_experiment_prunes_a_family_to_the_weight(experiment, family):
    config, subject, solved = solve(experiment, "sparsity=0.6", family=family, make=small)
    check(subject, solved, config.allocator.sparsity)


@pytest.mark.parametrize(("experiment", "family"), cells("llama", "mixtral"))
def test_an_experiment_prunes_a_model_in_half_precision(experiment, family):
    dtype = {"llama": torch.float16, "mixtral": torch.bfloat16}[family]
    make = lambda family: small(family, dtype=dtype)
    config, subject, solved = solve(experiment, "sparsity=0.6", family=family, make=make)
    assert all(weight.dtype == dtype for weight in subject.weights().values())
    check(subject, solved, config.allocator.sparsity)


@pytest.mark.parametrize(("experiment", "family"), cells("llama", "mixtral"))
def test_the_batch_size_changes_no_mask(experiment, family):
    found = [
        solve(experiment, "sparsity=0.6", family=family, make=lambda family, batch=batch: small(family, batch))[2]
        for batch in (1, 4)
    ]
    for name, p in found[0].items():
        other = (p.mask != found[1][name].mask).double().mean().item()
        assert other <= SENSITIVE.get(experiment, 0.0), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_a_family_hears_its_tokens(family):
    # GPT-OSS's router has a bias, which, drawn at random, keeps whole experts from every token: all are chosen here.
    make = partial(network, **({"num_experts_per_tok": 4} if family == "gpt_oss" else {}))
    _, _, solved = solve("experiment=wanda", family=family, data=tokens(12), make=make)
    assert not [name for name, p in solved.items() if "unseen" in p.notes]


FORWARDS = {"random": 0, "magnitude": 0, "gblm": 4, "gradient": 4, "mixed": 5, "besa": 3, "besa_layer": 4, "owl": 3}
FORWARDS |= {
    "best": 2 + 1 + 1 + 2 + 4,  # ADMM's, the dense stream, the cross Gram, losses before and after, four epochs
    "rtn": 0,
    "mixed_joint": 5,
    "besa_joint": 3,
    "wanda_joint": 2 + 2 * 2,
}  # of two epochs; 42 with the 20 of its YAML


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_readme_says_how_often_a_sequence_goes_through_the_model(experiment):
    runs = []

    def make(family):
        subject, count = small(family), [0]
        heard = lambda _, args: count.__setitem__(0, count[0] + len(args[0]))
        subject.blocks[1].mlp.register_forward_pre_hook(heard)
        runs.append(count)
        return subject

    data = tokens(12)
    solve(experiment, make=make, data=data)
    passes = [count[0] // len(data) for count in runs]  # one sequence more is run to see who shares an input
    name = experiment.partition("=")[2]
    assert passes == ([2, 5] if name == "barber" else [FORWARDS.get(name, 2)]), "the given run comes first"
