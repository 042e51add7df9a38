"""Any causal LM of transformers with small sizes and random weights, from what its configuration calls its sizes."""

import tempfile
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

MOST = 4_000_000  # parameters
# What a configuration may call its sizes, and what is small; those that it does not know are left out.
SMALL = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_words"), 96),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "d_inner"), 64),
    **dict.fromkeys(("dff", "ffn_hidden_size", "feed_forward_size", "dim_ff", "attention_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "intermediate_size_mlp"), 16),
    "shared_experts_intermediate_size": 16,
    **dict.fromkeys(("num_hidden_layers", "decoder_layers", "n_layer", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_head", "dim_head", "attention_head_size", "global_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("v_head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "context_length"), 64),
    "model_max_length": 64,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("moe_topk", "moe_top_k"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "sliding_window", "attention_window_size", "window_size"), 16),
    **dict.fromkeys(("n_group", "num_expert_group", "topk_group", "mamba_n_groups", "first_k_dense_replace"), 1),
    "encoder_layers": 1,
    **dict.fromkeys(("mamba_d_state", "state_size", "time_step_rank", "mamba_n_heads", "mamba_d_head"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "laurel_rank", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
DOTS3 = {
    "num_key_value_heads": 4,
    **{"index_topk": 8, "index_n_heads": 4, "index_head_dim": 8},
    **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16},
    **{"swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8},
}
QWEN4 = {
    **{"hc_count": 2, "hc_lowrank": 8},
    **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8},
    **{"indexer_budget": 8, "indexer_compress_ratio": 4},
    **{"ple_layer_ids": [1], "ngram_vocab_size_base": 64, "make_ngram_vocab_size_divisible_by": 8},
    "split_ngram_parts": 2,
}
# By model type, on top of these; None leaves the family's own.
SPECIAL: dict[str, dict[str, Any]] = {
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {"num_layers": 2, "num_hidden_layers": None, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "gemma3n_text": {
        "intermediate_size": [64] * 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 4,
        "altup_num_inputs": 2,
    },
    "gemma4_text": {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
    },
    "dots3_note": {
        "text_config": DOTS3,
        "vision_config": {"mlp_layer_types": ["dense"] * 4, "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32, "downsample_hidden_size": 8},
    },
    "dots3_note_text": DOTS3,
    "git": {"vision_config": {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8}},
    "gemma3": {"vision_config": {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8}},
    "blt": {
        "encoder_hash_byte_group_vocab": 50,
        "encoder_config": {"hidden_size_global": 64, "vocab_size": 260},
        "decoder_config": {"hidden_size_global": 64, "vocab_size": 260},
        "global_config": {"hidden_size": 64, "num_attention_heads": 8},
        "patcher_config": {"vocab_size": 260},
        "vocab_size": 260,
    },
    "mllama": {"text_config": {"cross_attention_layers": [1, 3]}},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    },
    "phi4_multimodal": {
        "vision_config": {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8},
        "audio_config": {"num_blocks": 1, "ext_pw_out_channel": 8, "nemo_conv_channels": 8, "chunk_size": -1},
    },
    "qwen4_exp": {"text_config": QWEN4, "vision_config": {"out_hidden_size": 32}},
    "qwen4_exp_text": QWEN4,
    "roc_bert": {
        "pronunciation_vocab_size": 8,
        "shape_vocab_size": 8,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "zamba": {"num_hidden_layers": 9, "attn_layer_period": 3, "attn_layer_offset": 2, "layer_types": None},
    "zamba2": {
        "num_hidden_layers": 7,
        "layers_block_type": ["mamba", "hybrid", "mamba", "mamba", "hybrid", "mamba", "hybrid"],
        "num_mem_blocks": 2,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "adapter_rank": 4,
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local"] * 4,
        "num_hidden_layers": None,
    },
}


def names() -> list[str]:
    """The model types of all causal LMs."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def config_of(kind: str) -> Any:
    """The family's own configuration with small sizes; as many layer types as layers."""
    family = CONFIG_MAPPING[kind]
    return family(**(small(family(), SPECIAL.get(kind, {}))))


def small(config: Any, special: dict[str, Any]) -> dict[str, Any]:
    """What a configuration of this kind is made of, its parts' included."""
    own, renamed = config.to_dict(), getattr(config, "attribute_map", {})
    found = {name: value for name, value in SMALL.items() if name in own and name not in renamed}
    if "kv_lora_rank" in own:
        found["num_key_value_heads"] = 4
    found |= special
    for part in config.sub_configs:
        if isinstance(inner := getattr(config, part, None), transformers.PretrainedConfig):
            found[part] = {"model_type": inner.model_type} | small(inner, special.get(part, {}))
    found = {name: value for name, value in found.items() if value is not None}
    if (types := own.get("layer_types")) and "layer_types" not in found:
        seen, depth = list(dict.fromkeys(types)), found.get("num_hidden_layers", 4)
        found["layer_types"] = (seen * depth)[:depth]
    return found


def model_of(kind: str) -> Any:
    """A random model as it is loaded; ValueError for one that is not small."""
    config = config_of(kind)
    with torch.device("meta"):
        count = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST:
        raise ValueError(f"too large: {count / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and not name.endswith(("A_log", "dt_bias")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
        elif parameter.dim() == 1 and not name.endswith(("A_log", "dt_bias", "time_decay", "time_first")):
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    with tempfile.TemporaryDirectory() as folder:  # as a user's is: loading ties, and clears the padding's row
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder).eval()
