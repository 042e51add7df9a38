"""What the papers' corpora hand to the pruner, against windows cut by hand from real text with a real tokenizer."""

import gzip
import hashlib
import json
import logging
import random

import huggingface_hub
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from experiments.data.files import TextFile
from experiments.data.windows import capped, drawn, encode, sha256_of, windows
from tests.text import (
    C4_SAMPLE,
    PARITY,
    SHARED,
    WIKITEXT_TEST,
    needs_shared,
    refused,
    rows_of,
    source,
    write_lines,
    write_parquet,
)


def test_drawn_windows_are_those_of_sparsegpt_and_disturb_no_global_generator():
    stream = torch.arange(1000)
    before = random.getstate(), torch.get_rng_state()
    found = drawn(stream, 5, 32, seed=3)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    random.seed(3)
    starts = [random.randint(0, 1000 - 32 - 1) for _ in range(5)]
    random.setstate(before[0])
    assert found.tolist() == [list(range(start, start + 32)) for start in starts]


def test_windows_do_not_overlap_and_drop_the_tail():
    assert windows(torch.arange(10), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_too_short_a_text_is_refused_with_both_numbers():
    refused(lambda: windows(torch.arange(10), 11), 10, 11, "lower")
    refused(lambda: drawn(torch.arange(10), 1, 10, 0), 10, "data.length")


def test_a_window_longer_than_the_model_takes_is_cut_and_said(caplog):
    with caplog.at_level(logging.WARNING, "experiments"):
        assert capped(512, 512) == 512
        assert not caplog.messages
        assert capped(2048, 512) == 512
    assert caplog.messages == ["data.length=2048 is more than this model takes; using its limit 512"]


def test_the_hash_is_sha256_of_shape_and_values():
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    content = b"2x3\n" + b"".join(i.to_bytes(8, "little") for i in range(1, 7))
    assert sha256_of(tokens) == hashlib.sha256(content).hexdigest()
    assert sha256_of(tokens) != sha256_of(tokens.view(3, 2))
    assert sha256_of(tokens) == sha256_of(tokens.t().contiguous().t())


@needs_shared
def test_special_tokens_come_once_and_no_warning_about_the_length():
    folder = SHARED / "data" / "models" / "stories-260k"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    ids = encode(tokenizer, "Once upon a time there was a girl. " * 400)
    logging.getLogger("transformers").removeHandler(handler)
    assert len(ids) > tokenizer.model_max_length
    assert not records
    assert ids[0] == tokenizer.bos_token_id
    assert (ids == tokenizer.bos_token_id).sum() == 1


@needs_shared
def test_c4_draws_documents_and_crops_as_wanda_does(tokenizer):
    found = source("c4", path=str(C4_SAMPLE), sequences=12, length=300).calibration(tokenizer, limit=1024)
    with gzip.open(C4_SAMPLE, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    state = random.getstate()
    random.seed(0)
    expected = []
    for _ in range(12):
        while True:
            ids = tokenizer(texts[random.randint(0, len(texts) - 1)])["input_ids"]
            if len(ids) > 300:
                break
        start = random.randint(0, len(ids) - 300 - 1)
        expected.append(ids[start : start + 300])
    random.setstate(state)
    assert found.tolist() == expected


@needs_shared
def test_c4_caps_its_windows_by_the_limit_of_the_model(tokenizer):
    c4 = source("c4", path=str(C4_SAMPLE), sequences=2)
    assert c4.calibration(tokenizer, limit=64).shape == (2, 64)


def test_c4_without_a_long_document_gives_up(tmp_path, tokenizer):
    path = write_lines(tmp_path / "short.jsonl", ["a short text", "another"] * 20)
    refused(lambda: source("c4", path=path, length=64).calibration(tokenizer, 1024), "64 tokens", "none of 40", "lower")


def test_c4_evaluation_joins_1100_documents_and_stops_at_256_windows(tmp_path, tokenizer):
    texts = [f"document number {i} ." for i in range(1200)]
    path = write_lines(tmp_path / "validation.json.gz", texts)
    c4 = source("c4", evaluation_path=path)
    ids = tokenizer(" ".join(texts[:1100]))["input_ids"]
    assert len(ids) > 256 * 4
    assert c4.evaluation(tokenizer, 4).tolist() == rows_of(ids, 4)[:256].tolist()
    assert c4.evaluation(tokenizer, 1000).tolist() == rows_of(ids, 1000).tolist()


@needs_shared
def test_wikitext2_evaluation_is_every_window_of_the_joined_test_split(tokenizer):
    found = source("wikitext2", evaluation_path=str(WIKITEXT_TEST)).evaluation(tokenizer, 1024)
    ids = tokenizer(WIKITEXT_TEST.read_text(encoding="utf-8"), verbose=False)["input_ids"]
    assert found.shape == (len(ids) // 1024, 1024)
    assert found.tolist() == rows_of(ids, 1024).tolist()


@needs_shared
def test_a_text_gives_the_tokens_that_the_released_code_was_run_on(tokenizer):
    expected = load_file(PARITY.with_name("wiki-llama-3m-eval.safetensors"))["tokens"]
    stream = TextFile(str(WIKITEXT_TEST)).evaluation(tokenizer, 1).flatten()
    assert torch.equal(windows(stream[int(0.6 * len(stream)) :], 256)[:160], expected)


def test_wikitext2_rows_are_joined_as_sparsegpt_joins_them(tmp_path, tokenizer):
    rows = ["", " = A title = \n", " Some words of an article , and more of them . \n"] * 30
    path = write_parquet(tmp_path / "rows.parquet", rows)
    wikitext2 = source("wikitext2", path=path, evaluation_path=path, sequences=3, length=8)
    blank = encode(tokenizer, "\n\n".join(rows))
    assert torch.equal(wikitext2.evaluation(tokenizer, 8), windows(blank, 8))
    assert torch.equal(wikitext2.calibration(tokenizer, 512), drawn(encode(tokenizer, " ".join(rows)), 3, 8, 0))
    gptq = source("wikitext2", path=path, sequences=3, length=8, train_join="\n\n")
    assert torch.equal(gptq.calibration(tokenizer, 512), drawn(blank, 3, 8, 0))


def test_ptb_sentences_are_joined_by_one_space_whatever_file_they_come_in(tmp_path, tokenizer):
    sentences = ["no it was n't black monday", "the <unk> index fell N points"] * 20
    text = tmp_path / "ptb.train.txt"
    text.write_text("".join(f" {sentence} \n" for sentence in sentences))
    table = write_parquet(tmp_path / "0000.parquet", sentences, "sentence")
    expected = encode(tokenizer, " ".join(sentences))
    for path in (str(text), table):
        ptb = source("ptb", path=path, evaluation_path=path, sequences=2, length=16)
        assert torch.equal(ptb.evaluation(tokenizer, 16), windows(expected, 16))
        assert torch.equal(ptb.calibration(tokenizer, 512), drawn(expected, 2, 16, 0))


def test_a_file_in_the_cache_is_used_offline_and_a_missing_one_is_named(tmp_path, tokenizer, monkeypatch):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    c4 = source("c4", sequences=1, length=4)
    refused(lambda: c4.calibration(tokenizer, 64), "allenai/c4", c4.train_file, "data.path=FILE", kind=OSError)
    refused(lambda: c4.evaluation(tokenizer, 4), c4.evaluation_file, "data.evaluation_path=FILE", kind=OSError)
    cached = tmp_path / "datasets--allenai--c4" / "snapshots" / c4.revision / c4.train_file
    cached.parent.mkdir(parents=True)
    write_lines(cached, ["enough words for a window of four"])
    assert c4.calibration(tokenizer, 64).shape == (1, 4)


def test_a_missing_local_file_is_found_before_anything_runs(tmp_path):
    for option in ("c4", "wikitext2", "ptb"):
        source(option).check()
        for field in ("path", "evaluation_path"):
            corpus = source(option, **{field: str(tmp_path / "no.txt")})
            refused(corpus.check, "no.txt: no such file", kind=FileNotFoundError)
