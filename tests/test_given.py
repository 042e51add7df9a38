"""Runs that build on another run's masks, and what is found once on the dense model for all runs."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from experiments.composing import command
from experiments.running import components
from experiments.runs.identity import identity
from experiments.runs.results import has_blocks
from experiments.runs.stores import BlockStore, Surveys, load_masks
from prune.statistic import ModelStatistic
from tests.faults import ask
from tests.test_run import arguments, only, read  # noqa: F401 - a fixture among them


def composed(*overrides: str) -> dict:
    return command.jobs(list(overrides))[0].config


def masks(folder):
    files = sorted((folder / "masks").glob("*.safetensors"))
    return {f"{file.stem}.{name}": mask for file in files for name, mask in load_masks(file).items()}


@pytest.fixture(scope="module")
def chained(arguments, tmp_path_factory):  # noqa: F811
    """SparseGPT's update on Wanda's masks, asked for in one line."""
    outputs = tmp_path_factory.mktemp("chained")
    asked = ["update=sparsegpt", "given=wanda", f"outputs={outputs}", *arguments]
    answer = ask(*asked)
    assert answer.code == 0, answer.err
    return asked, outputs, answer, only(outputs, "*/wanda+sparsegpt+given-wanda-*")


def test_the_given_run_is_done_first_and_its_masks_are_taken_over(chained):
    _, outputs, answer, built = chained
    assert "given=wanda: its masks first" in answer.err
    given = only(outputs, "*/wanda-unstructured-*")
    assert read(given, "manifest.json")["status"] == "done"
    mine, theirs = masks(built), masks(given)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    better, worse = (read(folder, "results.json")["metrics"]["ppl/eval@128"] for folder in (built, given))
    assert better < worse, "the update repairs what the masks left"


def test_what_others_build_on_stays_on_disk_and_is_not_done_again(chained, arguments):  # noqa: F811
    _, outputs, *_ = chained
    given = only(outputs, "*/wanda-unstructured-*")
    assert has_blocks(given)
    before = read(given, "manifest.json")["finished"]
    again = ask("update=sparsegpt", "given=wanda", "update.damping=0.1", f"outputs={outputs}", *arguments)
    assert again.code == 0, again.err
    assert read(given, "manifest.json")["finished"] == before
    plain = ask("experiment=wanda", f"outputs={outputs}", *arguments)
    assert plain.code == 0 and has_blocks(given), "the run is one that was there already"


def test_a_given_run_that_kept_no_weights_is_pruned_again_to_the_same_bits(chained, arguments):  # noqa: F811
    asked, outputs, _, built = chained
    given = only(outputs, "*/wanda-unstructured-*")
    weights = lambda: {file.name: load_file(file) for file in (given / "blocks").iterdir()}
    kept = weights()
    BlockStore(given).drop_weights()
    (built / "results.json").unlink()
    answer = ask(*asked)
    assert answer.code == 0, answer.err
    again = weights()
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[file][name], kept[file][name]) for file in kept for name in kept[file])


def test_the_given_run_shares_model_data_and_budget_and_has_its_own_method():
    config = composed(
        "update=sparsegpt", "given=magnitude", "sparsity=0.6", "pattern.scope=row", "seed=3", "data.sequences=9"
    )
    inner = config["given"]["config"]
    assert (inner["sparsity"], inner["seed"], inner["data"]["sequences"]) == (0.6, 3, 9)
    assert inner["metric"]["_target_"].endswith("Magnitude") and inner["update"]["_target_"].endswith("Zero")
    assert inner["scope"] == inner["pattern"]["scope"] == "matrix" and inner["given"] is None
    assert composed("experiment=barber", "given=null")["given"] is None
    assert config["given"]["names"]["method"] == "magnitude"


def test_the_identity_covers_the_given_run_and_all_that_changes_it():
    def who(*overrides):
        return identity(composed("update=sparsegpt", *overrides))

    found = [who(), who("given=wanda"), who("given=magnitude"), who("given=wanda", "data.sequences=9")]
    assert len(set(found)) == 4
    assert who("given=wanda") == who("given=wanda", "outputs=elsewhere")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("given=wnda", "given=wnda: no experiment that prunes, did you mean wanda?; there are"),
        ("given=dense", "given=dense: no experiment that prunes; there are admm"),
        (
            "experiment=dense given=wanda",
            "given=wanda: its masks remove 0.5, but this run is to remove 0; set sparsity",
        ),
        ("experiment=barber allocator.sparsity=0.3", "its masks remove 0.5, but this run is to remove 0.3"),
    ],
)
def test_what_cannot_be_given_is_refused_in_one_line(overrides, words):
    with pytest.raises(ValueError) as caught:
        command.jobs(overrides.split())
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("given=wanda allocator=owl", "allocator OWL has nothing to decide: given=wanda fixes the masks"),
        ("pattern=2of4 allocator=owl", "allocator OWL varies the sparsity, which NM"),
        ("experiment=barber given=owl pattern=2of4", "allocator OWL varies the sparsity, which NM"),
        ("experiment=gblm given=wanda", "metric GBLM is not used: given=wanda fixes the masks"),
        ("update=barber update.retain_reconstruction=true", "keeps the weights of another run; name it"),
        ("scratch=/nowhere", "scratch=/nowhere: no such folder"),
    ],
)
def test_parts_that_make_no_sense_together_are_refused_before_anything_runs(overrides, words):
    with pytest.raises(ValueError) as caught:
        components.build(composed(*overrides.split()))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@dataclass(frozen=True)
class Size(ModelStatistic):
    """The number of weights, times a factor; counts how often it is found."""

    factor: float = 1.0

    def of(self, network, tokens):
        network.append(self.factor)
        yield "blocks.1", {"blocks.1.b": torch.full((2,), 6.0) * self.factor}
        yield "blocks.0", {"blocks.0.a": torch.full((3,), 4.0) * self.factor}


def test_what_is_found_on_the_dense_model_is_found_once_for_all_runs(tmp_path):
    config, calls = composed(f"outputs={tmp_path}"), []
    for sha in ("x", "x", "y"):
        found = Surveys(config, {"sha256": sha})(Size(), lambda: Size().of(calls, None))
        assert {name: value.tolist() for name, value in found.items()} == {
            "blocks.0.a": [4.0] * 3,
            "blocks.1.b": [6.0] * 2,
        }
    assert len(calls) == 2, "once for each set of tokens"
    assert Surveys(config, {"sha256": "x"})(Size(2.0), lambda: Size(2.0).of(calls, None))["blocks.0.a"][0] == 8
    (found.folder / "blocks.1.safetensors").unlink()
    again = Surveys(config, {"sha256": "y"})(Size(), lambda: Size().of(calls, None))
    assert again["blocks.1.b"].tolist() == [6.0] * 2 and len(calls) == 4, "what is not whole is found again"


def test_a_search_that_was_interrupted_is_begun_again(tmp_path):
    config, calls = composed(f"outputs={tmp_path}"), []

    def killed():
        yield next(Size().of(calls, None))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Surveys(config, None)(Size(), killed)
    assert len(Surveys(config, None)(Size(), lambda: Size().of(calls, None))) == 2
