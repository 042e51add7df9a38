"""A model is walked as it runs: whatever its blocks return and hand on to each other, and whoever cannot be is refused.

The oracle is the model's own forward, and autograd through all of it.
"""

import copy

import pytest
import torch
import transformers

from prune import own
from prune.network import Network
from prune.prune import prune
from prune.statistics.gradient import LossGradient
from tests.strange import Block, Strange, one_after_the_other
from tests.test_trace import leaves, loss, products
from tests.tiny import SIZES, tokens, wanda

MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
MOE = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
SMALL = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96, "global_head_dim": 8, "head_dim": 8}
KINDS = ["sliding_attention", "full_attention"] * 2
FAMILIES = {
    # (hidden, None) that the model unpacks
    "Bamba": {"attn_layer_indices": [1], **MAMBA},
    # (hidden, which tokens to attend to), which the next blocks are given
    "GlmMoeDsa": {**MLA, **MOE, "num_key_value_heads": 4, "first_k_dense_replace": 1, "index_topk": 4},
    # a dict of keys and values that the later blocks read
    "Gemma4": {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": KINDS, "sliding_window": 8, **SMALL},
}
CONFIGS = {"Gemma4": "Gemma4TextConfig"}


def build(family: str):
    """A random model whose norms and biases are random too."""
    config = getattr(transformers, CONFIGS.get(family, f"{family}Config"))(**(SIZES | FAMILIES[family]))
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def own_losses(model, data):
    """The mean cross-entropy of each sequence by the model's own forward; keeps a graph where weights want one."""
    rows = [(model(row[None], use_cache=False).logits[0, :-1].float(), row[1:]) for row in data]
    return torch.stack([torch.nn.functional.cross_entropy(logits, target) for logits, target in rows])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return build(request.param)


def test_what_blocks_return_and_hand_on_reaches_the_next_ones(family):
    data = tokens(5, 24)
    with torch.no_grad():
        expected = own_losses(family, data)
    torch.testing.assert_close(Network(family, batch=2).losses(data), expected, rtol=1e-6, atol=1e-6)


def test_a_pruned_model_is_the_one_that_was_walked(family):
    model, data = copy.deepcopy(family), tokens(5, 24)
    subject = Network(model, batch=2)
    for _ in prune(subject, data, wanda()):
        pass
    with torch.no_grad():
        torch.testing.assert_close(subject.losses(data), own_losses(model, data), rtol=1e-6, atol=1e-6)


def test_gradients_flow_back_through_what_is_handed_on(family):
    model, data = copy.deepcopy(family), tokens(3, 24)
    mine = {
        name: g for _, found in LossGradient(0).of(Network(copy.deepcopy(family)), data) for name, g in found.items()
    }
    if any(hasattr(module, "is_transposed") for module in model.modules()):
        model.set_experts_implementation("eager")
    model.requires_grad_(True)
    own_losses(model, data).mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    compared = [name for name in mine if f"{name}.weight" in gradients]
    assert len(compared) > 12
    for name in compared:
        true = gradients[f"{name}.weight"]
        assert (mine[name] - true).norm() <= 1e-5 * true.norm(), name


def test_hessian_products_flow_through_keys_and_values_that_later_layers_reuse():
    subject, data = Network(build("Gemma4")), tokens(1, 12)
    ((probes, found),) = products(subject, data)
    at = leaves(subject)
    first = torch.autograd.grad(loss(subject, data[0])(at), at.values(), create_graph=True, materialize_grads=True)
    along = sum((slope * probes[name]).sum() for name, slope in zip(at, first, strict=True))
    second = dict(zip(at, torch.autograd.grad(along, at.values(), materialize_grads=True), strict=True))
    largest = max(expected.norm() for expected in second.values())
    for name, expected in second.items():
        assert (found[name] - expected).norm() <= 1e-4 * expected.norm() + 1e-6 * largest, name


@pytest.mark.parametrize("settings", [{"propagate": "dense"}, {"reference": "dense"}], ids=str)
def test_the_dense_stream_keeps_its_own_keys_and_values(settings):
    model, data, seen = build("Gemma4"), tokens(4, 24), []
    with torch.no_grad():
        dense = model.model(data, use_cache=False).last_hidden_state
    subject = Network(model, batch=2)
    for block in subject.walk(data, **settings):
        for name, weight in block.weights.items():
            block.write(name, weight * (torch.rand(weight.shape) > 0.5))
        block.advance()
        states = block.twin if settings.get("reference") else block.calls.states
        seen = torch.cat(list(states))
    torch.testing.assert_close(model.model.norm(seen), dense, rtol=1e-5, atol=1e-5)


def by_name(blocks, x):
    for block in blocks:
        x = block(scale=0.5, hidden_states=x)
    return x


def with_a_store(blocks, x):
    store = {}
    for block in blocks:
        x = block(x, store)
    return x


@pytest.mark.parametrize("run", [one_after_the_other, by_name, with_a_store])
def test_own_code_is_walked_however_it_calls_its_blocks(run):
    model, data = Strange(run).eval(), tokens(5, 16)
    with torch.no_grad():
        expected = own_losses(model, data)
    torch.testing.assert_close(Network(model, batch=2).losses(data), expected, rtol=1e-6, atol=1e-6)
    for _ in prune(Network(model, batch=2), data, wanda()):
        pass
    assert 0.4 < (model.model.blocks[2].down.weight == 0).float().mean() < 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_held_has_the_same_bits(dtype, family):
    subject = Network(copy.deepcopy(family).to(dtype))
    few = tokens(1, 24)
    assert torch.equal(own._walked(subject, few), own._forward(subject, few))


def test_matrices_that_blocks_share_are_not_pruned_and_said_to_be_shared():
    first, _, third = blocks = [Block(32) for _ in range(3)]
    third.up, third.qkv.weight = first.up, first.qkv.weight
    model, data = Strange(blocks=blocks).eval(), tokens()
    subject, before = Network(model, batch=2), copy.deepcopy(model.state_dict())
    names = {name for solved in prune(subject, data, wanda()) for name in solved.linears}
    every = {f"model.blocks.{k}.{name}" for k in range(3) for name in ("qkv", "o", "up", "down")}
    shared = {f"model.blocks.{k}.{name}" for k in (0, 2) for name in ("qkv", "up")}
    assert names == every - shared == set(subject.weights())
    assert subject.skipped() == {f"{name}.weight": subject.skipped()[f"{name}.weight"] for name in shared}
    assert subject.skipped()["model.blocks.0.up.weight"] == "[64, 32] that blocks 0, 2 share"
    assert all(torch.equal(before[f"{name}.weight"], model.state_dict()[f"{name}.weight"]) for name in shared)
    with torch.no_grad():
        torch.testing.assert_close(subject.losses(data), own_losses(model, data), rtol=1e-6, atol=1e-6)


def test_blocks_are_found_where_the_config_has_no_depth():
    assert Network(Strange(n_layer=3)).path == "model.blocks"
    model = Strange(n_layer=3)
    model.model.others = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(ValueError, match=r"has no depth, found \['model.blocks', 'model.others'\]; set model.blocks"):
        Network(model)


def test_one_block_in_several_places_is_refused():
    block = Block(32)
    with pytest.raises(ValueError, match=r"model.blocks: one block of Strange is used several times"):
        Network(Strange(blocks=[block, Block(32), block]))
