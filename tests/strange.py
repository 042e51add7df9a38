"""A small causal LM as people write their own, whose way to call its blocks each test chooses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


class Config(PretrainedConfig):
    """`depth` under a name of its own when `n_layer` is set instead of num_hidden_layers."""

    model_type = "strange"

    def __init__(self, vocab_size: int = 96, hidden_size: int = 32, **more: Any) -> None:
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**more)


class Block(nn.Module):
    """Causal attention and a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, hidden_states: Tensor, store: Any = None, scale: float = 1.0) -> Tensor:
        b, t, d = hidden_states.shape
        q, k, v = (x.view(b, t, 4, -1).transpose(1, 2) for x in self.qkv(hidden_states).split(d, -1))
        if store is not None:  # the first block's keys and values serve all
            k, v = store.setdefault("kv", (k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        hidden_states = hidden_states + scale * self.o(mixed)
        return hidden_states + self.down(torch.tanh(self.up(hidden_states)))


def one_after_the_other(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """As most models do."""
    for block in blocks:
        x = block(x)
    return x


class Body(PreTrainedModel):
    config_class = Config
    base_model_prefix = "model"

    def __init__(self, config: Config, blocks: nn.ModuleList, run: Callable[[nn.ModuleList, Tensor], Tensor]) -> None:
        super().__init__(config)
        self.wte, self.blocks, self.run = nn.Embedding(config.vocab_size, config.hidden_size), blocks, run

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.run(self.blocks, self.wte(input_ids)))


class Strange(PreTrainedModel):
    """`run`: (blocks, embedded tokens) -> what the head is given."""

    config_class = Config
    base_model_prefix = "model"

    def __init__(self, run: Callable[..., Tensor] = one_after_the_other, blocks: Any = None, **depth: Any) -> None:
        torch.manual_seed(0)
        config = Config(**(depth or {"num_hidden_layers": 3}))
        super().__init__(config)
        made = nn.ModuleList(blocks or [Block(config.hidden_size) for _ in range(3)])
        self.model = Body(config, made, run)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.wte

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=self.lm_head(self.model(input_ids).last_hidden_state))
