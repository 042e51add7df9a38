"""Tiny random models of many families, two of them with blocks that return tuples, and what to prune them with."""

import torch
import transformers
from torch import Tensor

from prune.allocators.uniform import Uniform
from prune.method import Method
from prune.metrics.magnitude import Magnitude
from prune.metrics.obs import OBS
from prune.metrics.wanda import Wanda
from prune.network import Network
from prune.patterns.unstructured import Unstructured
from prune.updates.sparsegpt import SparseGPT
from prune.updates.zero import Zero

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "llama": ("Llama", {}),
    "opt": ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt_neox": ("GPTNeoX", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 8,
            "layer_types": LAYERS,
            "sliding_window": 8,
        },
    ),
    "phi3": ("Phi3", {}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "falcon": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 64}),
    "bloom": ("Bloom", {"n_layer": 3, "n_head": 4}),
    "gpt2": ("GPT2", {"n_inner": 64}),  # weights [in, out]
    "gpt_oss": (  # experts [e, in, out]
        "GptOss",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "layer_types": LAYERS},
    ),
}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}
MODELS = {"GPT2": "GPT2LMHeadModel"}


def network(family: str = "llama", batch: int = 4, **changes) -> Network:
    """A random model of this family, the same on every call; biases and norms are random too."""
    kind, extra = FAMILIES[family]
    config = getattr(transformers, CONFIGS.get(kind, f"{kind}Config"))(**(SIZES | extra | changes))
    generator = torch.Generator().manual_seed(0)
    model = getattr(transformers, MODELS.get(kind, f"{kind}ForCausalLM"))(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.1 if parameter.dim() > 1 else 0.5))
    return Network(model, batch=batch)


def tokens(sequences: int = 6, length: int = 16, seed: int = 0) -> Tensor:
    """Random token windows."""
    return torch.randint(1, 96, (sequences, length), generator=torch.Generator().manual_seed(seed))


class Memory(dict):
    """A store of solved blocks that needs no disk."""

    load = dict.__getitem__

    def save(self, solved) -> None:
        self[solved.block] = solved


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def magnitude(sparsity: float = 0.5) -> Method:
    """The baselines, as conf/experiment has them."""
    return Method(Unstructured("matrix"), Magnitude(), Uniform(sparsity), Zero())


def wanda(sparsity: float = 0.5) -> Method:
    return Method(Unstructured("row"), Wanda(), Uniform(sparsity), Zero())


def sparsegpt(sparsity: float = 0.5) -> Method:
    return Method(Unstructured("matrix"), OBS(), Uniform(sparsity), SparseGPT())
