"""KL to the dense model held against the full distributions in float64: its bound, its estimate, its errors."""

from dataclasses import replace
from functools import cache

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.data.files import TextFile
from experiments.evals.kl import KL, compared, draw, logarithms, quantile
from experiments.runs.difference import paired_error
from prune.network import Network
from prune.prune import prune
from tests.test_evals import Windows
from tests.tiny import network, tokens, wanda

KEY = "mine@16"


def of(windows: torch.Tensor, **changed) -> KL:
    return replace(KL(Windows(windows), None, windows.shape[1]), **changed)


def pruned(sparsity: float = 0.5) -> Network:
    subject = network()
    for _ in prune(subject, tokens(), wanda(sparsity)):
        pass
    return subject


def distributions(subject: Network, windows: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [n, t - 1, v] in float64 from the model's own logits."""
    with torch.no_grad():
        return subject.model(windows).logits[:, :-1].double().log_softmax(-1)


def full(dense: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL of every prediction."""
    return (dense.exp() * (dense - other)).sum(-1)


@cache
def real(folder: str, corpus: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of 4 windows of a real model, dense and with half of every row gone, and both as distributions."""
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    subject = Network(net, AutoTokenizer.from_pretrained(folder), batch=4)
    windows = TextFile(corpus, sequences=4, length=256).calibration(subject.processor, 256)
    with torch.no_grad():
        before = net(windows).logits[:, :-1]
        for _ in prune(subject, windows, wanda(0.5)):
            pass
        after = net(windows).logits[:, :-1]
    return before, after, *(logits.double().log_softmax(-1).flatten(0, 1) for logits in (before, after))


@pytest.fixture
def pair(shared):
    return real(str(shared / "data/models/wiki-llama-3m"), str(shared / "data/corpora/wikitext2-raw-test.txt"))


def parts(before: torch.Tensor, after: torch.Tensor, top: int, count: int) -> torch.Tensor:
    """What `compared` says of the positions of these logits."""
    before, after = before.flatten(0, 1), after.flatten(0, 1)
    ids = best = before.topk(min(top, before.shape[1])).indices
    if top < before.shape[1]:
        offsets = 1 - torch.rand(len(before), generator=torch.Generator().manual_seed(1))
        ids = torch.cat([best, draw(before, best, offsets, count)], 1)
    return compared(after, ids, logarithms(before, ids, best.shape[1]), top)


@pytest.mark.parametrize("top", [16, 64, 256])
def test_on_a_real_model_the_bound_is_below_the_full_divergence_and_the_estimate_on_it(pair, top):
    before, after, dense, other = pair
    exact, gap = parts(before, after, top, 16).T[:2]
    truth = full(dense, other)
    assert (exact <= truth + 1e-6).all() and exact.mean() < 0.97 * truth.mean()
    noise = exact + gap - truth
    assert abs(noise.mean()) < 4 * noise.std() / len(noise) ** 0.5, "the estimate has no bias"
    assert abs(noise.mean()) < 0.01 * truth.mean()
    ids = dense.topk(top).indices
    rest = [(1 - each.gather(1, ids).exp().sum(1)).log() for each in (dense, other)]
    lumped = full(dense.gather(1, ids), other.gather(1, ids)) + rest[0].exp() * (rest[0] - rest[1])
    assert torch.allclose(exact, lumped, atol=1e-6, rtol=1e-5)


def test_with_the_whole_vocabulary_it_is_the_full_divergence(pair):
    before, after, dense, other = pair
    exact, gap, first, five = parts(before, after, 2048, 16).T
    assert torch.allclose(exact, full(dense, other), atol=1e-7, rtol=1e-5) and (gap == 0).all()
    assert torch.equal(first.bool(), dense.argmax(1) == other.argmax(1))
    shared = [len({*a} & {*b}) / 5 for a, b in zip(*(x.topk(5).indices.tolist() for x in (dense, other)), strict=True)]
    assert five.tolist() == pytest.approx(shared)


def test_a_small_change_is_not_lost_in_the_storage_of_the_dense_side(pair):
    before, _, dense, _ = pair
    after = before + 1e-3 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    truth = full(dense, after.double().log_softmax(-1).flatten(0, 1))
    assert truth.mean() < 1e-6
    exact, gap = parts(before, after, 64, 16).T[:2]
    assert (exact + gap).mean() == pytest.approx(truth.mean().item(), rel=0.05)


def test_the_dense_model_is_at_0_from_itself_to_the_bit():
    windows = tokens(6, 16)
    evaluation = of(windows, top=8, drawn=4)
    found = evaluation(network(), evaluation.reference(network()))["metrics"]
    assert [found[f"{name}/{KEY}"] for name in ("kl", "kl_median", "kl_p99", "kl_gap")] == [0.0] * 4
    assert found[f"top1/{KEY}"] == found[f"top5/{KEY}"] == 1.0


def test_the_numbers_of_a_pruned_model_are_those_of_the_full_distributions():
    windows = tokens(9, 16)
    evaluation = of(windows, top=96)
    found = evaluation(pruned(), evaluation.reference(network()))
    truth = full(distributions(network(), windows), distributions(pruned(), windows)).numpy()
    value = lambda name: found["metrics"][f"{name}/{KEY}"]
    assert value("kl") == pytest.approx(truth.mean(), rel=1e-4)
    assert value("kl_stderr") == pytest.approx(truth.mean(1).std(ddof=1) / 3, rel=1e-3)
    assert value("kl_median") == pytest.approx(numpy.median(truth), rel=1e-4)
    assert value("kl_p99") == pytest.approx(numpy.quantile(truth, 0.99), rel=1e-4)
    assert value("kl_gap") == 0
    assert found["protocol"]["windows"] == 9 and len(found["details"]["scores"][f"kl/{KEY}"]) == 9


def test_the_reference_is_as_large_as_was_planned_and_the_same_again():
    windows = tokens(5, 16)
    for changed in ({"top": 8, "drawn": 4}, {"top": 500}):
        evaluation = of(windows, **changed)
        first, second = evaluation.reference(network()), evaluation.reference(network(batch=2))
        assert sum(tensor.nbytes for tensor in first.values()) == evaluation.reference_size(5, 16, 96)
        assert torch.equal(first["ids"], second["ids"]) and torch.equal(first["logs"], second["logs"])


def test_the_error_of_a_quantile_is_that_of_drawing_windows_anew():
    draws = numpy.random.default_rng(0)
    sample = lambda: draws.gamma(draws.gamma(4, 0.25, (60, 1)), 1.0, (60, 40))  # windows are not alike
    values = [sample() for _ in range(300)]
    for share in (0.5, 0.99):
        told = [quantile(each, share) for each in values]
        assert all(each.mean() == pytest.approx(numpy.quantile(x, share)) for each, x in zip(told, values, strict=True))
        errors = [each.std(ddof=1) / len(each) ** 0.5 for each in told]
        assert numpy.mean(errors) == pytest.approx(numpy.std([each.mean() for each in told]), rel=0.25)


def test_runs_are_paired_over_windows():
    windows = tokens(8, 16)
    evaluation = of(windows, top=8, drawn=4)
    reference = evaluation.reference(network())
    half, more = (evaluation(pruned(share), reference) for share in (0.5, 0.6))
    error = paired_error(half, more, f"kl/{KEY}")
    moves = numpy.subtract(*(each["details"]["scores"][f"kl/{KEY}"] for each in (more, half)))
    assert error == pytest.approx(moves.std(ddof=1) / 8**0.5) and paired_error(half, half, f"kl_p99/{KEY}") == 0


@pytest.mark.parametrize(
    ("changed", "words"), [({"top": 4}, "eval.kl.top: .*at least 5"), ({"drawn": 0}, "drawn: .*1")]
)
def test_settings_that_cannot_work_are_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        of(tokens(), **changed).check()


def test_a_model_that_predicts_no_number_is_refused():
    evaluation, broken = of(tokens()), network()
    broken.model.lm_head.weight[3].fill_(float("nan"))
    with pytest.raises(ValueError, match="a prediction of the dense model is NaN"):
        evaluation.reference(broken)
    with pytest.raises(ValueError, match="a prediction is NaN, or infinitely far"):
        evaluation(broken, evaluation.reference(network()))
