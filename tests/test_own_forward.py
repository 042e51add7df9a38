"""A walk is held against the model's own forward: what runs otherwise than block after block is refused in one line."""

import pytest
import torch

from experiments.models.load import load
from experiments.planning.anatomy import dissect
from prune.network import Network
from prune.prune import prune
from tests import zoo
from tests.strange import Block, Strange, one_after_the_other
from tests.tiny import Memory, network, tokens, wanda


def scaled(blocks, x):
    for block in blocks:
        x = block(x * 0.5)
    return x


def scaled_in_place(blocks, x):
    for block in blocks:
        x = block(x).mul_(0.5)
    return x


def backwards(blocks, x):
    for block in reversed(blocks):
        x = block(x)
    return x


def without_the_last(blocks, x):
    return one_after_the_other(blocks[:-1], x)


def twice(blocks, x):
    for block in blocks:
        x = block(block(x))
    return x


REFUSED = {
    scaled: "computes something between its blocks 0 and 1",
    scaled_in_place: "computes something between its blocks 0 and 1",
    backwards: "calls block 2 where 0 would be next",
    without_the_last: "calls 2 of its 3 blocks",
    twice: "calls block 0 where 1 would be next",
}


@pytest.mark.parametrize("run", REFUSED)
def test_a_model_that_does_more_than_call_its_blocks_in_order_is_refused_by_run_and_plan(run):
    with pytest.raises(ValueError, match=f"Strange {REFUSED[run]}.*set model.blocks"):
        Network(Strange(run)).losses(tokens())
    with torch.device("meta"):
        bare = Strange(run)
    with pytest.raises(ValueError, match=f"Strange {REFUSED[run]}.*set model.blocks"):
        dissect(Network(bare), 16)


class Box:
    """A store of a model's own that is no dict; `first` to come stays, or the last."""

    def __init__(self, first: bool) -> None:
        self.first, self.kept = first, None

    def setdefault(self, _, value):
        self.kept = self.kept if self.kept and self.first else value
        return self.kept


def first_stays(blocks, x):
    box = Box(True)
    for block in blocks:
        x = block(x, box)
    return x


def last_stays(blocks, x):
    box = Box(False)
    x = blocks[0](x, box)
    box.first = True
    for block in blocks[1:]:
        x = block(x, box)
    return x


def skips(blocks, x):
    first = blocks[0](x)
    return one_after_the_other(blocks[1:], first) + first


def turned(blocks, x):
    return one_after_the_other(blocks, x.transpose(0, 1)).transpose(0, 1)


def test_a_hidden_state_that_is_no_batch_of_sequences_is_refused():
    refusal = r"Strange: its blocks \(model.blocks\) are given \[.*\] for 1 sequences"
    with pytest.raises(ValueError, match=refusal):
        Network(Strange(turned), batch=2).losses(tokens())
    with torch.device("meta"):
        bare = Strange(turned)
    with pytest.raises(ValueError, match=refusal):
        dissect(Network(bare), 16)


class Streams(Block):
    """Takes a state of several streams, whose axis it is told; each is run on its own, and then they are mixed."""

    def __init__(self, axis):
        super().__init__(32)
        self.axis = axis

    def forward(self, hidden_states):
        one, other = (super(Streams, self).forward(stream) for stream in hidden_states.unbind(self.axis))
        return torch.stack([one, other + 0.5 * one], self.axis)


@pytest.mark.parametrize("batch", [1, 2, 3])  # as many sequences as streams, too
@pytest.mark.parametrize("axis", [0, 2])  # before the sequences, as Gemma 3n's, or after the tokens, as DeepSeek V4's
def test_a_hidden_state_of_several_streams_is_walked_wherever_its_sequences_are(axis, batch):
    streams = lambda blocks, x: one_after_the_other(blocks, torch.stack([x, -x], axis)).mean(axis)
    model = Strange(streams, [Streams(axis) for _ in range(3)])
    torch.testing.assert_close(Network(model, batch=batch).losses(tokens()), zoo.losses(model, tokens()))
    with torch.device("meta"):
        bare = Strange(streams, [Streams(axis) for _ in range(3)])
    assert dissect(Network(bare), 16).sizes.hidden == 64


class Returns(Block):
    """Returns None so often beside its state."""

    def __init__(self, times):
        super().__init__(32)
        self.times = times

    def forward(self, hidden_states):
        return super().forward(hidden_states), *[None] * self.times


def unpacks(blocks, x):
    x, _ = blocks[0](x)
    x, _, _ = blocks[1](x)
    return x


def test_code_that_fails_when_its_blocks_are_taken_apart_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"Strange runs as a whole, but not block by block \(model.blocks: not enough"):
        Network(Strange(unpacks, [Returns(1), Returns(2)], num_hidden_layers=2)).losses(tokens())


class InPlace(Block):
    def forward(self, hidden_states):
        return hidden_states.add_(super().forward(hidden_states))


@pytest.mark.parametrize("run", [first_stays, last_stays, skips])
def test_a_model_whose_own_forward_gives_other_logits_is_refused(run):
    with pytest.raises(
        ValueError, match=r"Strange: walked block by block \(model.blocks\), its logits are [0-9.]+% off"
    ):
        Network(Strange(run)).losses(tokens())


def test_a_block_that_writes_into_its_input_is_refused():
    subject = Network(Strange(blocks=[InPlace(32) for _ in range(3)]))
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match="walked block by block"):
            subject.losses(tokens())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_walk_is_held_against_the_models_own_forward_wherever_its_weights_are(streamed, tmp_path):
    network().model.save_pretrained(tmp_path)
    subject = load(str(tmp_path), None, "auto", False, None, 4, "cpu") if streamed else network()
    subject.losses(tokens())
    assert subject.held
    kept, subject.held = [], False
    subject.blocks[0].register_forward_hook(lambda _, args, output: kept.append(output))
    subject.model.model.norm.register_forward_pre_hook(lambda _, args: args[0] + kept[-1])
    with pytest.raises(ValueError, match=r"LlamaForCausalLM: walked block by block \(model.layers\)"):
        next(prune(subject, tokens(), wanda(), done=Memory()))
    assert streamed == all(parameter.is_meta for parameter in subject.model.parameters())


class BothWays(Block):
    """Tells every token the mean of all."""

    def forward(self, hidden_states):
        return super().forward(hidden_states) + hidden_states.mean(1, keepdim=True)


@pytest.mark.parametrize("where", range(3))
def test_a_block_that_shows_tokens_the_later_ones_is_refused_wherever_it_is(where):
    blocks = [BothWays(32) if k == where else Block(32) for k in range(3)]
    with pytest.raises(ValueError, match=rf"Strange shows tokens the later ones \(model.blocks.{where}\)"):
        Network(Strange(one_after_the_other, blocks)).losses(tokens())
