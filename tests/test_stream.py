"""The walk: it shows every block what the model itself would show it, whatever the family, and forgets nothing."""

import gc

import pytest
import torch

from prune.network import Network
from prune.progress import shown_by
from prune.prune import prune
from tests.tiny import FAMILIES, Memory, magnitude, network, sparsegpt, tokens, wanda


@pytest.mark.parametrize("family", FAMILIES)
def test_the_walked_states_are_the_models_own(family):
    subject, data = network(family), tokens()
    walked = []
    for block in subject.walk(data):
        walked.append(torch.cat([call.hidden for call in block.calls]))
        block.advance()
        last = torch.cat([call.hidden for call in block.calls])
    own = []
    hooks = [
        module.register_forward_hook(
            lambda _, args, output: own.append(output if torch.is_tensor(output) else output[0])
        )
        for module in subject.blocks
    ]
    with torch.no_grad():
        logits = subject.model(data, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(torch.stack([*walked[1:], last]), torch.stack(own), rtol=1e-5, atol=1e-5)
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), data[:, 1:], reduction="none").mean(1)
    torch.testing.assert_close(subject.losses(data), losses, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3"])
def test_one_batch_is_walked_bit_for_bit(family):
    subject, data = network(family, batch=6), tokens()
    for block in subject.walk(data):
        block.advance()
        last = block.calls[0].hidden
    own = {}
    hook = subject.blocks[-1].register_forward_hook(lambda _, args, output: own.update(last=output))
    with torch.no_grad():
        subject.model(data, use_cache=False)
    hook.remove()
    assert torch.equal(last, own["last"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "granularity", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("block", "submodule")), "sequential"]
)
def test_every_matrix_of_the_blocks_is_pruned_or_reported(family, granularity):
    subject = network(family)
    solved = {n: p for s in prune(subject, tokens(), wanda(), granularity) for n, p in s.linears.items()}
    inside = {f"{subject.path}.{n}" for n, p in subject.blocks.named_parameters() if p.dim() > 1}
    assert {subject.matrices()[name].parameter for name in solved} | set(subject.skipped()) == inside
    assert all(torch.equal(subject.weights()[name], p.weight) for name, p in solved.items())


def test_linears_that_share_an_input_are_found_without_a_table():
    def groups(family):
        return [sorted(group) for group in next(network(family).walk(tokens())).siblings]

    attention = [["self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"]]
    assert groups("llama") == [*attention, ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
    assert groups("opt") == [*attention, ["self_attn.out_proj"], ["fc1"], ["fc2"]]
    assert [len(group) for group in groups("gpt_neox")] == [1, 1, 1, 1]
    assert all(len(group) == 1 for group in groups("mixtral")[2:])


def test_siblings_share_one_set_of_statistics():
    block = next(network().walk(tokens()))
    found = block.collect(wanda().inputs, block.weights)
    assert found["self_attn.q_proj"].values is found["self_attn.v_proj"].values
    assert found["self_attn.q_proj"].values is not found["self_attn.o_proj"].values


@pytest.mark.parametrize(("method", "passes"), [(magnitude, 0), (wanda, 2), (sparsegpt, 2)])
def test_a_method_makes_this_many_passes_over_the_data(method, passes):
    subject, count = network(), [0]
    subject.held = True  # against its own forward, which takes passes of its own
    subject.blocks[1].mlp.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    for _ in prune(subject, tokens(8), method()):
        pass
    assert count[0] == passes * 2, "batches of 4 sequences"


def test_the_next_block_is_calibrated_on_the_pruned_stream_or_on_the_dense_one():
    dense = [torch.cat([c.hidden for c in block.calls]) for block in network().walk(tokens())]

    def second_inputs(propagate):
        subject, seen = network(), []
        subject.held = True
        subject.blocks[1].input_layernorm.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        for _ in prune(subject, tokens(), wanda(), propagate=propagate):
            pass
        return torch.cat(seen[:2])

    assert torch.equal(second_inputs("dense"), dense[1])
    assert not torch.allclose(second_inputs("pruned"), dense[1])


def test_the_reported_error_is_that_of_the_blocks_output():
    subject, data = network(), tokens()
    block = next(subject.walk(data))
    call = block.calls[0]
    before = [subject.blocks[0](*c.args, **c.kwargs) for c in block.calls]
    solved = next(prune(subject, data, wanda()))
    after = [subject.blocks[0](*c.args, **c.kwargs) for c in next(subject.walk(data)).calls]
    expected = sum((a - b).square().sum() for a, b in zip(after, before, strict=True)) / sum(
        b.square().sum() for b in before
    )
    assert solved.error == pytest.approx(expected.item(), rel=1e-4)
    assert call.hidden.shape == (4, 16, 32)


@pytest.mark.parametrize("where", ["weight", "activation"])
def test_nan_stops_the_run_and_names_the_layer(where):
    subject = network()
    if where == "weight":
        subject.weights()["model.layers.1.mlp.up_proj"][3, 4] = float("nan")
        layer = "model.layers.1.mlp.up_proj"
    else:
        subject.model.model.layers[1].post_attention_layernorm.weight.data[2] = float("inf")
        layer = "model.layers.1.mlp"
    with pytest.raises(ValueError, match=f"{layer}.*NaN or infinite"):
        list(prune(subject, tokens(), wanda()))


def test_an_expert_without_tokens_falls_back_to_magnitude_and_says_so():
    subject = network("mixtral", num_local_experts=8)
    router = subject.model.model.layers[0].mlp.gate.weight
    with torch.no_grad():
        router.zero_()
        router[:2] = torch.ones(2, 32)  # all logits of experts 2 to 7 are zero; a positive sum routes to 0 and 1
        subject.model.model.layers[0].post_attention_layernorm.weight.fill_(1.0)
    before = {name: weight.clone() for name, weight in subject.weights().items()}
    data = tokens()
    reached = next(subject.walk(data)).collect(wanda().inputs, ["mlp.experts.down_proj.7"])
    first = next(prune(subject, data, wanda()))
    unseen = {name for name, p in first.linears.items() if "unseen" in p.notes}
    assert (reached["mlp.experts.down_proj.7"].tokens == 0) == ("model.layers.0.mlp.experts.down_proj.7" in unseen)
    assert unseen
    for name in unseen:
        smallest = before[name].abs().argsort(dim=1, stable=True)[:, : before[name].shape[1] // 2]
        assert not first.linears[name].mask.gather(1, smallest).any()


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_the_batch_size_does_not_change_the_masks(batch):
    masks = [
        torch.cat([p.mask.flatten() for s in prune(network(batch=size), tokens(), wanda()) for p in s.linears.values()])
        for size in (6, batch)
    ]
    assert (masks[0] != masks[1]).float().mean() < 1e-3


def test_the_same_run_gives_the_same_bits():
    def weights():
        return torch.cat(
            [p.weight.flatten() for s in prune(network(), tokens(), sparsegpt()) for p in s.linears.values()]
        )

    assert torch.equal(weights(), weights())


def test_a_walk_keeps_only_one_layer_of_states_alive():
    subject, alive = network(num_hidden_layers=6), []
    for _ in prune(subject, tokens(8), wanda()):
        gc.collect()
        alive.append(sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (4, 16, 32)))
    assert max(alive) <= 2, "two batches of states, of one layer"


def test_an_evaluation_keeps_only_one_layer_of_states_alive():
    subject, alive = network(num_hidden_layers=6), []

    def bar(things, *_):
        for thing in things:
            gc.collect()
            alive.append(sum(1 for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (4, 16, 32)))
            yield thing

    with shown_by(bar):
        subject.losses(tokens(8))
    assert len(alive) == 6 + 2
    assert max(alive) <= 2, "two batches of states, of one layer"


def test_solved_blocks_are_not_solved_again_and_the_model_is_the_same():

    store, data = Memory(), tokens()
    whole = network()
    for _ in prune(whole, data, sparsegpt(), done=store):
        pass
    for missing in ([], ["model.layers.2"], ["model.layers.1", "model.layers.2"]):
        partial = Memory({name: block for name, block in store.items() if name not in missing})
        resumed = network()
        for _ in prune(resumed, data, sparsegpt(), done=partial):
            pass
        assert all(torch.equal(w, resumed.weights()[n]) for n, w in whole.weights().items())
        assert set(partial) == set(store)


def test_blocks_that_cannot_be_found_are_asked_for():
    model = network().model
    model.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match=r"expected one ModuleList of 7 blocks.*set model.blocks"):
        Network(model)
    assert Network(model, blocks="model.layers").path == "model.layers"


def test_tokens_of_another_tokenizer_are_refused():
    with pytest.raises(ValueError, match="the model knows 0 to 95"):
        network().readable(tokens() + 60)
    with pytest.raises(ValueError, match="windows of 65 tokens, but the model takes 64"):
        network().readable(tokens(1, 65))


def test_a_block_is_kept_when_its_error_is_known_so_that_a_resumed_run_has_noted_it():
    subject, passes, kept = network(), [], []
    subject.held = True
    subject.blocks[1].mlp.register_forward_hook(lambda *_: passes.append(1))

    class Watched(dict):
        load = dict.__getitem__

        def save(self, solved):
            kept.append(len(passes))

    for _ in prune(subject, tokens(8), wanda(), done=Watched()):
        pass
    assert kept == [0, 4, 4], "two batches to gather, two to carry the stream on"
