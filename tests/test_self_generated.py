"""Calibration text that the model writes: drawn from its own distribution, kept once, paid for, planned."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from experiments import cache, plan
from experiments.data.files import TextFile
from experiments.data.self_generated import SelfGenerated, start_token, uniform
from experiments.models import location
from experiments.running.footprint import cached
from prune.network import Network
from prune.progress import shown_by
from tests import tiny
from tests.answers import answer, place, run
from tests.faults import VOCABULARY, ask, settings

OWN = SelfGenerated(sequences=6, length=24, seed=0)
WORDS = "data=self_generated data.sequences=4 data.length=16 eval.perplexity.path={}/tokens.safetensors"


@torch.no_grad()
def predictions(subject, windows):
    """Logits of a plain forward for what follows the first token, in float64."""
    return subject.model(windows, use_cache=False).logits[:, :-1].double()


def constant():
    """A model whose logits are the same everywhere, and its distribution."""
    subject = tiny.network("opt", batch=250)
    norm = subject.model.model.decoder.final_layer_norm
    norm.weight.zero_()
    norm.bias.mul_(5)
    return subject, (subject.model.lm_head.weight @ norm.bias).double().softmax(0)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.6, None), (1.7, 7)])
def test_tokens_come_as_often_as_the_model_says(temperature, top_k):
    subject, shares = constant()
    windows = replace(OWN, sequences=250, length=41, temperature=temperature, top_k=top_k).generate(subject)
    expected = shares ** (1 / temperature)
    expected[expected < expected.topk(top_k or 96).values[-1]] = 0
    expected /= expected.sum()
    count = windows[:, 1:].numel()
    found = windows[:, 1:].flatten().bincount(minlength=96) / count
    often = expected * count > 10
    for one, other in ((found[often], expected[often]), (found[~often].sum(), expected[~often].sum())):
        assert ((one - other).abs() <= 4 * (other * (1 - other) / count).sqrt()).all()
    assert often.sum() > 3 and expected.max() > 3 * expected[often].min()
    pairs = float((windows[:, 1:-1] == windows[:, 2:]).double().mean())
    assert pairs == pytest.approx(float((expected**2).sum()), abs=4 * (1 / 4 / count) ** 0.5), (
        "one does not tell of the next"
    )


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3", "mixtral", "bloom"])
def test_at_temperature_0_every_token_is_the_most_probable_one_as_transformers_writes_greedily(family):
    subject = tiny.network(family)
    windows = replace(OWN, temperature=0).generate(subject)
    assert torch.equal(predictions(subject, windows).argmax(-1), windows[:, 1:])
    start = windows[:1, :1]
    greedy = subject.model.generate(start, max_new_tokens=23, do_sample=False, eos_token_id=-1, pad_token_id=0)
    assert torch.equal(greedy, windows[:1])


def test_a_token_is_where_its_draw_falls_in_the_predictions_of_a_plain_forward():
    subject = tiny.network()
    windows = OWN.generate(subject)
    sums = predictions(subject, windows).softmax(-1).cumsum(-1)
    places = torch.searchsorted(sums, uniform(6, 24, 0)[:, 1:, None].contiguous(), right=True)[..., 0]
    assert torch.equal(places, windows[:, 1:])


def test_a_window_is_the_same_whatever_is_written_beside_it_and_another_with_another_seed():
    first = OWN.generate(tiny.network(batch=6))
    assert torch.equal(OWN.generate(tiny.network(batch=4)), first)
    assert torch.equal(replace(OWN, sequences=2).generate(tiny.network(batch=1)), first[:2])
    assert torch.equal(replace(OWN, length=10).generate(tiny.network()), first[:, :10])
    subject, state = tiny.network(), torch.random.get_rng_state()
    other = replace(OWN, seed=1).generate(subject)
    assert (other[:, 1:] == first[:, 1:]).double().mean() < 0.1 and len(first.unique(dim=0)) == 6
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_bar_counts_the_tokens_that_are_written_one_after_the_other():
    told, seen = [], []

    def bar(things, what, total, unit, known):
        told.append((total, unit))
        for thing in things:
            yield thing
            seen.append(thing)

    with shown_by(bar):
        OWN.generate(tiny.network(batch=4))
    assert told[0] == (2 * 23, "step") and len(seen) == 2 * 23


def test_on_another_device_it_writes_the_same(far):
    subject = tiny.network()
    subject.device = far
    assert torch.equal(OWN.generate(subject), OWN.generate(tiny.network()))


def test_settings_of_the_folder_for_writing_do_not_count_and_stay():
    subject = tiny.network()
    subject.model.generation_config.update(repetition_penalty=9.0, eos_token_id=list(range(90)), max_length=3, top_k=1)
    before = subject.model.generation_config
    assert torch.equal(OWN.generate(subject), OWN.generate(tiny.network()))
    assert subject.model.generation_config is before and before.repetition_penalty == 9.0


@pytest.fixture(scope="module")
def reader():
    return AutoTokenizer.from_pretrained(location.located("demo"))


def test_the_model_goes_on_from_pieces_of_a_text(reader, tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"{number}. Once there was a cat with a hat. " for number in range(40)))
    subject = Network(tiny.network(vocab_size=VOCABULARY).model, reader)
    own = replace(OWN, prompt_tokens=5, path=str(tmp_path / "a.txt"), temperature=0)
    windows = own.generate(subject)
    stream = TextFile(own.path).stream(reader, "calibration").unfold(0, 5, 1).tolist()
    assert (windows[:, 0] == reader.bos_token_id).all() and len(windows[:, 1:6].unique(dim=0)) > 3
    assert all(piece in stream for piece in windows[:, 1:6].tolist())
    assert torch.equal(predictions(subject, windows).argmax(-1)[:, 5:], windows[:, 6:])
    assert not torch.equal(replace(own, seed=3).generate(subject)[:, 1:6], windows[:, 1:6])
    with pytest.raises(
        ValueError, match=r"a.txt: the text has \d+ tokens, more than 5000 are needed; lower data.prompt"
    ):
        replace(own, prompt_tokens=5000).openings(subject)


def test_a_window_begins_with_what_the_model_knows_as_a_beginning(reader):
    model = tiny.network(bos_token_id=7, eos_token_id=[9, 8]).model
    assert start_token(Network(model, reader)) == reader.bos_token_id == 0 and start_token(Network(model)) == 7
    model.config.bos_token_id = None
    assert start_token(Network(model)) == 9
    model.config.eos_token_id = 96
    with pytest.raises(ValueError, match=r"knows no token that a text begins with .*; give another data="):
        start_token(Network(model))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"temperature": -1}, "data.temperature: expected a number of at least 0, found -1"),
        ({"temperature": float("nan")}, "data.temperature: .* found nan"),
        ({"temperature": "hot"}, "data.temperature: .* found hot"),
        ({"top_k": 0}, "data.top_k: expected a whole number of at least 1, found 0"),
        ({"prompt_tokens": None}, "data.prompt_tokens: expected a whole number of at least 0, found None"),
        ({"prompt_tokens": 3}, "data.prompt_tokens=N needs data.path=FILE"),
        ({"path": "a.txt"}, "data.path=FILE needs data.prompt_tokens=N"),
        ({"path": __file__[:-3] + ".txt", "prompt_tokens": 3}, "no such file"),
        ({"length": 1}, "leave nothing to write of 1 tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(changed, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        replace(OWN, **changed).check()


def test_a_model_that_predicts_no_number_is_refused():
    broken = tiny.network()
    broken.model.lm_head.weight[3].fill_(float("nan"))
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="a prediction of the dense model is NaN or infinite"):
            replace(OWN, temperature=temperature).generate(broken)


@pytest.mark.parametrize(
    ("family", "all_of_it"), [("llama", True), ("qwen3", True), ("bloom", True), ("gemma3", False)]
)
def test_a_plan_knows_what_written_tokens_leave_for_later_ones(family, all_of_it):
    subject = tiny.network(family, **({"num_key_value_heads": None} if family == "bloom" else {}))
    with torch.no_grad():
        past = subject.model(tiny.tokens(2, 32), use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in past.layers)
    assert size == 2 * 32 * 4 * cached(subject, 32)[0] if all_of_it else size < 2 * 32 * 4 * cached(subject, 32)[0]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return place(tmp_path_factory.mktemp("written"))


@pytest.mark.slow
def test_the_text_is_written_once_for_all_methods_and_each_run_tells_what_that_took(here, monkeypatch, capsys):
    words = WORDS.format(here)
    first, said = answer(f"experiment=wanda {words}", here)
    (file,) = (here / "out" / "cache" / "tokens").glob("self_generated-calibration-*.safetensors")
    assert load_file(file)["tokens"].shape == (4, 16) and not first["saved"].get("data generation")
    with monkeypatch.context() as patch:
        patch.setattr(SelfGenerated, "generate", lambda *_: pytest.fail("it was there"))
        second, other = answer(f"experiment=magnitude update=sparsegpt {words}", here)
    data = [json.loads((run(each) / "manifest.json").read_text())["data"] for each in (said, other)]
    assert data[0] == data[1] and data[0]["name"] == "self_generated"
    took = [each["seconds"]["data generation"] for each in (first, second)]
    assert took[1] == pytest.approx(took[0], rel=0.5) and 0 < second["saved"]["data generation"] < took[1]
    _, third = answer(f"experiment=wanda {words} data.seed=5", here)
    assert json.loads((run(third) / "manifest.json").read_text())["data"]["sha256"] != data[0]["sha256"]
    assert cache.main([str(here / "out")]) == 0
    assert "calibration, 4 windows of 16" in capsys.readouterr().out


def test_it_is_not_evaluated_on(here):
    found = ask(*settings(f"experiment=wanda data=self_generated eval=[perplexity] outputs={here}/none", here))
    words = (
        "eval=perplexity: self_generated is calibration text and has no held-out part; give eval.perplexity.path=FILE"
    )
    assert found.code == 2 and words in found.err and not (here / "none").exists()


def test_a_model_that_takes_no_more_than_the_prompt_is_refused_before_it_is_read(here):
    words = f"data=self_generated data.prompt_tokens=63 data.path={here}/a.txt eval=[] outputs={here}/none"
    (here / "a.txt").write_text("words " * 500)
    found = ask(*settings(f"experiment=wanda {words}", here))
    said = "the start token and data.prompt_tokens=63 leave nothing to write of 64 tokens; lower data.prompt_tokens"
    assert found.code == 2 and said in found.err and not (here / "none").exists()


def test_a_plan_tells_that_the_whole_model_writes_and_what_that_holds(capsys, tmp_path):
    words = ["data=self_generated", "data.sequences=16", "eval=[audit]", "device=cpu", f"outputs={tmp_path}"]
    assert plan.main(["experiment=wanda", *words]) == 0
    said = capsys.readouterr().out
    assert "once, kept in the cache: the model writes 16 x 256 tokens, one after the other, all of it on cpu" in said
    assert "data generation: the whole model 10.5 MiB, keys and values 10.5 MiB" in said
    assert "data generation, once 2.7" in said
    assert plan.main(["experiment=magnitude", *words]) == 0
    assert "data generation" not in capsys.readouterr().out
