"""What every pattern, metric, allocator and update must do. Options are found in conf/: a new one is tested unasked.

Those of packages elsewhere are too: PRUNE_PLUGINS=mypackage pytest tests/test_contracts.py -k OPTION.
"""

import inspect
import re
from functools import cache
from itertools import zip_longest

import pytest
import torch
import yaml
from hydra import compose
from hydra.utils import get_class, get_object, instantiate
from omegaconf import OmegaConf

from experiments.composing.groups import composing, evaluations_of, options_of, places
from experiments.composing.plugins import plugins_of
from prune.chain import chain
from prune.correction import Correction
from prune.method import Method
from prune.prune import at_once, gather, prune, survey
from tests.tiny import Memory, network, tokens

PRESETS = ("experiment", "ablate")  # settings of other options
PARTS = ("pattern", "metric", "allocator", "update", "quantizer")
SLOW = pytest.mark.slow  # what another of the cells shows as well
FAMILIES = ["opt", pytest.param("llama", marks=SLOW), pytest.param("mixtral", marks=SLOW)]
with composing():
    FILES = sorted(file for place in places() for file in place.glob("*/*.yaml"))


def options(*groups: str) -> list[str]:
    with composing():
        return [f"{group}={option}" for group in groups for option in options_of(group)]


def suite_of(option: str) -> set[str]:
    with composing():
        return set(evaluations_of(option))


@cache
def composed(*overrides: str):
    with composing():
        config = compose("config", overrides=list(overrides))
        OmegaConf.resolve(config)
        return config


FINER = {"update=reconstruct": ["update.reference=pruned"]}  # what an option needs where units are not blocks


def fitting(option: str) -> list[str]:
    """The option with the sparsity that it admits."""
    pattern = composed(option).pattern
    return [option, f"sparsity={1 - pattern.n / pattern.m}"] if "m" in pattern else [option]


def method_of(config) -> Method:
    """The method of a composed configuration, whole."""
    pattern, metric, allocator, update, quantizer = (instantiate(config[part]) for part in PARTS)
    then = {name: instantiate(part) for name, part in config.then.items()}
    correction = Correction(config.correction) if config.correction else None
    return Method(pattern, metric, allocator, chain(update, then), quantizer, correction)


def solve(*overrides: str, family: str = "llama", make=network, done: Memory | None = None, data=None):
    """The configuration, the pruned model and its answers by full name; what is `given` is made first.

    make: family -> dense model; done: keeps the solved blocks; data: calibration tokens.
    """
    if {"experiment=barber", "update=barber"} & set(overrides):
        overrides = (*overrides, "update.ratio=0.5")  # at the paper's 0.01 rows as short as these swap nothing
    if {"experiment=wanda_joint", "quantizer=learned"} & set(overrides):
        overrides = (*overrides, "quantizer.epochs=2")
    config, data = composed(*overrides), tokens() if data is None else data
    method = method_of(config)
    method.check(config.given)
    given = Memory() if config.given else None
    if given is not None:
        shared = [line for line in overrides if line.partition("=")[0] in ("pattern", "sparsity", "seed")]
        solve(f"experiment={config.given}", *shared, family=family, make=make, done=given, data=data)
    subject = make(family)
    walk = prune(subject, data, method, config.granularity, config.propagate, done, given)
    return config, subject, {name: p for solved in walk for name, p in solved.linears.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("option", options(*PARTS))
def test_an_option_prunes_to_the_weight_and_leaves_zeros_off_the_mask(option, family):
    config, subject, solved = solve(*fitting(option), family=family)
    for name, p in solved.items():
        assert subject.weights()[name].isfinite().all()
        assert (subject.weights()[name][~p.mask] == 0).all()
    kept = sum(int(p.mask.sum()) for p in solved.values())
    assert kept == round((1 - config.allocator.sparsity) * sum(p.mask.numel() for p in solved.values()))


@pytest.mark.parametrize("option", options("metric"))
def test_scores_of_a_slice_are_a_slice_of_the_scores(option):
    slices_agree(Method(*(instantiate(composed(option)[part]) for part in PARTS)))


def slices_agree(method: Method) -> None:
    """Holds if the scores of some columns are those that they have among all, to the bit."""
    subject, data = network(), tokens()
    block = next(subject.walk(data))
    for linear in gather(block, list(block.weights), method, survey(subject, data, method, at_once)).values():
        assert torch.equal(linear.score()[:, 8:24], linear.score(columns=slice(8, 24)))


@pytest.mark.parametrize("option", options(*PARTS))
@pytest.mark.parametrize("granularity", [pytest.param("submodule", marks=SLOW), "sequential"])
def test_an_option_works_at_a_finer_granularity_and_on_the_dense_stream(option, granularity):
    _, subject, solved = solve(
        *fitting(option), *FINER.get(option, []), f"granularity={granularity}", "propagate=dense"
    )
    assert all(torch.equal(subject.weights()[name] != 0, p.mask & (p.weight != 0)) for name, p in solved.items())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_yaml_lists_every_parameter_of_what_it_builds(path):
    config = yaml.safe_load(path.read_text())
    if path.parent.name in PRESETS:
        assert path.read_text().startswith("# @package _global_\n# "), "a line that names the paper"
        return
    if path.parent.name == "eval" and suite_of(path.stem) != {path.stem}:
        assert set(config) - {"defaults"} <= suite_of(path.stem), "settings of evaluations that the suite makes"
        return
    entries = [config] if "_target_" in config else [part for name, part in config.items() if name != "defaults"]
    for entry in entries:
        target = get_object(entry["_target_"])
        nested = {"text"} if any("/data/" in str(key) for key in config.get("defaults", [])) else set()
        asked = set(inspect.signature(target).parameters) - {"outputs", "name"}  # which the runner gives
        assert set(map(str, entry)) - {"_target_"} | nested == asked


EACH = zip_longest(*(options(group) for group in ("model", "data", "eval", "tracker", "experiment")))


@pytest.mark.parametrize("together", [tuple(filter(None, one)) for one in EACH], ids=" ".join)
def test_every_option_composes(together):
    listed = [re.sub("^(eval|tracker)=(.*)", r"\1=[\2]", option) for option in together]
    assert composed(*listed).sparsity == 0.5


def test_conf_names_only_trusted_classes_and_every_key_has_its_comment():
    trusted = tuple(f"{package}." for package in ("prune", "experiments", *plugins_of([])))
    for path in FILES:
        lines = path.read_text().splitlines()
        for line in lines:
            if "_target_" in line:
                assert line.split("_target_:")[1].strip().startswith(trusted), path
            elif ":" in line and not line.lstrip().startswith(("#", "-")) and line.partition(":")[2].strip():
                assert "#" in line or path.parent.name in PRESETS, f"{path}: {line} says nothing of what it is"


def test_components_are_frozen_and_say_what_they_are():
    for path in FILES:
        if path.parent.name in PARTS:
            kind = get_class(yaml.safe_load(path.read_text())["_target_"])
            assert kind.__dataclass_params__.frozen
            assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


def test_barber_swaps_in_these_tests():
    solved = solve("experiment=barber")[2]
    assert sum(p.notes["swapped"] for p in solved.values()) > 100


@pytest.mark.parametrize("experiment", [o for o in options("experiment") if o != "experiment=dense"])
def test_any_part_of_an_experiment_can_be_exchanged(experiment):
    own = composed(experiment)
    for part in options("metric", "allocator", "update"):
        other = {part.partition("=")[0]: part}
        method = Method(*(instantiate((composed(other[kind]) if kind in other else own)[kind]) for kind in PARTS))
        try:
            method.check(own.given)
        except ValueError as refused:
            assert "\n" not in str(refused)
