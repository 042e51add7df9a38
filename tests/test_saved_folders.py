"""What a pruned model's folder holds beside its pruned weights: all that the model's own folder held, as it was."""

import json

import pytest
import torch
import transformers

from experiments.models import saving
from experiments.models.load import load as load_model
from prune.network import Network
from prune.prune import prune
from tests.checkpoints import configure
from tests.tiny import Memory, network, tokens, wanda

KEPT = {
    "preprocessor_config.json": "{}",
    "processor_config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tools.jinja": "{{ tools }}",
    "generation_config.json": '{"do_sample": false, "temperature": 0.5}',  # read by transformers, and not written
    "LICENSE": "to kill",
    "modeling_own.py": "",
}
LEFT = {
    "README.md": "of the dense model",
    "pytorch_model.bin.index.json": "{}",
    "pruning_manifest.json": "{}",
    "training_args.bin": "",
}
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "max_position_embeddings": 64,
}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}


def load(folder, dtype="auto"):
    return load_model(str(folder), None, dtype, False, None, 4, "cpu")


def theirs(folder, **options):
    return Network(transformers.AutoModelForCausalLM.from_pretrained(folder, **options), batch=4)


def saved(folder, place, dtype="auto"):
    """The folder's model pruned and saved; what transformers makes of it has the same losses as ours."""
    subject = load(folder, dtype)
    list(prune(subject, tokens(), wanda(), done=Memory()))
    saving.save(subject, place)
    assert torch.equal(theirs(place).losses(tokens()), subject.losses(tokens()))
    return place


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_every_file_that_belongs_to_the_model_is_kept_as_it_was(tmp_path, family):
    network(family).model.save_pretrained(tmp_path / "dense")
    for name, content in (KEPT | LEFT).items():
        (tmp_path / "dense" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "dense" / name).write_text(content)
    place = saved(tmp_path / "dense", tmp_path / "pruned")
    assert {name: (place / name).read_text() for name in KEPT} == KEPT
    assert not [name for name in LEFT if (place / name).exists() and (place / name).read_text() == LEFT[name]]


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_without_generation_settings_none_are_made_up(tmp_path, family):
    network(family).model.save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "generation_config.json").unlink()
    place = saved(tmp_path / "dense", tmp_path / "pruned")
    assert not (place / "generation_config.json").exists()
    assert theirs(place).model.generation_config.pad_token_id == 0, "as the dense model's config.json has it"


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize(
    "odd", [{"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": False}, {"torchscript": True}]
)
def test_what_a_forward_pass_is_to_return_changes_no_number_and_is_kept(tmp_path, family, odd):
    network(family).model.save_pretrained(tmp_path / "dense")
    right = load(tmp_path / "dense").losses(tokens())
    configure(tmp_path / "dense", **odd, of_their_own=[1, 2])
    assert torch.equal(load(tmp_path / "dense").losses(tokens()), right)
    subject = load(tmp_path / "dense")
    saving.save(subject, tmp_path / "pruned")
    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert config == json.loads((tmp_path / "dense" / "config.json").read_text())
    assert torch.equal(load(tmp_path / "pruned").losses(tokens()), right)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_the_dtype_that_was_asked_for_is_the_saved_models(tmp_path, family):
    network(family).model.save_pretrained(tmp_path / "dense")
    configure(tmp_path / "dense", dtype=None, torch_dtype="float32")
    place = saved(tmp_path / "dense", tmp_path / "pruned", "bfloat16")
    config = json.loads((place / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config
    assert load(place).model.dtype is torch.bfloat16


def test_a_published_composite_is_pruned_as_the_language_model_it_makes_and_saved_with_its_vision_tower(tmp_path):
    config = transformers.Qwen3_5Config(text_config=TEXT, vision_config=VISION)
    whole = transformers.Qwen3_5ForConditionalGeneration
    torch.manual_seed(0)
    dense = whole(config)
    dense.save_pretrained(tmp_path / "dense")
    assert torch.equal(load(tmp_path / "dense").losses(tokens()), theirs(tmp_path / "dense").losses(tokens()))
    place = saved(tmp_path / "dense", tmp_path / "pruned")
    again, told = whole.from_pretrained(place, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    tower = dense.model.visual.state_dict()
    assert all(torch.equal(again.model.visual.state_dict()[name], tensor) for name, tensor in tower.items())
