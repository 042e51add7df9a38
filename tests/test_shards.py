"""A model read from its files block by block computes what the whole one does, with one block in memory."""

import gc
import json

import pytest
import torch
import transformers

from experiments.models import saving
from experiments.models.load import load as load_model
from experiments.models.stored import INDEX
from prune.home import Host
from prune.network import Network
from prune.prune import prune
from prune.states import Place, States
from tests.tiny import FAMILIES, Memory, network, random, sparsegpt, tokens, wanda

WHOLE = ("mixtral", "gpt_oss")  # loading fuses experts that are stored one by one; norms stay in float32


def load(folder, dtype="auto"):
    return load_model(str(folder), None, dtype, False, None, 4, "cpu")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """The name of a family, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp(request.param)
    network(request.param).model.save_pretrained(folder)
    return request.param, folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_computes_what_the_whole_model_computes(family, dtype):
    name, folder = family
    streamed = load(folder, dtype)
    whole = Network(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), batch=4)
    assert isinstance(streamed.home, Host) == (name in WHOLE)
    assert torch.equal(streamed.losses(tokens()), whole.losses(tokens()))
    with streamed.resident(), torch.no_grad():
        assert torch.equal(streamed.model(tokens()).logits, whole.model(tokens()).logits)
    buffers = dict(whole.model.named_buffers())
    for place, buffer in streamed.model.named_buffers():
        assert buffer.dtype == buffers[place].dtype and torch.equal(buffer, buffers[place])


def test_pruning_it_gives_the_same_bits_and_its_checkpoint_loads_again(family, tmp_path):
    name, folder = family
    streamed, whole = load(folder), Network(transformers.AutoModelForCausalLM.from_pretrained(folder), batch=4)
    solved = [list(prune(each, tokens(), sparsegpt(), done=Memory())) for each in (streamed, whole)]
    for ours, theirs in zip(*solved, strict=True):
        assert all(torch.equal(p.weight, theirs.linears[full].weight) for full, p in ours.linears.items())
    assert torch.equal(streamed.losses(tokens()), whole.losses(tokens())), "the solved blocks take their place"
    saving.save(streamed, tmp_path / "model")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(Network(again, batch=4).losses(tokens()), whole.losses(tokens()))
    if name not in WHOLE:
        index = json.loads((tmp_path / "model" / INDEX).read_text())
        assert len(set(index["weight_map"].values())) == 4, "a file for each block and one for the rest"


def test_one_block_is_in_memory_at_a_time(tmp_path):
    network().model.save_pretrained(tmp_path)
    subject, there = load(tmp_path), []
    for _ in prune(subject, tokens(), wanda(), done=Memory()):
        gc.collect()
        there.append({name.split(".")[2] for name, p in subject.model.named_parameters() if not p.is_meta})
    assert there == [{"0"}, {"1"}, {"2"}], "the solution is told while its block is there; embedding and head are not"
    assert all(parameter.is_meta for parameter in subject.model.parameters())


def test_without_a_store_nothing_is_pruned_that_would_be_lost(tmp_path):
    network().model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="needs a store"):
        next(prune(load(tmp_path), tokens(), wanda()))


@pytest.mark.parametrize("activations", ["host", "disk"])
@pytest.mark.parametrize("settings", [{}, {"propagate": "dense"}, {"granularity": "sequential"}])
def test_states_that_wait_elsewhere_change_no_bit(tmp_path, activations, settings):
    found = []
    for place in ("device", activations):
        subject = network()
        subject.activations, subject.scratch = place, str(tmp_path)
        solved = list(prune(subject, tokens(7), sparsegpt(), **settings))
        found.append([(one.error, [p.weight for p in one.linears.values()]) for one in solved])
        found[-1].append((subject.losses(tokens(7)).tolist(), []))
    for (error, weights), (error_there, weights_there) in zip(*found, strict=True):
        assert error == error_there and all(map(torch.equal, weights, weights_there))


@pytest.mark.parametrize("activations", ["device", "host", "disk"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_come_back_as_they_were(activations, dtype):
    kept = [random(2, 3, 5, seed=k).to(dtype) for k in range(3)] + [random(1, 3, 5).to(dtype)]
    states = States(Place(torch.device("cpu"), activations), kept)
    assert all(map(torch.equal, states, kept))
    states[1] = kept[2]
    assert all(map(torch.equal, states, [kept[0], kept[2], kept[2], kept[3]]))
    assert torch.equal(states.take(3), kept[3])


def test_a_folder_without_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("prune.states.disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    states = States(Place(torch.device("cpu"), "disk", str(tmp_path)))
    states.reserve(1, torch.empty(2**18, device="meta"))
    with pytest.raises(ValueError, match=r"one layer of hidden states, 0.00 GiB, found 0.00"):
        states.reserve(2, torch.empty(2**18, device="meta"))
