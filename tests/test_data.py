"""What a data source hands to the pruner, against windows cut by hand from real text with a real tokenizer."""

import gzip
import hashlib
import inspect
import json
import logging
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from experiments.data.files import TextFile, Tokens, at
from experiments.data.windows import capped, drawn, encode, sha256_of, windows

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CORPORA = SHARED / "data" / "corpora"
C4_SAMPLE = CORPORA / "c4-en-500.jsonl.gz"
WIKITEXT_TEST = CORPORA / "wikitext2-raw-test.txt"
PARITY = SHARED / "parity" / "wiki-llama-3m-calib.safetensors"
OPTIONS = ("c4", "wikitext2", "ptb", "textfile", "tokens")
needs_shared = pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the real text in ../shared/data")


@pytest.fixture(scope="module")
def tokenizer():
    folder = SHARED / "data" / "models" / "wiki-llama-3m"
    if not folder.is_dir():
        pytest.skip("needs the real tokenizer in ../shared/data")
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


def source(option, **changes):
    """The data source as the runner makes it: its YAML, with the changes a user would type."""
    chosen = OmegaConf.load(ROOT / "conf" / "data" / f"{option}.yaml")
    return instantiate(OmegaConf.create({"seed": 0, "data": OmegaConf.merge(chosen, changes)}).data)


def write_lines(path, texts, field="text"):
    content = "".join(json.dumps({field: text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def write_parquet(path, texts, field="text"):
    pyarrow.parquet.write_table(pyarrow.table({field: texts}), path)
    return str(path)


def rows_of(ids, length):
    """All windows of a stream, one by one."""
    return torch.tensor([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])


def refused(call, *words, kind=ValueError):
    """The message of the error that `call` raises: one line that holds all `words`."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message


# --- windows


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
    refused(lambda: drawn(torch.arange(10), 0, 2, 0), "data.sequences=0")
    refused(lambda: capped(1, 512), "data.length=1")


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
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))
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


# --- the papers' corpora


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


@pytest.mark.skipif(not PARITY.is_file(), reason="needs the token files in ../shared/parity")
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
    constants = pytest.importorskip("huggingface_hub").constants
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


# --- a user's own files


def test_a_text_is_the_same_stream_in_every_kind_of_file(tmp_path, tokenizer):
    texts = ["First of all, a café.", "Then\nanother line.", "And the last of them."] * 10
    (tmp_path / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    paths = [str(tmp_path / "a.txt"), write_lines(tmp_path / "a.jsonl", texts)]
    paths += [write_lines(tmp_path / "a.jsonl.gz", texts), write_parquet(tmp_path / "a.parquet", texts)]
    ids = tokenizer("\n\n".join(texts))["input_ids"]
    for path in paths:
        text = source("textfile", path=path, sequences=4, length=16)
        text.check()
        assert text.name == "a"
        assert text.evaluation(tokenizer, 16).tolist() == rows_of(ids, 16).tolist()
        assert torch.equal(text.calibration(tokenizer, 512), drawn(torch.tensor(ids), 4, 16, 0))


def test_the_line_ends_of_windows_are_read_as_line_ends(tmp_path, tokenizer):
    (tmp_path / "unix.txt").write_bytes(b"one line\nand another\n" * 20)
    (tmp_path / "windows.txt").write_bytes(b"one line\r\nand another\r\n" * 20)
    found = [TextFile(str(tmp_path / name)).evaluation(tokenizer, 8) for name in ("unix.txt", "windows.txt")]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"text", ("a.csv", ".jsonl.gz")),
        ("a.txt", b"", ("a.txt", "empty")),
        ("a.txt", b" \n \n", ("a.txt", "no text")),
        ("a.txt", b"one\ntwo \xff", ("a.txt, line 2", "0xff", "UTF-8")),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y", "id": 1}\n', ("a.jsonl, line 2", '"text"', "body, id")),
        ("a.jsonl", b'{"text": 3}\n', ("a.jsonl, line 1", '"text"')),
        ("a.jsonl", b'{"text": "x"}\n\n["y"]\n', ("a.jsonl, line 3", "list")),
        ("a.jsonl", b'{"text": "x"\n', ("a.jsonl, line 1", "JSON")),
        ("a.jsonl", b'{"text": "\xff"}\n', ("a.jsonl, line 1", "UTF-8")),
        ("a.jsonl.gz", b'{"text": "x"}\n', ("a.jsonl.gz", "gzip")),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99)[:-9], ("a.jsonl.gz", "gzip", "again")),
        ("a.parquet", b"not a table", ("a.parquet", "Parquet")),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_in_one_line(tmp_path, name, content, words, tokenizer):
    (tmp_path / name).write_bytes(content)
    refused(lambda: TextFile(str(tmp_path / name)).evaluation(tokenizer, 8), *words)


def test_a_table_without_the_column_is_refused(tmp_path, tokenizer):
    path = write_parquet(tmp_path / "a.parquet", ["x"], "sentence")
    refused(lambda: TextFile(path).evaluation(tokenizer, 8), '"text"', "sentence")


def test_a_text_for_a_model_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    refused(lambda: TextFile(str(tmp_path / "a.txt")).evaluation(None, 8), "no tokenizer", "data=tokens")


@pytest.mark.skipif(not PARITY.is_file(), reason="needs the token files in ../shared/parity")
def test_token_files_are_taken_as_they_are():
    expected = load_file(PARITY)["tokens"]
    tokens = source("tokens", path=str(PARITY))
    tokens.check()
    assert tokens.name == "wiki-llama-3m-calib"
    assert torch.equal(tokens.calibration(None, 1024), expected)
    assert torch.equal(tokens.evaluation(None, 17), expected)
    part = source("tokens", path=str(PARITY), sequences=3, length=50).calibration(None, limit=64)
    assert torch.equal(part, expected[:3, :50])
    refused(lambda: tokens.calibration(None, limit=128), "256 tokens", "takes 128", "data.length=128")


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        ({"ids": torch.ones(2, 4, dtype=torch.int64)}, {}, ("`tokens`", "found ids")),
        ({"tokens": torch.ones(2, 4)}, {}, ("int64", "F32 [2, 4]")),
        ({"tokens": torch.ones(8, dtype=torch.int64)}, {}, ("int64", "I64 [8]")),
        ({"tokens": torch.ones(0, 4, dtype=torch.int64)}, {}, ("n >= 1", "[0, 4]")),
        ({"tokens": torch.full((2, 4), -1)}, {}, ("-1", "padding")),
        ({"tokens": torch.ones(2, 4, dtype=torch.int64)}, {"sequences": 3}, ("data.sequences=3", "2 rows")),
        ({"tokens": torch.ones(2, 4, dtype=torch.int64)}, {"length": 5}, ("data.length=5", "4 tokens")),
        (None, {}, ("not a readable safetensors file",)),
    ],
)
def test_a_token_file_of_another_form_is_refused_in_one_line(tmp_path, content, changes, words):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing") if content is None else save_file(content, path)
    refused(lambda: Tokens(str(path), **changes).calibration(None, 512), "a.safetensors", *words)


def test_a_token_file_that_is_none_is_refused(tmp_path):
    refused(Tokens(str(tmp_path / "a.txt")).check, "a.txt", "data=textfile")
    refused(Tokens(str(tmp_path / "a.safetensors")).check, "no such file", kind=FileNotFoundError)


def test_the_kind_of_a_file_follows_from_its_ending():
    assert isinstance(at("x/eval.safetensors"), Tokens)
    assert isinstance(at("x/eval.jsonl.gz"), TextFile)
    assert at("x/wikitext2-valid.tokens.txt").name == "wikitext2-valid.tokens"


# --- the options


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_lists_every_parameter_of_its_class(option):
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{option}.yaml"))
    assert isinstance(config, dict)
    kind = get_class(config.pop("_target_"))
    assert set(config) == set(inspect.signature(kind).parameters)
    assert kind.heldout is (option in ("c4", "wikitext2", "ptb"))
