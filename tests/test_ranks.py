"""Several processes prune as one does: real ones, that share the sequences and the linears of every block."""

import os
import socket
from dataclasses import replace

import pytest
import torch
from torch.multiprocessing import spawn

from experiments.evals.kl import KL
from prune import ranks
from prune.allocators.uniform import Uniform
from prune.deal import deal
from prune.method import Method
from prune.metrics.gblm import GBLM
from prune.patterns.unstructured import Unstructured
from prune.prune import gather, prune
from prune.quantizers.minmax import MinMax
from prune.statistics.gradient import LossGradient
from prune.statistics.inputs import Gram, Squares
from prune.survey import Survey
from prune.updates.admm import ADMM
from prune.updates.barber import Barber
from prune.updates.zero import Zero
from tests.test_evals import Windows
from tests.tiny import network, sparsegpt, tokens, wanda
from tests.vision import classifier, images

WORLD = 2
CLOSE = {"rtol": 1e-5, "atol": 1e-7}  # what the order of a sum may change
METHODS = {
    "wanda": ("llama", wanda(), "block"),
    "sparsegpt": ("llama", sparsegpt(), "block"),
    "sparsegpt by inputs": ("llama", sparsegpt(), "sequential"),
    "admm": ("llama", Method(Unstructured("row"), wanda().metric, Uniform(0.5), ADMM()), "block"),
    "gblm": ("llama", Method(Unstructured("row"), GBLM(), Uniform(0.5), Zero()), "block"),
    "images": ("vit", sparsegpt(), "block"),
    "images, drawn classes": ("vit", replace(wanda(), metric=GBLM(target="sampled")), "block"),
    "rounded": ("llama", replace(wanda(), quantizer=MinMax(sweep=False)), "block"),
    "experts": ("mixtral", wanda(), "block"),
    "experts by inputs": ("mixtral", wanda(), "sequential"),
}


FEW = tokens(7, 3)  # so few that they do not reach all experts


def solutions(name):
    """All answers of a method, and the losses of the model it leaves."""
    family, method, granularity = METHODS[name]
    make, data = (classifier, images) if family == "vit" else (network, tokens)
    many = {"num_local_experts": 16, "num_hidden_layers": 2} if family == "mixtral" else {}
    subject = make(family, batch=2, **many)
    solved = list(prune(subject, FEW if family == "mixtral" else data(7), method, granularity))
    return {"blocks": solved, "losses": subject.losses(data(5, seed=1))}


def statistics():
    """Sums of a block's inputs, and the gradients of the loss."""
    block = next(network(batch=2).walk(tokens(7), shared=True))
    inputs = {name: one.values for name, one in block.collect([Gram(), Squares()], block.weights).items()}
    gradients = {order: dict(LossGradient(order).of(network(), tokens(7))) for order in (0, 1, 2)}
    return {"inputs": inputs, "gradients": gradients}


def divergence():
    """What is kept of the dense model, and how far a pruned one is from it."""
    windows, subject = tokens(5, seed=1), network(batch=2)
    evaluation = KL(Windows(windows), None, 16, top=8, drawn=4)
    reference = evaluation.reference(subject)
    list(prune(subject, tokens(8), wanda()))
    return {"reference": reference, "answer": evaluation(subject, reference)}


def grid_of(answer):
    return answer.grid and (answer.grid.scale.tolist(), answer.grid.zero.tolist(), answer.grid.bits)


def unseen(block):
    return {name for name, p in block.linears.items() if "unseen" in p.notes}


def reached():
    """Experts of the first block that my own sequences reach."""
    block = next(network("mixtral", batch=2, num_local_experts=16, num_hidden_layers=2).walk(ranks.share(FEW, 2)))
    found = block.collect([Squares()], block.weights)
    return {block.full_name(name) for name, one in found.items() if one.tokens}


def work(rank, port, folder):
    """What each process does: everything above, as a rank, and what goes wrong."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with ranks.meet():
        found = {"methods": {name: solutions(name) for name in METHODS}, "statistics": statistics()}
        found["reached"] = reached()
        found["mistakes"] = {name: mistake(case) for name, case in MISTAKES.items()}
        found["kl"] = divergence()
        found["few"] = network(batch=4).losses(tokens(3))
        torch.save(found, f"{folder}/{rank}.pt")


def damaged():
    subject = network(batch=2)
    subject.weights()["model.layers.1.mlp.up_proj"][3, 4] = float("nan")
    list(prune(subject, tokens(7), wanda()))


def overflowing():
    """Only the last of the sequences, that of the last rank, makes an infinite value."""
    subject, data = network(batch=2), tokens(8)
    data[:, :] = data.clamp(max=90)
    data[-1, -1] = 95
    with torch.no_grad():
        subject.model.get_input_embeddings().weight[95] = float("inf")
    list(prune(subject, data, wanda()))


def barber():
    method = Method(Unstructured("row"), wanda().metric, Uniform(0.5), Barber())
    next(prune(network(batch=2), tokens(7), method))


class Picky(Zero):
    """Cannot solve one linear, which one rank alone has to solve."""

    def linear(self, linear):
        if "down_proj" in linear.name:
            raise ValueError(f"{linear.name}: no solution")
        return super().linear(linear)


def unsolvable():
    list(prune(network(batch=2), tokens(7), replace(wanda(), update=Picky())))


def failing_alone():
    ranks.told(lambda: 1 // 0)


MISTAKES = {
    "damaged": damaged,
    "overflowing": overflowing,
    "barber": barber,
    "unsolvable": unsolvable,
    "first": failing_alone,
}


def mistake(case):
    try:
        case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, each for itself."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, str(folder)), WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_find_the_masks_of_one(found, name):
    alone, together = solutions(name), [each["methods"][name] for each in found]
    for one, *others in zip(alone["blocks"], *(each["blocks"] for each in together), strict=True):
        for other in others:
            assert list(other.linears) == list(one.linears)
            assert other.error == pytest.approx(one.error, rel=1e-4)
        for linear, p in one.linears.items():
            answers = [other.linears[linear] for other in others]
            assert all(torch.equal(answer.mask, p.mask) for answer in answers), linear
            assert all((answer.notes, answer.target) == (p.notes, p.target) for answer in answers)
            torch.testing.assert_close(answers[0].weight, p.weight, rtol=1e-3, atol=1e-5)
            assert torch.equal(answers[0].weight, answers[1].weight), "all ranks go on with the same bits"
            assert [grid_of(answer) for answer in answers] == [grid_of(p)] * WORLD
    assert torch.equal(together[0]["losses"], together[1]["losses"])
    torch.testing.assert_close(together[0]["losses"], alone["losses"], rtol=1e-5, atol=1e-5)


def test_an_expert_that_one_rank_alone_has_seen_is_seen(found):
    here, there = (each["reached"] for each in found)
    assert here - there, "the test needs an expert that only one of them reaches"
    assert there - here
    first = found[0]["methods"]["experts"]["blocks"][0]
    missing = unseen(first)
    assert missing == set(first.linears) - (here | there)


def test_statistics_are_those_of_all_sequences(found):
    alone = statistics()
    for each in found:
        for name, values in alone["inputs"].items():
            for statistic, value in values.items():
                torch.testing.assert_close(each["statistics"]["inputs"][name][statistic], value, **CLOSE)
        torch.testing.assert_close(each["statistics"]["gradients"], alone["gradients"], **CLOSE)


def test_the_divergence_from_the_dense_model_is_that_of_one_process(found):
    alone, together = divergence(), [each["kl"] for each in found]
    for each in together:
        assert torch.equal(each["reference"]["ids"], alone["reference"]["ids"])
        assert each["answer"]["metrics"] == pytest.approx(alone["answer"]["metrics"], rel=1e-4)
    assert together[0]["answer"] == together[1]["answer"]


def test_fewer_batches_than_ranks_are_computed_by_each(found):
    assert all(torch.equal(each["few"], network(batch=4).losses(tokens(3))) for each in found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("damaged", "model.layers.1.mlp.up_proj: NaN or infinite values in its weights"),
        ("overflowing", "NaN or infinite values in its calibration input"),
        ("barber", "Barber runs blocks sequence by sequence, which ranks cannot share"),
        ("unsolvable", "mlp.down_proj: no solution"),
        ("first", "ZeroDivisionError"),
    ],
)
def test_what_one_rank_raises_stops_all_with_the_same_reason(found, name, said):
    assert [said in each["mistakes"][name] for each in found] == [True] * WORLD


def test_linears_that_share_an_input_are_dealt_together(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 2)
    block = next(network().walk(tokens()))
    owner = deal(gather(block, list(block.weights), sparsegpt(), Survey({}), {}))
    assert owner["mlp.gate_proj"] == owner["mlp.up_proj"] != owner["mlp.down_proj"]
    assert len({owner[f"self_attn.{name}_proj"] for name in "qkv"}) == 1


def test_sequences_are_shared_in_order_and_in_whole_batches(monkeypatch):
    data = torch.arange(11)[:, None]
    monkeypatch.setattr(ranks, "world", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        parts.append(ranks.share(data, 2))
    assert torch.equal(torch.cat(parts), data)
    assert [len(part) for part in parts] == [4, 4, 3]
    assert ranks.share(data, 4) is not data
    assert ranks.share(data, 8) is data, "two batches for three ranks"
