"""What a run refuses of a model, its plan refuses too, in the same line; encoders have no perplexity."""

import pytest
import torch
import transformers

from experiments.models.load import causal, empty, load, made_up
from experiments.models.skeleton import skeleton
from experiments.planning import outlook
from tests.checkpoints import HEAD, Q, configure, edit
from tests.tiny import FAMILIES, SIZES, network

ENCODERS = ["Bert", "Roberta", "Electra", "Camembert", "RoFormer", "MegatronBert", "XLMRobertaXL", "Ernie"]
SPOILED = {
    "a tensor is missing": lambda folder: edit(folder, lambda tensors: tensors.pop(Q)),
    "quantised": lambda folder: edit(folder, lambda t: t.update({Q: t[Q].to(torch.float8_e4m3fn)})),
    "an adapter": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "pickled": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "broken": lambda folder: (folder / "model.safetensors").write_bytes(b"?"),
    "no type": lambda folder: (folder / "config.json").write_text("{}"),
    "no tokenizer of its own": lambda folder: (folder / "tokenizer.json").write_text(
        '{"model": {"vocab": {"a": 99, "b": 98, "c": 97, "d": 96, "e": 100, "f": 101, "g": 102, "h": 103, "i": 104}}}'
    ),
}


def said(look, *asked):
    with pytest.raises((ValueError, OSError)) as caught:
        look(*asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoder(kind, folder, **changes):
    """A tiny model of an encoder's family, saved."""
    sizes = SIZES | {"embedding_size": 32, "num_hidden_layers": 2} | changes
    config = getattr(transformers, f"{kind}Config")(**sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def model(folder):
    """The settings of a model, as a plan keeps their body."""
    settings = {"revision": None, "dtype": "auto", "trust_remote_code": False, "blocks": None, "routers": False}
    return tuple(({"path": str(folder)} | settings).items())


@pytest.mark.parametrize("name", SPOILED)
def test_a_plan_refuses_what_loading_refuses_in_the_same_words(tmp_path, name):
    network().model.save_pretrained(tmp_path / "model")
    place = str(tmp_path / "model")
    SPOILED[name](tmp_path / "model")
    refused = said(outlook.body, model(place), 8)
    assert refused == said(load, place, None, "auto", False, None, 4, "cpu")


def test_a_plan_does_without_weights_and_counts_a_head_that_the_files_hold(tmp_path):
    network().model.save_pretrained(tmp_path)
    configure(tmp_path, tie_word_embeddings=True)
    size = lambda: outlook.body.__wrapped__(model(tmp_path), 8).size
    untied = size()
    edit(tmp_path, lambda tensors: tensors.pop(HEAD))
    assert untied - size() == 96 * 32 * 4
    (tmp_path / "model.safetensors").unlink()
    assert untied - size() == 96 * 32 * 4


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_refused_before_a_weight_is_read_and_as_a_decoder_it_is_not(tmp_path, kind):
    encoder(kind, tmp_path / "both")
    refused = said(empty, str(tmp_path / "both"), None, "auto", False)
    assert "as encoders do" in refused and "has no perplexity" in refused
    assert refused == said(load, str(tmp_path / "both"), None, "auto", False, None, 4, "cpu")
    encoder(kind, tmp_path / "causal", is_decoder=True)
    load(str(tmp_path / "causal"), None, "auto", False, None, 4, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_a_model_is_causal_is_what_its_own_forward_shows(tmp_path, family):
    subject = network(family)
    subject.model.save_pretrained(tmp_path)
    one, other = subject.model(torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])).logits[:, :-1]
    assert torch.allclose(one, other, atol=1e-5)
    model = skeleton(str(tmp_path), None, "bfloat16", False)
    before = dict(model.named_parameters(remove_duplicate=False))
    assert causal(model, None)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter for name, parameter in before.items()), "the model is left as it was"


def test_made_up_numbers_take_the_memory_of_a_few_rows_and_make_a_matrix_of_full_rank():
    numbers = made_up(torch.Size([4096, 4096]))
    assert numbers.shape == (4096, 4096) and numbers.untyped_storage().nbytes() < 2**17
    assert torch.linalg.matrix_rank(made_up(torch.Size([64, 48]))) == 48
