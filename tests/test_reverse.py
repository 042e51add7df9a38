"""A backward pass that recomputes block after block, against the plain one through the whole model."""

import pytest
import torch

from experiments.planning.counting import count
from prune import reverse
from prune.part import Part
from prune.statistics.gradient import LossGradient
from prune.statistics.trace import HessianTrace
from tests.tiny import FAMILIES, network, tokens


def plain(subject, data):
    """The gradient of every sequence's loss by Hugging Face's own forward, [sequences] of full name -> [o, i]."""
    model, found = subject.model.requires_grad_(True), []
    for row in data:
        model.zero_grad()
        model(input_ids=row[None], labels=row[None], use_cache=False).loss.backward()
        slopes = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
        found.append({name: m.of(slopes[m.parameter]).clone() for name, m in subject.matrices().items()})
    model.requires_grad_(False)
    return found


def ours(subject, data):
    found = [{} for _ in data]
    for block, sequences in reverse.backward(subject, data):
        for all_blocks, gradients in zip(found, sequences, strict=True):
            all_blocks |= {block.full_name(name): g for name, g in gradients.items()}
    return found


def apart(one, other):
    return ((one - other).norm() / other.norm()).item() if other.norm() else one.norm().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_a_plain_backward_of_the_model(family):
    subject, data = network(family), tokens(3)
    for found, expected in zip(ours(subject, data), plain(subject, data), strict=True):
        assert found.keys() == expected.keys()
        assert max(apart(found[name], expected[name]) for name in expected) < 1e-5
        assert any(g.norm() > 0 for g in expected.values())


def test_a_block_runs_once_forward_and_once_more_backward_for_each_sequence():
    subject, data = network(batch=2), tokens(3)
    ours(subject, data)  # the family's way to return its state is looked up once, at the cost of one run
    runs = []
    for index, module in enumerate(subject.blocks):
        module.mlp.register_forward_hook(lambda *_, index=index: runs.append(index))
    ours(subject, data)
    assert runs == [index for index in (0, 1, 2, 2, 1, 0) for _ in data]


@pytest.mark.parametrize(("statistic", "times"), [(LossGradient(), 2.5), (HessianTrace(sequences=3), 3.2)])
def test_a_pass_back_holds_the_gradients_of_one_sequence_and_what_they_are_made_into(statistic, times):
    """Sums and gradients; or directions, products and one matrix's half of a product: times a block in float32."""
    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4, "num_key_value_heads": 4}
    subject, data = network(**sizes), tokens(3)
    block = 4 * sum(matrix.numel() for matrix in subject.weights().values()) / len(subject.blocks)

    def run():
        for _ in statistic.of(subject, data):
            del _  # a run writes them to files

    assert count(run)[1].peak < times * block


def test_states_in_files_give_the_same_gradients_and_the_folder_is_left_empty(tmp_path):
    subject, data = network(), tokens(3)
    expected = ours(subject, data)
    subject.scratch, seen = str(tmp_path), []
    for block, sequences in reverse.backward(subject, data):
        assert not list(tmp_path.iterdir()), "not even a crash leaves a file behind"
        for one, gradients in zip(expected, sequences, strict=True):
            seen += [torch.equal(one[block.full_name(name)], g) for name, g in gradients.items()]
    assert all(seen) and len(seen) == 3 * len(expected[0])


def test_a_folder_without_room_is_refused_in_one_line(tmp_path, monkeypatch):
    subject = network()
    subject.scratch = str(tmp_path)
    monkeypatch.setattr(reverse.shutil, "disk_usage", lambda folder: type("", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"expected room .* found 0.00; .* scratch: null"):
        next(reverse.backward(subject, tokens(3)))
    assert not list(tmp_path.iterdir())


def test_what_the_caller_leaves_of_a_block_is_run_all_the_same():
    subject, data = network(), tokens(3)
    expected, first = ours(subject, data)[0], {}
    for block, sequences in reverse.backward(subject, data):
        first |= {block.full_name(name): g for name, g in next(sequences).items()}
    assert all(torch.equal(first[name], g) for name, g in expected.items())


def test_the_dense_model_is_left_as_it_was():
    subject, data = network(), tokens(2)
    before = {name: p.clone() for name, p in subject.model.named_parameters()}
    with torch.no_grad():  # callers may hold it
        ours(subject, data)
    for name, p in subject.model.named_parameters():
        assert torch.equal(p, before[name]) and not p.requires_grad and p.grad is None


def test_an_objective_can_carry_more_than_the_hidden_state():
    class Doubled(reverse.Objective):
        """Two copies of the model, of which the second counts once more: the gradients are three times as large."""

        def beside(self, hidden):
            return (hidden.clone(),)

        def through(self, block, sequence, forward, states, weights):
            return tuple(forward(state, weights) for state in states)

        def value(self, loss, states):
            return loss(states[0]) + 2 * loss(states[1])

    subject, data = network(), tokens(2)
    expected = ours(subject, data)
    for block, sequences in reverse.backward(subject, data, Doubled()):
        for one, gradients in zip(expected, sequences, strict=True):
            for name, g in gradients.items():
                assert apart(g, 3 * one[block.full_name(name)]) < 1e-5


def test_a_part_deeper_than_the_block_is_not_taken_for_it():
    """All matrices of such a block lie in one of its children, whose output is not the block's."""

    class Silent(torch.nn.Module):
        def forward(self, hidden_states, **kwargs):
            return torch.zeros_like(hidden_states), None

    subject = network()
    for module in subject.blocks:
        module.self_attn = Silent()
    assert {Part(block, list(block.weights)).path for block in subject.walk()} == {"mlp"}
    for found, expected in zip(ours(subject, tokens(2)), plain(subject, tokens(2)), strict=True):
        assert max(apart(found[name], expected[name]) for name in expected) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "bloom"])
def test_gradients_on_a_gpu_are_those_of_the_cpu_and_all_goes_home(family):
    subject, data = network(family), tokens(2)
    expected = ours(subject, data)
    subject.device = torch.device("cuda")
    for block, sequences in reverse.backward(subject, data):
        for one, gradients in zip(expected, sequences, strict=True):
            for name, g in gradients.items():
                assert g.is_cuda and apart(g.cpu(), one[block.full_name(name)]) < 1e-3
    assert {p.device.type for p in subject.model.parameters()} == {"cpu"}
