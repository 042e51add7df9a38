"""Model folders as people have them: read as transformers reads them, with a line, or refused in one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from experiments.models import location
from experiments.models.load import load as load_model
from prune.network import Network
from tests.checkpoints import Q, configure, edit, shard
from tests.tiny import network, tokens

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OLD = {  # family -> where its checkpoints of some years ago have masks, and their shapes
    "GPTJ": {"transformer.h.0.attn.bias": (1, 1, 8, 8), "transformer.h.0.attn.masked_bias": ()},
    "CodeGen": {"transformer.h.1.attn.causal_mask": (1, 1, 8, 8), "transformer.h.1.attn.bias": (1, 1, 8, 8)},
    "GPTNeo": {"transformer.h.0.attn.attention.bias": (1, 1, 8, 8), "transformer.h.0.attn.attention.masked_bias": (1,)},
    "GPTNeoX": {"gpt_neox.layers.0.attention.bias": (1, 1, 8, 8), "gpt_neox.layers.0.attention.masked_bias": ()},
}
SMALL = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
SMALL |= {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64, "num_hidden_layers": 2}
SMALL |= {"attention_types": [[["global"], 2]], "num_attention_heads": 4, "intermediate_size": 64}


def load(folder, trust=False):
    return load_model(str(folder), None, "auto", trust, None, 4, "cpu")


def refusal(folder):
    """What loading says instead of loading."""
    with pytest.raises((ValueError, OSError)) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders") / "llama"
    network().model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a sound Llama to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


def test_an_adapter_is_refused_alone_and_beside_a_model_for_transformers_would_apply_it(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "owner/base"}')
    said = refusal(folder)
    assert "adapter_config.json lies beside the model" in said and "merge_and_unload" in said
    (folder / "config.json").unlink()
    assert "an adapter of owner/base" in refusal(folder)


def packed(tensors):
    """A matrix as GPTQ packs it."""
    tensors.pop(Q)
    part = Q.removesuffix("weight")
    tensors |= {f"{part}qweight": torch.ones(4, 32, dtype=torch.int32), f"{part}scales": torch.ones(1, 32)}


def fp8(tensors):
    tensors[Q] = tensors[Q].to(torch.float8_e4m3fn)
    tensors[f"{Q}_scale_inv"] = torch.ones(1, 1)


def blocked(tensors):
    """What bitsandbytes writes beside a matrix of four bits."""
    tensors[Q] = torch.ones(512, 1, dtype=torch.uint8)
    tensors |= {f"{Q}.absmax": torch.ones(16), f"{Q}.quant_map": torch.ones(16)}


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (fp8, {"quant_method": "fp8"}, "quantised (fp8): dequantise it first"),
        (packed, {"quant_method": "gptq", "bits": 4}, "quantised (gptq): dequantise it first"),
        (packed, {"quant_method": "awq"}, "quantised (awq): dequantise it first"),
        (blocked, {"load_in_4bit": True}, "quantised (bitsandbytes): dequantise it first"),
        (fp8, None, f"quantised ({Q} is F8_E4M3): dequantise it first"),
        (packed, None, "qweight is I32): dequantise it first"),
        (lambda tensors: None, {"quant_method": "gptq"}, "asks for quantisation (gptq), but the weights are plain"),
    ],
)
def test_quantised_weights_and_what_is_left_of_quantising_are_one_line(folder, change, config, words):
    edit(folder, change)
    asked = {"quantization_config": config}
    for settings in (asked, {"quantization_config": None, "text_config": asked}):
        configure(folder, **settings)
        assert words in refusal(folder)


@pytest.mark.parametrize("family", OLD)
def test_masks_of_an_older_transformers_are_not_read_and_said(tmp_path, caplog, family):
    config = getattr(transformers, f"{family}Config")(**SMALL)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
    masks = {name: torch.ones(shape) for name, shape in OLD[family].items()}
    edit(tmp_path, lambda tensors: tensors.update(masks))
    theirs = Network(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), batch=4)
    assert torch.equal(load(tmp_path).losses(tokens()), theirs.losses(tokens()))
    assert f"{len(masks)} tables and masks of an older transformers are not read" in caplog.text
    edit(tmp_path, lambda tensors: tensors.update({next(iter(masks)): torch.ones(32)}))
    if family != "GPTNeoX":  # which ignores it under any shape
        assert "1 tensors unexpected" in refusal(tmp_path)


def below(folder):
    places = shard(folder, [Q])
    (folder / "weights").mkdir()
    for name in set(places.values()):
        (folder / name).rename(folder / "weights" / name)
    places = {name: f"weights/{file}" for name, file in places.items()}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def named(folder):
    (folder / SINGLE).rename(folder / "mine.safetensors")
    configure(folder, transformers_weights="mine.safetensors")


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("change", [below, named])
def test_weights_under_other_names_are_read_block_by_block_and_whole(tmp_path, change, family):
    network(family).model.save_pretrained(tmp_path)
    right = load(tmp_path).losses(tokens())
    change(tmp_path)
    assert torch.equal(load(tmp_path).losses(tokens()), right)


def test_a_tokenizer_may_have_a_few_ids_more_than_the_embedding(tmp_path, caplog):
    shutil.copytree(location.located("demo"), tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 2048, "content": "<pad>"})
    file.write_text(json.dumps(content))
    subject = load(tmp_path / "model")
    assert len(subject.processor) == 2049
    assert "1 of the tokenizer's ids, up to 2048, are beyond the 2048 that the model embeds" in caplog.text
    with pytest.raises(ValueError, match="token ids 1 to 2048"):
        subject.readable(torch.tensor([[1, 2048]]))


def test_code_of_its_own_is_allowed_by_a_setting_that_the_refusal_names(folder):
    configure(folder, model_type="mine" * 60, auto_map={"AutoConfig": "modeling_mine.Config"})
    (folder / "modeling_mine.py").write_text("")
    assert "model.trust_remote_code=true" in refusal(folder)
