"""Which parameters are matrices, and that one which lies otherwise is pruned like the nn.Linear it is."""

import pytest
import torch
import transformers
from torch import nn

from prune.allocators.uniform import Uniform
from prune.matrices import matrices
from prune.method import Method
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.network import Network
from prune.patterns.n_m import NM
from prune.prune import prune
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero
from tests.tiny import SIZES, network, tokens

LLAMA4 = {"intermediate_size_mlp": 48, "num_local_experts": 3, "num_experts_per_tok": 1, "head_dim": 8}
LLAMA4 |= {"layer_types": ["full_attention"] * 3, "moe_layers": [0, 1, 2]}
METHODS = {
    "wanda": Method(NM(2, 4), Wanda(), Uniform(0.5), Zero()),
    "sparsegpt": Method(NM(2, 4), OBS(), Uniform(0.5), SparseGPT()),
}


def llama4() -> Network:
    torch.manual_seed(0)
    model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**SIZES, **LLAMA4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Network(model)


def as_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """The linear of a weight [in, out]."""
    linear = nn.Linear(*weight.shape, bias=bias is not None)
    linear.weight.data = weight.detach().T.clone()
    if bias is not None:
        linear.bias.data = bias.detach().clone()
    return linear


class Experts(nn.Module):
    """The experts of GPT-OSS or Llama 4 as nn.Linear modules."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        biases = [getattr(experts, f"{name}_bias", [None] * 9) for name in ("gate_up_proj", "down_proj")]
        self.up = nn.ModuleList(map(as_linear, experts.gate_up_proj, biases[0]))
        self.down = nn.ModuleList(map(as_linear, experts.down_proj, biases[1]))
        self.gate, self.act = getattr(experts, "_apply_gate", None), getattr(experts, "act_fn", None)


class GptOss(Experts):
    def forward(self, x, router_indices, routing_weights):
        total = torch.zeros_like(x)
        for k, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            token, choice = torch.where(router_indices == k)
            if len(token):
                total.index_add_(0, token, down(self.gate(up(x[token]))) * routing_weights[token, choice, None])
        return total


class Llama4(Experts):
    def forward(self, x):
        parts = []
        for up, down, one in zip(self.up, self.down, x.view(len(self.up), -1, x.shape[-1]), strict=True):
            gate, wide = up(one).chunk(2, dim=-1)
            parts.append(down(wide * self.act(gate)))
        return torch.cat(parts)


def plainly(subject: Network) -> Network:
    """The same model with nn.Linear modules only."""
    kinds = {
        "GptOssExperts": GptOss,
        "Llama4TextExperts": Llama4,
        "Conv1D": lambda one: as_linear(one.weight, one.bias),
    }
    for path, module in list(subject.model.named_modules()):
        if (kind := kinds.get(type(module).__name__)) is not None:
            subject.model.set_submodule(path, kind(module))
    return Network(subject.model)


MAKE = {"gpt2": lambda: network("gpt2"), "gpt_oss": lambda: network("gpt_oss"), "llama4": llama4}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", MAKE)
def test_a_matrix_that_is_stored_in_by_out_is_pruned_like_the_linear_it_is(family, method):
    subject, plain = MAKE[family](), plainly(MAKE[family]())
    answers = [
        {name: p for block in prune(one, tokens(), METHODS[method]) for name, p in block.linears.items()}
        for one in (subject, plain)
    ]
    for name, p in answers[0].items():
        other = answers[1][name.replace("gate_up_proj.", "up.").replace("experts.down_proj.", "experts.down.")]
        assert torch.equal(p.mask, other.mask), name
        torch.testing.assert_close(p.weight, other.weight, rtol=1e-4, atol=1e-4)
        assert p.notes == other.notes
        assert (p.mask.unflatten(1, (-1, 4)).sum(2) == 2).all(), "2 of 4 along what is summed over"
    torch.testing.assert_close(subject.losses(tokens()), plain.losses(tokens()), rtol=1e-5, atol=1e-5)
    assert sum(place.turned for place in subject.matrices().values()) > len(answers[0]) / 3


class Bare(nn.Module):
    """Parameters in a module of their own, each applied in another way; or in none."""

    def __init__(self, *shape: int, way) -> None:
        super().__init__()
        self.weight, self.way = nn.Parameter(torch.randn(shape)), way

    def forward(self, x):
        return self.way(x, self.weight)


WAYS = {
    "kept": [
        nn.functional.linear,
        lambda x, w: x @ w.T,
        lambda x, w: torch.einsum("...i,oi->...o", x, w),
        lambda x, w: (w @ x.mT).mT,
        lambda x, w: nn.functional.linear(x.double(), w.double()),
    ],
    "turned": [
        lambda x, w: x @ w,
        lambda x, w: torch.addmm(torch.zeros(w.shape[1], device=w.device), x.flatten(0, -2), w).unflatten(
            0, x.shape[:-1]
        ),
        lambda x, w: torch.einsum("...i,io->...o", x, w),
        lambda x, w: nn.functional.linear(x, w.T),
    ],
    "none": [lambda x, w: x * w[0, 0], nn.functional.embedding, lambda x, w: x @ (w @ w.T)],
}


@pytest.mark.parametrize("shape", [(8, 8), (8, 12), (3, 8, 12)])
@pytest.mark.parametrize(("way", "apply"), [(way, apply) for way, many in WAYS.items() for apply in many])
def test_how_a_module_applies_its_parameter_is_found_by_calling_it(way, apply, shape):
    if len(shape) == 3:
        one, apply = apply, lambda x, w: torch.cat([one(part, w[k]) for k, part in enumerate(x.chunk(len(w)))])
    module = nn.Sequential(Bare(*shape, way=apply))
    found, skipped = matrices(module)
    assert (not found) == (way == "none") == ("0.weight" in skipped)
    assert {place.turned for place in found.values()} == ({way == "turned"} if found else set())
    assert len(found) == (shape[0] if len(shape) == 3 and found else bool(found))
    for place in found.values():
        view = place.of(module[0].weight)
        assert view.untyped_storage() is module[0].weight.untyped_storage()
        assert view.shape == (shape[-2:] if way == "kept" else shape[-2:][::-1])


def other(kind: str, **sizes) -> Network:
    """A random model of a family with parameters of three axes."""
    torch.manual_seed(0)
    return Network(transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **sizes)))


ZAMBA = {"num_hidden_layers": 9, "attn_layer_period": 3, "attn_layer_offset": 2, "mamba_d_state": 8}
THREE_AXES = {
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "recurrent_gemma": {"lru_width": 32, "head_dim": 8, "attention_window_size": 16},
    "zamba": ZAMBA,
}


@pytest.mark.parametrize("kind", THREE_AXES)
def test_three_axes_that_are_no_experts_are_skipped_by_name_beside_the_linears(kind):
    subject = other(kind, **(SIZES | THREE_AXES[kind]))
    three = {f"{subject.path}.{name}" for name, p in subject.blocks.named_parameters() if p.dim() == 3}
    assert three and three <= set(subject.skipped()) and len(subject.weights()) > 4


MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTERS = {
    "mixtral": {"mlp.gate"},  # a parameter
    "qwen3_moe": {"mlp.gate"},
    "gpt_oss": {"mlp.router"},
    "phimoe": {"mlp.router"},  # an nn.Linear
    "llama4_text": {"feed_forward.router"},
    "afmoe": {"mlp.router.gate"},
    "jetmoe": {"mlp.router.layer", "self_attention.experts.router.layer"},
}


@pytest.mark.parametrize("kind", ROUTERS)
def test_routers_are_pruned_only_if_asked_whatever_they_are_made_of(kind):
    subject = other(kind, **(SIZES | MOE | (LLAMA4 if kind == "llama4_text" else {})))
    found, skipped = matrices(subject.blocks)
    everything, rest = matrices(subject.blocks, routers=True)
    expected = {name for name in everything if name.partition(".")[2] in ROUTERS[kind]}
    assert everything.keys() - found.keys() == expected and len(expected) >= len(ROUTERS[kind])
    assert {everything[name].parameter for name in expected} == skipped.keys() - rest.keys()
    assert all("a router" in skipped[everything[name].parameter] for name in expected)


def test_a_router_has_an_output_for_each_expert_beside_it_and_nothing_else_has():
    block = nn.ModuleDict({"attention": nn.ModuleDict({"q": nn.Linear(8, 8), "head_gate": nn.Linear(8, 4)})})
    block["moe"] = nn.ModuleDict({"choice": nn.Linear(8, 4), "one": nn.Linear(8, 1), "other": nn.Linear(8, 6)})
    block["moe"]["experts"] = nn.ModuleList(nn.Linear(8, 4) for _ in range(4))
    found, skipped = matrices(nn.ModuleList([block]))
    assert skipped.keys() == {"0.moe.choice.weight"}
    assert len(found) == 2 + 2 + 4


def test_routers_that_are_asked_for_are_pruned_by_what_they_hear():
    subject = Network(network("mixtral").model, routers=True)
    solved = {name: p for block in prune(subject, tokens(), METHODS["wanda"]) for name, p in block.linears.items()}
    routers = [p for name, p in solved.items() if name.endswith("mlp.gate")]
    assert len(routers) == 3 and all(2 * int(p.mask.sum()) == p.mask.numel() for p in routers)
    assert not any("unseen" in p.notes for p in routers)
    assert not any(name.endswith("gate") for name in network("mixtral").weights())
