"""Weights that config.json ties: what the files hold decides, as it does where transformers loads them."""

import pytest
import torch
import transformers
from safetensors import safe_open

from experiments.models import saving
from experiments.models.load import load
from experiments.models.skeleton import skeleton
from experiments.models.stored import contents
from prune.network import Network
from prune.prune import prune
from tests.checkpoints import EMBED, HEAD, configure, edit
from tests.tiny import Memory, network, tokens, wanda

STORED = {  # what the files hold of a model that is saved with a head of its own -> whether the two are one parameter
    "both, which differ": (lambda tensors: None, False),
    "both, which are equal": (lambda tensors: tensors.update({HEAD: tensors[EMBED].clone()}), True),
    "the embedding alone": (lambda tensors: tensors.pop(HEAD), True),
    "the head alone": (lambda tensors: tensors.pop(EMBED), True),
}


def theirs(folder):
    """The model as transformers loads it."""
    return Network(transformers.AutoModelForCausalLM.from_pretrained(folder), batch=4)


@pytest.fixture(params=STORED)
def case(request, tmp_path):
    """A folder whose config.json ties what its files may not, and whether they do."""
    change, tied = STORED[request.param]
    network().model.save_pretrained(tmp_path)
    configure(tmp_path, tie_word_embeddings=True)
    edit(tmp_path, change)
    return tmp_path, tied


def test_it_is_loaded_pruned_and_saved_as_transformers_does(case, tmp_path):
    folder, tied = case
    ours, whole = load(str(folder), None, "auto", False, None, 4, "cpu"), theirs(folder)
    with ours.resident():
        assert (ours.model.lm_head.weight is ours.model.get_input_embeddings().weight) == tied
    assert torch.equal(ours.losses(tokens()), whole.losses(tokens()))
    for each in (ours, whole):
        list(prune(each, tokens(), wanda(), done=Memory()))
    saving.save(ours, tmp_path / "saved")
    assert torch.equal(theirs(tmp_path / "saved").losses(tokens()), whole.losses(tokens()))


def test_the_model_without_weights_is_as_large_as_the_one_that_is_loaded(case):
    folder, _ = case
    empty = skeleton(str(folder), None, None, False, contents(folder))
    assert empty.num_parameters() == theirs(folder).model.num_parameters()


def test_a_head_that_is_kept_against_config_json_is_said_once(tmp_path, caplog):
    network().model.save_pretrained(tmp_path)
    configure(tmp_path, tie_word_embeddings=True)
    for _ in range(2):
        load(str(tmp_path), None, "auto", False, None, 4, "cpu")
    assert caplog.text.count("lm_head.weight kept as stored") == 1


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_values_that_one_dtype_tells_apart_are_tied_in_a_coarser_one_as_transformers_ties_them(tmp_path, change):
    network().model.save_pretrained(tmp_path)
    configure(tmp_path, tie_word_embeddings=True)
    edit(tmp_path, lambda tensors: tensors.update({HEAD: tensors[EMBED] * (1 + change)}))
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor(HEAD), stored.get_tensor(EMBED)) == (change == 0)
    for dtype in ("float32", "bfloat16"):
        ours = load(str(tmp_path), None, dtype, False, None, 4, "cpu")
        whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert torch.equal(ours.losses(tokens()), Network(whole, batch=4).losses(tokens()))
