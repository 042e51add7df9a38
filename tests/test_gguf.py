"""A GGUF file is a model like any folder: unpacked once, to the numbers that its blocks stand for."""

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants

from experiments.composing.job import name_model
from experiments.models import location
from experiments.models.load import load
from prune import ranks

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed: pip install gguf")
convert = pytest.importorskip("experiments.models.gguf").convert
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WORDS = ["<|endoftext|>", "a", "b", "ab", *(f"w{number}" for number in range(60))]


@pytest.fixture(scope="module")
def model():
    """A random Llama with two key heads for four, and a head of its own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(WORDS), rms_norm_eps=1e-5)
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Unpacked models lie in a folder of the test."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))


def stored_as(name, weight, heads):
    """A weight as llama.cpp keeps it: the halves of each query and key head interleaved."""
    if name not in ("attn_q", "attn_k"):
        return weight
    return weight.reshape(heads[name], 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(model, file, kind):
    """The model as a GGUF file with the matrices of its blocks in this type."""
    config, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    plain = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    for name, weight in model.state_dict().items():
        if name in plain:
            writer.add_tensor(f"{plain[name]}.weight", weight.numpy())
            continue
        depth, short = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
        array = np.ascontiguousarray(stored_as(NAMES[short], weight.numpy(), heads))
        packed = array if array.ndim == 1 else gguf.quants.quantize(array, kind)
        writer.add_tensor(f"blk.{depth}.{NAMES[short]}.weight", packed, raw_dtype=None if array.ndim == 1 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def expected(name, weight, kind):
    """What the file's blocks stand for: the weight itself, or the nearest multiples of a scale for 32 weights each."""
    if kind == gguf.GGMLQuantizationType.F32 or "layers" not in name or weight.dim() == 1:
        return weight
    groups = weight.reshape(-1, 32)
    scale = groups.abs().amax(1, keepdim=True) / 127
    return ((groups / scale).round() * scale.half().float()).reshape(weight.shape)


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_the_folder_has_the_numbers_that_the_blocks_of_the_file_stand_for(model, tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    file = write(model, tmp_path / "tiny.gguf", kind)
    convert(file, tmp_path / "folder")
    read = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32)
    assert not hasattr(read.config, "quantization_config")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], expected(name, weight, kind), rtol=1e-3, atol=1e-7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer("ab").input_ids == [WORDS.index("ab")]


@pytest.mark.slow
def test_a_file_is_unpacked_once_and_known_by_its_content_wherever_it_lies(model, tmp_path, caplog):
    file = write(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    first = location.located(str(file))
    times = [path.stat().st_mtime_ns for path in first.iterdir()]
    moved = file.rename(tmp_path / "tiny.q4.gguf")
    (tmp_path / "link.gguf").symlink_to(moved)
    assert location.fingerprint(str(moved), None) == location.fingerprint(str(first), None)
    assert location.fingerprint(str(tmp_path / "link.gguf"), None) == location.fingerprint(str(first), None)
    assert [path.stat().st_mtime_ns for path in first.iterdir()] == times
    assert len([*first.parent.glob("*/config.json")]) == 1
    assert "dequantised numbers" in caplog.text
    assert name_model(str(moved)) == "tiny.q4"
    assert load(str(moved), None, "auto", False, None, 1, "cpu").blocks[0] is not None


def test_a_rank_finds_the_folder_without_the_others(tmp_path, monkeypatch):
    """The first one alone asks where a model lies when it names a run."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(location, "unpack", lambda _, folder: folder.mkdir())
    monkeypatch.setattr(ranks, "everyone", lambda _: pytest.fail("waits for the others"))
    assert location.located(str(tmp_path / "x.gguf")).is_dir()


def test_what_is_no_gguf_file_is_refused_in_one_line_that_names_it(tmp_path):
    file = tmp_path / "note.gguf"
    file.write_text("a note")
    with pytest.raises(ValueError, match=rf"model\.path={file}: no GGUF file"):
        location.located(str(file))


def test_a_folder_with_nothing_but_a_gguf_file_is_answered_with_that_file(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.gguf").touch()
    with pytest.raises(FileNotFoundError, match=r"or .*model/x\.gguf itself"):
        load(str(tmp_path / "model"), None, "auto", False, None, 1, "cpu")


def test_smollm2_without_its_package_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(location, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        location.located("smollm2")
