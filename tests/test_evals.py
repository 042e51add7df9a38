"""Perplexity and audit: the papers' formula on real text, and a contract that is really checked."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.data.files import TextFile
from experiments.data.windows import Source
from experiments.evals.audit import Audit
from experiments.evals.perplexity import Perplexity
from experiments.runs.bits import flat
from experiments.runs.record import Record
from experiments.runs.results import paired_errors, tabulate_block
from prune.network import Network
from prune.patterns.n_m import NM
from prune.patterns.unstructured import Unstructured
from prune.prune import prune
from tests.quantised import quantised
from tests.tiny import network, sparsegpt, tokens, wanda


@dataclass(frozen=True)
class Windows(Source):
    """A text that is tokens already."""

    windows: torch.Tensor
    name: str = "mine"
    heldout: ClassVar[bool] = True

    def evaluation(self, tokenizer, length):
        return self.windows


def test_perplexity_is_the_exponential_of_the_mean_loss_per_predicted_token():
    subject, data = network(), tokens(7, 16)
    with torch.no_grad():
        logits = subject.model(data).logits.double()
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), data[:, 1:], reduction="none")
    found = Perplexity(Windows(data), None, 16)(subject)
    assert found["metrics"]["ppl/mine@16"] == pytest.approx(losses.mean().exp().item(), rel=1e-5)
    spread = losses.mean(1).std() / math.sqrt(7) * losses.mean().exp()
    assert found["metrics"]["ppl_stderr/mine@16"] == pytest.approx(spread.item(), rel=1e-4)
    assert found["protocol"]["windows"] == 7 and len(found["protocol"]["sha256"]) == 64


def test_the_first_windows_alone_have_a_key_of_their_own_and_the_numbers_of_a_text_that_ends_there():
    subject, data = network(), tokens(7, 16)
    found = Perplexity(Windows(data), None, 16, windows=3)(subject)
    short = Perplexity(Windows(data[:3]), None, 16)(subject)
    assert found["metrics"] == {f"{key}@first3": value for key, value in short["metrics"].items()}
    assert [found[part] for part in ("protocol", "details")] == [short[part] for part in ("protocol", "details")]
    more, whole = (Perplexity(Windows(data), None, 16, windows=count)(subject) for count in (9, None))
    assert more["protocol"] == whole["protocol"]
    assert more["metrics"]["ppl/mine@16@first9"] == whole["metrics"]["ppl/mine@16"]


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "all"])
def test_a_number_of_windows_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match=r"windows of an evaluation: expected a whole number of at least 1, or null"):
        Perplexity(Windows(tokens()), None, 16, windows=count).check()


def test_wikitext2_is_evaluated_in_the_papers_windows(shared):
    folder, corpus = shared / "data/models/wiki-llama-3m", shared / "data/corpora/wikitext2-raw-test.txt"
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    subject = Network(net, AutoTokenizer.from_pretrained(folder), batch=4)
    windows = TextFile(str(corpus), 1, 8, 0).evaluation(subject.processor, 1024)
    assert windows.shape == (448, 1024)
    text = corpus.read_text(encoding="utf-8")
    ids = torch.tensor(subject.processor(text, verbose=False)["input_ids"])[: 3 * 1024].view(3, 1024)
    assert torch.equal(windows[:3], ids)
    with torch.no_grad():
        loss = [net(input_ids=row[None], labels=row[None]).loss.item() for row in ids]
    assert subject.losses(ids).tolist() == pytest.approx(loss, rel=1e-4)


def test_a_calibration_text_is_not_evaluated_on(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ValueError, match=r"a is calibration text and has no held-out part; give eval.perplexity.path"):
        Perplexity(TextFile(str(tmp_path / "a.txt"), 1, 8, 0), None, 16).check()
    with pytest.raises(FileNotFoundError, match="missing"):
        Perplexity(Windows(tokens()), str(tmp_path / "missing.txt"), 16).check()


def test_token_windows_longer_than_the_model_takes_are_refused(tmp_path):
    save_file({"tokens": tokens(2, 65)}, tmp_path / "long.safetensors")
    with pytest.raises(ValueError, match="windows of 65 tokens, but the model takes 64"):
        Perplexity(Windows(tokens()), str(tmp_path / "long.safetensors"), 2048)(network())


@pytest.mark.parametrize("method", [wanda, sparsegpt])
def test_a_pruned_model_passes_its_audit(method):
    subject = network()
    for _ in prune(subject, tokens(), method(0.5)):
        pass
    found = Audit(Unstructured(), 0.5)(subject)
    weights = subject.weights().values()
    assert found["metrics"]["audit/zeros"] == sum(int((w == 0).sum()) for w in weights) / sum(
        w.numel() for w in weights
    )
    assert found["metrics"]["audit/zeros"] == 0.5
    assert {name: d["zeros"] for name, d in found["details"].items()} == {
        name: int((w == 0).sum()) for name, w in subject.weights().items()
    }


def test_zeros_that_rounding_made_are_counted_beside_the_share_of_the_masks():
    subject = network()
    layers = [row for solved in prune(subject, tokens(), quantised(2)) for row in tabulate_block(solved)["layers"]]
    metrics = Audit(Unstructured(), 0.5)(subject)["metrics"]
    record = Record(Path(), {"config": {}}, {"metrics": metrics, "layers": layers}, "done")
    assert record.sparsity == 0.5 and metrics["audit/zeros"] > 0.55
    told = flat(record.results, {})
    assert (told["sparsity/mask"], told["sparsity/zeros"]) == pytest.approx((0.5, metrics["audit/zeros"]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: w.fill_(1.0), "up_proj has 512 violations, expected 0"),
        (lambda w: w[:1].fill_(float("nan")), "up_proj has 32 nonfinite, expected 0"),
        (lambda w: w[:1].fill_(-0.0), "up_proj has 32 negative_zeros, expected 0"),
        (lambda w: w[:1].fill_(1.0), "up_proj has 8 violations, expected 0"),
    ],
)
def test_a_violated_contract_is_an_error_that_names_the_matrix(spoil, words):
    subject, method = network(), wanda(0.5)
    method = type(method)(NM(2, 4), method.metric, method.allocator, method.update)
    for _ in prune(subject, tokens(), method):
        pass
    audit = Audit(NM(2, 4), 0.5)
    audit(subject)
    spoil(subject.weights()["model.layers.1.mlp.up_proj"])
    with pytest.raises(ValueError, match=words):
        audit(subject)


def test_too_few_zeros_are_a_violated_contract():
    subject = network()
    for _ in prune(subject, tokens(), wanda(0.5)):
        pass
    subject.weights()["model.layers.2.self_attn.k_proj"].fill_(1.0)
    with pytest.raises(ValueError, match=r"13568 of 27648 weights are zero, a share of 0.49.*13824 were asked for"):
        Audit(Unstructured(), 0.5)(subject)


def test_the_error_of_a_difference_is_over_pairs_of_the_same_windows():
    generator, step = torch.Generator().manual_seed(0), 1e-4
    dense = 3 + torch.randn(50, generator=generator, dtype=torch.float64)
    pruned = dense + 0.1 + 0.01 * torch.randn(50, generator=generator, dtype=torch.float64)
    parts = [
        {"metrics": {"ppl/x@8": x.mean().exp().item()}, "details": {"losses": x.tolist()}} for x in (dense, pruned)
    ]
    found = paired_errors(*parts)["ppl/x@8"]

    def difference(weights):
        return (weights @ pruned).exp() - (weights @ dense).exp()

    even = torch.full((50,), 1 / 50, dtype=torch.float64)
    base, lifted = difference(even), torch.eye(50, dtype=torch.float64)
    influence = torch.stack([(difference((1 - step) * even + step * unit) - base) / step for unit in lifted])
    assert found == pytest.approx((influence.std() / 50**0.5).item(), rel=1e-2)
    alone = pruned.std() / 50**0.5 * pruned.mean().exp()
    assert found < 0.2 * alone, "what moves both models alike does not count"
