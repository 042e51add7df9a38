"""Loading: a model is complete, from safetensors and the one that was asked for, or it is refused in one line."""

import inspect
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from experiments.data.windows import encode
from experiments.models import location, skeleton, stored
from experiments.models.load import load as load_model

ROOT = Path(__file__).parents[1]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a tiny random Llama whose head is not tied, without a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "llama"))


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No hub, and nothing in its cache."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def load(path, revision=None, dtype="auto"):
    return load_model(str(path), revision, dtype, False, None, 4, "cpu")


def edit(folder, change):
    """Rewrites the weights of a folder after `change(tensors)`."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def refused(path, *words, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("name", "limit"), [("babyllama-1m", 256), ("stories-260k", 512), ("wiki-llama-3m", 1024)])
def test_real_models_load_with_every_weight_of_their_file(shared, name, limit):
    folder = shared / "data" / "models" / name
    network = load(folder)
    stored = load_file(folder / "model.safetensors")
    assert all(parameter.is_meta for parameter in network.model.parameters()), "nothing is read before it is needed"
    with network.resident():
        state = network.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in stored.items())
        assert set(state) - set(stored) <= {"lm_head.weight"}
        assert network.model.lm_head.weight is network.model.get_input_embeddings().weight
    assert all(parameter.is_meta for parameter in network.model.parameters())
    assert network.limit == limit
    assert len(encode(network.processor, "Once upon a time")) > 2


def test_demo_is_the_embedded_folder():
    assert location.located("demo") == ROOT / "experiments" / "demo" / "model"
    assert load("demo").processor is not None


def test_the_dtype_is_the_checkpoints_own_unless_asked_for(folder):
    transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert load(folder).model.dtype is torch.bfloat16
    assert load(folder, dtype=None).model.dtype is torch.bfloat16
    assert load(folder, dtype="float32").model.dtype is torch.float32
    refused(folder, "model.dtype=half", "float16", dtype="half")


def test_experts_are_applied_one_at_a_time(tmp_path):
    config = transformers.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2)
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    assert load(tmp_path / "moe").model.config._experts_implementation == "eager"


def test_a_missing_tensor_is_named(folder):
    edit(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "1 tensors missing, which would be random: model.layers.1.mlp.up_proj.weight", "LlamaForCausalLM")


def test_a_missing_head_that_is_not_tied_is_named(folder):
    edit(folder, lambda tensors: tensors.pop("lm_head.weight"))
    refused(folder, "would be random: lm_head.weight")


def test_an_unexpected_tensor_is_named(folder):
    edit(folder, lambda tensors: tensors.update({"model.layers.0.mlp.extra.weight": torch.ones(2)}))
    refused(folder, "1 tensors unexpected: model.layers.0.mlp.extra.weight")


def test_a_tensor_of_another_shape_is_named(folder):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    refused(folder, "1 tensors of another shape: model.norm.weight")


def test_rotary_buffers_of_old_checkpoints_are_no_fault(folder):
    edit(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "expected model.safetensors", "pytorch_model.bin", "pickled")


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "expected model-00002-of-00002.safetensors;")


def test_broken_files_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"123")
    refused(folder, str(folder), "header")
    (folder / "config.json").write_text("{")
    refused(folder, "broken config.json")
    (folder / "config.json").unlink()
    refused(folder, "no config.json", kind=FileNotFoundError)


def test_what_is_no_causal_language_model_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "not-a-model"}))
    refused(folder, "not-a-model", "does not recognize")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    refused(folder, "T5Config", "AutoModelForCausalLM")


def test_a_path_that_is_no_folder_is_refused_before_the_hub_is_asked():
    for path in ("no-such-folder", "./no/folder", "/no/folder", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            stored.check(path)
    stored.check("facebook/opt-125m")


def test_an_unreachable_hub_is_one_line_with_the_way_out(offline):
    refused("facebook/opt-125m", "facebook/opt-125m", "model.path=FOLDER", "revision")


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(folder):
    assert load(folder).processor is None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(location.located("demo") / name, folder / name)
    refused(folder, "1984 of the tokenizer's ids, up to 2047", "64 that the model embeds")


def test_a_fingerprint_follows_the_content_and_not_the_place(saved, folder):
    before = location.fingerprint(str(folder), None)
    assert before == location.fingerprint(str(saved), "main")
    edit(folder, lambda tensors: tensors["lm_head.weight"][0, 0].add_(1))
    after = location.fingerprint(str(folder), None)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("128", "64"))
    assert len({before, after, location.fingerprint(str(folder), None)}) == 3
    (folder / "README.md").write_text("not a part of the model")
    assert location.fingerprint(str(saved), None) == before
    assert location.fingerprint("facebook/opt-125m", None) == "facebook/opt-125m@main"
    assert location.fingerprint("facebook/opt-125m", "abc") == "facebook/opt-125m@abc"


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "model").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_option_lists_every_parameter_of_load(file):
    config = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(config, dict)
    assert config.pop("_target_") == "experiments.models.load.load"
    assert set(config) == set(inspect.signature(load_model).parameters)
    assert "." not in file.stem
    assert config["dtype"] in skeleton.DTYPES
    assert config["trust_remote_code"] is False
    if file.stem == "local":
        assert OmegaConf.is_missing(OmegaConf.load(file), "path")
    elif config["path"] not in location.PROVIDED:
        assert location.located(config["path"]) is None  # a hub id
        assert config["revision"] in ("main", None) or len(config["revision"]) == 40
