"""A half precision model computes in float32 on a CPU unless asked otherwise: named, told, and saved as it was."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from experiments.composing import command
from experiments.console.errors import note
from experiments.models import location, saving
from experiments.models.load import SLOW, load
from experiments.planning import describe
from experiments.planning.outlook import outlook
from experiments.running import components, pipeline
from experiments.runs import machine
from prune.prune import prune
from tests.test_cache import WORDS
from tests.tiny import Memory, network, sparsegpt, tokens


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same tiny model in float16 and float32, and a text."""
    place = tmp_path_factory.mktemp("compute")
    tokenizer = AutoTokenizer.from_pretrained(location.located("demo"))
    for kind in (torch.float16, torch.float32):
        name = str(kind).removeprefix("torch.")
        network(vocab_size=len(tokenizer)).model.to(kind).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    (place / "text.txt").write_text("".join(f"{number}. {WORDS}" for number in range(40)))
    return place


def job(folders, tmp_path, *words, kind="float16", flags=()):
    text = ["data=textfile", f"data.path={folders}/text.txt", f"eval.perplexity.path={folders}/text.txt"]
    sizes = ["data.sequences=6", "data.length=32", "eval.perplexity.length=32", "experiment=sparsegpt"]
    own = ["model=local", f"model.path={folders}/{kind}", f"outputs={tmp_path}", *text, *sizes, *words]
    return command.jobs([*flags, *own])[0]


@pytest.mark.parametrize(
    ("words", "gpu", "kind", "expected"),
    [
        (["device=cpu"], True, "float16", "float32"),
        ([], False, "float16", "float32"),
        ([], True, "float16", None),
        (["device=cuda"], False, "float16", None),
        (["device=cpu"], False, "float32", None),
        (["device=cpu", "model.dtype=float16"], False, "float16", None),
        (["device=cpu", "model.dtype=auto"], False, "float16", None),
        (["device=cpu", "model.compute=dtype"], False, "float16", None),
        (["device=cuda", "model.compute=float32"], True, "float16", "float32"),
        (["hydra/launcher=submitit_slurm"], False, "float16", None),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=0"], True, "float16", "float32"),
        (["hydra/launcher=submitit_local"], False, "float16", "float32"),
    ],
    ids=str,
)
def test_a_run_says_in_which_dtype_it_computes(folders, tmp_path, monkeypatch, words, gpu, kind, expected):
    monkeypatch.setattr(machine, "gpu", lambda: gpu)
    flags = ["-m"] if "launcher" in str(words) else []
    composed = job(folders, tmp_path, *words, kind=kind, flags=flags)
    assert composed.config["model"].get("compute") == expected
    monkeypatch.setattr(machine, "gpu", lambda: not gpu)
    elsewhere = command.jobs([*(["-m"] if flags else []), *composed.handed_over])[0]
    assert elsewhere.run.folder == composed.run.folder, "a launcher's machine has another GPU, and the run one name"


def test_what_is_computed_in_another_dtype_has_another_name(folders, tmp_path):
    name = lambda *words, kind="float16": job(folders, tmp_path, "device=cpu", *words, kind=kind).run.folder.name
    asked, as_stored = name("model.dtype=float16"), name("model.compute=dtype")
    assert asked == as_stored == name("model.dtype=auto") != name()
    assert name("model.dtype=float32") not in (name(), asked), "its weights are not rounded"
    assert name(kind="float32") == name("model.dtype=float32", kind="float32")


def test_a_word_that_is_no_way_to_compute_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match=r"model\.compute=float16: expected auto, float32 or dtype"):
        job(folders, tmp_path, "model.compute=float16")


def test_a_float16_folder_is_float16_again_when_it_is_saved_and_its_numbers_are_those_of_what_is_saved(
    folders, tmp_path
):
    words = ["device=cpu", "save_model=true", "eval=[perplexity,audit]"]
    done = pipeline.run(job(folders, tmp_path, *words).run)
    results = json.loads((done.folder / "results.json").read_text())
    assert done.stored()["config"]["model"]["compute"] == "float32"
    assert {layer["dtype"] for layer in results["layers"]} == {"float16"}
    assert json.loads((done.folder / "model" / "config.json").read_text())["dtype"] == "float16"
    stored = {}
    for file in (done.folder / "model").glob("*.safetensors"):
        stored |= load_file(file)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    matrices = [stored[f"{layer['name']}.weight"] for layer in results["layers"]]
    assert sum(int((m == 0).sum()) for m in matrices) == sum(m.numel() for m in matrices) // 2
    again = load(str(done.folder / "model"), None, "float32", False, None, 8, "cpu")
    own = components.build(done.config).evaluators["perplexity"](again)["metrics"]
    assert own.items() <= results["metrics"].items(), "to the last digit"


@pytest.mark.parametrize(("family", "kind"), [("llama", torch.float16), ("mixtral", torch.bfloat16)])
def test_weights_are_rounded_once_and_saved_as_they_were_computed_with(tmp_path, family, kind):
    network(family).model.to(kind).save_pretrained(tmp_path / "dense")
    name = str(kind).removeprefix("torch.")
    subject = load(str(tmp_path / "dense"), None, "auto", False, None, 4, "cpu", compute="float32")
    assert (subject.model.dtype, subject.narrow) == (torch.float32, kind)
    for solved in prune(subject, tokens(), sparsegpt(), done=Memory()):
        assert {p.weight.dtype for p in solved.linears.values()} == {kind}
    saving.save(subject, tmp_path / "pruned")
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["dtype"] == name
    for file in (tmp_path / "pruned").glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {kind}
    again = load(str(tmp_path / "pruned"), None, "auto", False, None, 4, "cpu", compute="float32")
    assert torch.equal(again.losses(tokens()), subject.losses(tokens()))


def test_who_asks_for_float16_on_a_cpu_hears_that_it_is_slow(folders, caplog):
    note.cache_clear()
    place = str(folders / "float16")
    load(place, None, "auto", False, None, 4, "cpu", compute="float32")
    assert not caplog.messages
    load(place, None, "float16", False, None, 4, "cpu")
    assert [line for line in caplog.messages if "slower" in line] == [
        "model.dtype=float16: computing in float16, several times slower on a CPU than float32, which is what it "
        "computes in there without model.dtype="
    ]


@pytest.mark.slow
def test_a_plan_says_in_which_dtype_a_run_computes(folders, tmp_path):
    told = lambda *words: describe.describe(outlook(job(folders, tmp_path, "device=cpu", *words).config))
    assert "computed in float32; its weights stay what float16 can hold, and are saved so\n" in told()
    assert f"computed in float16, {SLOW}\n" in told("model.dtype=float16")
    assert "computed in" not in told("model.dtype=float32")
