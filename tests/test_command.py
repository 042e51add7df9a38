"""The command line: every mistake in it is found before anything runs, and gets one line that helps."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

from experiments import prune_lm
from experiments.composing import command, job
from experiments.composing.groups import composing

ROOT = Path(__file__).parents[1]


def names(*arguments: str):
    return [job.names for job in command.jobs(list(arguments)) or []]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sparsty=0.5", "sparsty: no such setting, did you mean sparsity?"),
        ("modl=demo", "modl: no such setting, did you mean model?"),
        ("experiment=wnda", "experiment=wnda: no such option, did you mean wanda?; there are admm, alphapruning"),
        ("eval=[perplexty]", "eval=perplexty: no such option, did you mean perplexity?"),
        ("tracker=[wand]", "tracker=wand: no such option, did you mean wandb?"),
        ("experiment=sparsegpt update.dampng=1", "update.dampng: no such setting, did you mean update.damping?"),
        ("+x=1", "x: no such setting"),
        ("foo", "cannot read the command line"),
        ("-m wanda", "write name=value, a list as name=[a,b]; did you mean experiment=wanda?"),
        ("pattern 2of4", "did you mean pattern=NAME?"),
        ("--experiment wanda", "--experiment: a setting is written without dashes, experiment=wanda;"),
        ("--save-model", "without dashes, save_model=VALUE"),
        ("-pattern=2of4", "-pattern=2of4: a setting is written without dashes, pattern=2of4;"),
        ("-m --sparsity 0.3,0.5 experiment=wanda", "without dashes, sparsity=0.3,0.5;"),
        ("-sc install=bash", 'eval "$(prune-lm completion)" does'),
        ("--config-dir", "expected one argument; --help lists flags and settings"),
        ("pattern=2:4", "pattern=2:4: no such option, did you mean 2of4?"),
        ("sparsity=abc", "sparsity: expected a number such as 0.5, found abc"),
        ("data.sequences=1.5", "data.sequences: expected a whole number such as 128, found 1.5"),
        ("sparsity=null", "sparsity: expected a number such as 0.5, found None"),
        ("device=null", "device: expected a value, found null"),
        ("outputs=", "outputs: expected a folder, found nothing"),
        ("experimnt=wanda", "experimnt: no such setting, did you mean experiment?"),
        (
            "eval=[audit] eval.zeroshot.limit=5",
            "eval.zeroshot.limit: zeroshot is not chosen; add it",
        ),
        ("save_model=maybe", "save_model: expected false, true or packed, found maybe"),
        ("experiment=wanda,sparsegpt", "experiment=wanda,sparsegpt asks for several runs; add -m"),
        ("model=local", "model.path is not set; give model.path=..."),
        ("data=textfile", "data.path is not set"),
        ("metric._target_=os.system", "metric._target_=os.system: a class is chosen as an option"),
        ("-m experiment=wanda,sparsgpt", "experiment=sparsgpt: no such option, did you mean sparsegpt?"),
    ],
)
def test_a_mistake_gets_one_line(arguments, words):
    with pytest.raises(ValueError) as caught:
        command.jobs(arguments.split())
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_multirun_is_all_combinations_in_order_under_one_name():
    asked = ["-m", "experiment=magnitude,wanda", "pattern=unstructured,2of4"]
    assert [(n.method, n.pattern) for n in names(*asked)] == [
        ("magnitude", "unstructured"),
        ("magnitude", "2of4"),
        ("wanda", "unstructured"),
        ("wanda", "2of4"),
    ]
    sweeps = {n.sweep for order in ((0, 1, 2), (1, 2, 0), (0, 2, 1)) for n in names(*(asked[k] for k in order))}
    assert len(sweeps) == 1 and sweeps.pop().startswith("sweep-"), "flags may stand anywhere"
    assert names("experiment=wanda")[0].sweep is None


def test_a_method_is_named_by_its_experiment_and_what_was_exchanged_in_it():
    assert names()[0].model == "demo", "a command line without a word"
    assert names("experiment=wanda")[0].method == "wanda"
    assert names("experiment=wanda", "update=sparsegpt")[0].method == "wanda+sparsegpt"
    assert names("metric=random", "update=sparsegpt")[0].method == "random+sparsegpt"
    assert names("model=local", "model.path=/x/my-llama/")[0].model == "my-llama"


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ("metric=wanda update=zero", "wanda"),
        ("metric=wanda update=zero granularity=submodule", "wanda"),  # as experiment=wanda with it is
        ("metric=wanda update=zero scope=matrix", "wanda+zero"),
        ("metric=magnitude update=zero", "magnitude+zero"),  # compared in rows, which the experiment does not
        ("metric=magnitude update=zero scope=matrix", "magnitude"),
        ("metric=magnitude update=zero pattern=2of4", "magnitude"),
        ("experiment=wanda allocator=owl", "owl"),
        ("experiment=owl allocator=uniform", "wanda"),
        ("metric=wanda update=barber given=wanda granularity=submodule", "barber"),
        ("metric=wanda update=barber given=magnitude granularity=submodule", "wanda+barber+given-magnitude"),
        ("experiment=wanda given=magnitude", "wanda+given-magnitude"),
        ("metric=wanda allocator=besa_layer update=zero", "besa_layer"),
        ("metric=gblm metric.alpha=50 update=zero", "gblm"),
        ("metric=wanda update=zero sparsity=0", "dense"),
        ("experiment=sparsegpt quantizer=minmax", "sparsegpt_joint"),
        ("experiment=sparsegpt quantizer=minmax quantizer.order=after", "sparsegpt+minmax"),
        ("experiment=sparsegpt quantizer=minmax quantizer.sweep=false", "sparsegpt+minmax"),
        ("experiment=sparsegpt quantizer=minmax sparsity=0", "gptq"),
        ("experiment=wanda quantizer=minmax", "wanda+minmax"),
    ],
)
def test_a_method_under_other_words_is_called_by_its_experiment(words, method):
    assert names(*words.split())[0].method == method


@pytest.mark.parametrize("flag", ["--help", "--cfg", "--info"])
def test_questions_about_the_command_are_left_to_hydra(flag):
    assert command.jobs([flag, "job"] if flag == "--cfg" else [flag]) is None


def test_help_is_written_for_a_person():
    answer = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0
    assert answer.stdout.startswith("Prune a language model")
    assert (
        "update: admm, alps, barber, dsnot, reconstruct, refit, sparsegpt, swaps, zero" in answer.stdout
        and "Powered by Hydra" not in answer.stdout
    )


def test_a_mistake_ends_the_process_with_code_2_and_no_traceback():
    asked = [sys.executable, "-m", "experiments.run", "sparsty=0.5"]
    answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.strip() == "error: sparsty: no such setting, did you mean sparsity?; --help lists them"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("table besa_wikitext2 --models=[demo]", "--models=[demo]: a setting is written without dashes, models=[demo]"),
        ("table besa_wikitext2 --seeds 3", "without dashes, seeds=3"),
        ("table --dryrun", "--dryrun is not expected, did you mean --dry-run?"),
        ("bench methods --sparsity=0.5", "without dashes, sparsity=0.5"),
        ("bench latency model=demo", "model=demo: a setting of experiments.run, and none here"),
        ("bench lateny", "invalid choice: 'lateny'"),
        ("report outputs model=demo", "model=demo: an option here; write --model demo"),
        ("cache outputs model=demo", "model=demo: a setting of experiments.run, and none here"),
        ("report outputs update.damping=1", "a setting of experiments.run, and none here"),
        ("report outputs to=x", "to=x: an option here; write --to x"),
        ("report", "arguments are required: OUTPUTS"),
        ("compare a b outputs=x", "write --outputs x"),
        ("compare epoch=3 b", "epoch=3 is no run"),
        ("status outputs=x", "outputs=x: write x alone"),
        ("status --sweep lr=1 x", "no folder x"),
        ("verify x pattern=2of4", "write --pattern 2of4"),
        ("cache --brokn", "--brokn is not expected, did you mean --broken?"),
        ("plan --model demo", "--model: a setting is written without dashes, model=demo"),
    ],
)
def test_a_setting_where_none_belongs_and_one_with_dashes_get_a_line(command, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *asked = command.split()
    assert import_module(f"experiments.{name}").main(asked) == 2
    said = capsys.readouterr()
    assert not said.out and words in said.err and said.err.count("\n") == 1, said.err


def test_whoever_stops_reading_ends_every_command_without_a_word():
    reads = [*prune_lm.COMMANDS, "table --list"]
    lines = [[sys.executable, "-m", *f"experiments.{line}".split()] for line in reads]
    asked = [line if "--list" in line else [*line, "--help"] for line in lines]
    pipes = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for line in asked]
    for pipe in pipes:
        pipe.stdout.close()
    for line, pipe in zip(asked, pipes, strict=True):
        assert (pipe.wait(), pipe.stderr.read()) == (141, b""), line


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=sparsegpt", "pattern=2of4", "update.damping=0.1", "data.sequences=4", "update.damping=0.2"],
        ["experiment=sparsegpt", "update.damping=0.3", "seed=3", "sparsity=0.25"],  # the same options, other values
        ["eval=[perplexity,kl]", "eval.perplexity.windows=3", "tracker=[]", "model=local", "model.path='a,b (1)'"],
        ["experiment=gblm", "allocator.sparsity=${batch}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"],
        ["quantizer=mse", "quantizer={bits:3,group:null}", "sweep=name", "scratch=null"],
        ["update=admm", "+update@then.reconstruct=reconstruct", "then.reconstruct.epochs=3"],
    ],
)
def test_a_run_is_what_hydra_composes_of_its_words_at_once(words):
    with composing():
        config, choices = job.composed(words)
        whole = compose("config", overrides=words, return_hydra_config=True)
        OmegaConf.set_struct(whole, False)
        known = whole.pop("hydra").runtime.choices
        assert OmegaConf.to_container(config) == OmegaConf.to_container(whole)
        assert dict(choices) == dict(known)


def test_jobs_of_the_same_options_are_composed_once(monkeypatch):
    asked, plain = [], job.compose
    monkeypatch.setattr(job, "compose", lambda *words, **more: asked.append(more) or plain(*words, **more))
    lines = [["experiment=wanda", "pattern=4of8", f"data.sequences={count}"] for count in range(5, 15)]
    assert [one.config["data"]["sequences"] for one in command.compose_jobs(lines, {})] == list(range(5, 15))
    assert len(asked) <= 1
