"""What names a computation: everything that changes its result, and nothing else, setting by setting."""

import json
from functools import cache

import pytest
import yaml
from hydra import compose, initialize
from omegaconf import OmegaConf

from experiments.composing.groups import CONF
from experiments.models import location
from experiments.runs import identity
from tests.tiny import network

# Every setting of a run by its first word: what counts, and what does not.
COUNTS = {"model", "data", "pattern", "metric", "allocator", "update", "quantizer"}
COUNTS |= {"granularity", "propagate", "batch", "seed", "given", "then", "correction"}
IDLE = {"eval", "tracker", "device", "outputs", "sweep", "scratch", "activations", "save_model", "plugins"}
READ_ELSEWHERE = {"sparsity", "scope"}  # allocator.sparsity and pattern.scope take their values
PARTS = ("allocator", "metric", "update", "pattern", "data")  # groups with one option each


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    network().model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The models are read once."""
    monkeypatch.setattr(location, "fingerprint", cache(location.fingerprint))


@cache
def composed(*options):
    with initialize(version_base="1.3", config_path="../conf"):
        return compose("config", overrides=["model=local", "model.path=none", *options])


def config(model, *overrides):
    """The configuration of a run on the model: options are composed, settings are put into it."""
    options = [line for line in overrides if (CONF / line.partition("=")[0]).is_dir()]
    chosen = composed(*options).copy()
    for line in [f"model.path={model}", *(line for line in overrides if line not in options)]:
        name, _, value = line.partition("=")
        OmegaConf.update(chosen, name, yaml.safe_load(value))
    return OmegaConf.to_container(chosen, resolve=True) | {"given": None}


def every_option(model):
    """Configurations in which each option of each group is chosen at least once."""
    options = {part: sorted(file.stem for file in (CONF / part).glob("*.yaml")) for part in (*PARTS, "eval")}
    paths = {"textfile": ["data.path=none.txt"], "tokens": ["data.path=none.safetensors"]}
    for place in range(max(map(len, options.values()))):
        chosen = {part: options[part][place % len(options[part])] for part in PARTS}
        lines = [f"{part}={option}" for part, option in chosen.items()] + paths.get(chosen["data"], [])
        evaluations = [name for name in options["eval"] if name != "perplexity" or "path" not in str(lines)]
        yield config(model, *lines, f"eval=[{','.join(evaluations)}]", "tracker=[jsonl,wandb]")


def leaves(node, place=()):
    """Where every single setting of a configuration is."""
    if not isinstance(node, dict) or not node:
        return [place]
    return [found for name, part in node.items() for found in leaves(part, (*place, name))]


def changed(configuration, place):
    """The configuration with another value at this place."""
    copy = json.loads(json.dumps(configuration))
    node = copy
    for name in place[:-1]:
        node = node[name]
    value = node[place[-1]]
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, int | float):
        value += 1
    else:
        value = ["other"] if isinstance(value, list | dict) else f"{value or ''}other"
    node[place[-1]] = value
    return copy


def counts(configuration, place):
    """Whether the rule says that this setting changes the weights."""
    if place[0] == "model":
        return place[1] not in ("device", "revision")  # of a folder: a revision is the hub's
    return place[0] in COUNTS


def test_every_setting_of_every_option_changes_the_identity_or_does_not_as_the_rule_says(model):
    seen = 0
    for configuration in every_option(model):
        before = identity.identity(configuration)
        for place in leaves(configuration):
            if place[0] == "given":
                continue  # below
            assert place[0] in COUNTS | IDLE | READ_ELSEWHERE, f"{place[0]} is new: say here whether it counts"
            same = identity.identity(changed(configuration, place)) == before
            assert same != counts(configuration, place), ".".join(place)
            seen += 1
    assert seen > 300


def test_the_run_whose_masks_are_given_counts_as_its_own_identity_does(model):
    inner = config(model)
    outer = config(model, "update=sparsegpt") | {"given": {"config": inner, "names": {"method": "wanda"}}}
    before = identity.identity(outer)
    assert before != identity.identity(outer | {"given": None})
    for place in leaves({name: part for name, part in inner.items() if name != "given"}):
        other = changed(inner, place)
        same = identity.identity(outer | {"given": {"config": other, "names": {"method": "x"}}}) == before
        assert same == (identity.identity(other) == identity.identity(inner)), ".".join(place)


@pytest.mark.parametrize(
    ("package", "lines", "same"),
    [
        ("torch", [], False),
        ("transformers", [], False),
        ("prodigyopt", [], True),
        ("prodigyopt", ["allocator=besa"], False),
        ("lm_eval", ["eval=[zeroshot]"], True),
        ("python", [], False),  # the default text is this Python's documentation
        ("python", ["data=c4"], True),
        ("wandb", [], True),
    ],
)
def test_the_versions_that_matter_count_where_they_matter(model, monkeypatch, package, lines, same):
    configuration = config(model, *lines)
    before = identity.identity(configuration)
    release = identity.release
    monkeypatch.setattr(identity, "release", lambda name: "0.1" if name == package else release(name))
    assert (identity.identity(configuration) == before) == same


def test_a_new_lm_eval_is_another_evaluation_and_the_same_run(model, monkeypatch):
    settings = config(model, "eval=[zeroshot,perplexity]", "data=c4")
    step = lambda name: identity.fingerprint(identity.by_content(settings["eval"][name]))
    found = lambda: [step("zeroshot"), identity.dense(settings, "zeroshot"), step("perplexity")]
    before, release = found(), identity.release
    monkeypatch.setattr(identity, "release", lambda name: "0.1" if name == "lm_eval" else release(name))
    assert [one == other for one, other in zip(found(), before, strict=True)] == [False, False, True]


def test_the_suffix_of_a_build_does_not_count(monkeypatch):
    monkeypatch.setattr(identity, "installed", lambda package: "2.13.0+cu130")
    assert identity.release("torch") == "2.13.0"
    monkeypatch.undo()
    assert identity.release("python").startswith("3.")
    assert identity.release("no-such-package") is None


def test_the_dtype_counts_as_it_turns_out(model):
    who = lambda dtype: identity.identity(config(model, f"model.dtype={dtype}"))
    assert json.loads((model / "config.json").read_text())["dtype"] == "float32"
    assert who("auto") == who("float32") != who("float16")


def test_a_file_counts_with_its_content_not_its_place(model, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("one.txt", "a/two.txt", "three.txt"):
        (tmp_path / name).write_text("other" if name == "three.txt" else "the same words")
    found = [
        identity.identity(config(model, "data=textfile", f"data.path={tmp_path / name}"))
        for name in ("one.txt", "a/two.txt", "three.txt")
    ]
    assert found[0] == found[1] != found[2]


EVALUATIONS = {
    "seed=3": 1,
    "data.sequences=7": 1,
    "sparsity=0.7": 1,
    "eval.perplexity.length=64": 0,
    "batch=2": 0,
    "model.dtype=float16": 0,
    "outputs=elsewhere": 1,
}


def test_the_dense_model_is_evaluated_once_whatever_the_calibration(model):
    before = identity.dense(config(model), "perplexity")
    found = {change: identity.dense(config(model, change), "perplexity") == before for change in EVALUATIONS}
    assert found == EVALUATIONS


def test_what_is_found_on_the_dense_model_depends_on_model_batch_tokens_and_its_own_fields(model):
    who = lambda *lines, tokens="abc", statistic="Trace(seed=0)": identity.survey(
        config(model, *lines), tokens, statistic
    )
    assert who() == who("sparsity=0.7") == who("update=sparsegpt") == who("outputs=elsewhere")
    others = [who("batch=2"), who(tokens="abd"), who(tokens=None), who(statistic="Trace(seed=1)")]
    assert len({who(), *others, who("model.dtype=float16")}) == 6


def test_a_whole_number_and_the_same_fraction_name_one_run():
    one = identity.fingerprint({"ratio": [1, {"alpha": 100}]})
    assert one == identity.fingerprint({"ratio": [1.0, {"alpha": 100.0}]})
    assert identity.fingerprint(True) != identity.fingerprint(1) != identity.fingerprint(1.5)
