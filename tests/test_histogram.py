"""Histograms say how weights and scores are spread and where the cut was; they are kept with a run."""

import pytest
import torch

from experiments.runs.results import tabulate_block
from experiments.runs.stores import BlockStore
from prune.histogram import BINS, SAMPLE, histogram, sampled
from prune.prune import prune
from tests.tiny import magnitude, network, random, sparsegpt, tokens, wanda


def test_every_value_is_counted_in_the_bin_of_its_size():
    values, mask = random(40, 50) * 10 ** random(40, 50, seed=1), random(40, 50, seed=2) > 0
    values[0, :7] = 0.0
    values[1, 0] = 1e9
    found = histogram(values, mask)
    level = values.double().square().mean().sqrt()
    for name, chosen in (("removed", ~mask), ("kept", mask)):
        sizes = (values.double().abs() / level)[chosen]
        for k, count in enumerate(found[name]):
            low = 10 ** (-4 + k / 10) if k else 0.0
            high = 10 ** (-4 + (k + 1) / 10) if k < BINS - 1 else float("inf")
            assert count == int(((sizes >= low) & (sizes < high)).sum()), (name, k)
    assert sum(found["removed"]) + sum(found["kept"]) == values.numel()


def test_a_large_matrix_is_sampled_evenly():
    values = random(1024, 1024)[:, sampled(1024, 1024)]
    found = histogram(values, values.abs() > 0.5)
    assert sum(found["removed"]) + sum(found["kept"]) == SAMPLE
    assert sum(found["removed"]) / SAMPLE == pytest.approx(0.3829, abs=0.01)  # of a normal distribution
    assert sampled(4, 8) == slice(None, None, 1) and sampled(2**30, 4) == slice(None, None, 4)


@pytest.mark.parametrize("extreme", [0.0, float("inf"), 1e-40])
def test_no_value_is_too_odd_to_be_counted(extreme):
    found = histogram(torch.full((4, 8), extreme), torch.ones(4, 8, dtype=torch.bool))
    assert sum(found["kept"]) == 32 and sum(found["removed"]) == 0


def test_the_cut_of_magnitude_in_whole_matrices_lies_inside_one_bin():
    for solved in prune(network(), None, magnitude()):
        for p in solved.linears.values():
            removed, kept = p.histograms["weight"]["removed"], p.histograms["weight"]["kept"]
            last, first = max(k for k in range(60) if removed[k]), min(k for k in range(60) if kept[k])
            assert last <= first  # they share at most the bin of the cut
            assert sum(removed) == int((~p.mask).sum()) and sum(kept) == int(p.mask.sum())
            assert p.histograms["score"] == p.histograms["weight"]  # magnitude's score is the size


def test_masks_that_were_given_have_no_score(tmp_path):
    given = BlockStore(tmp_path)
    for _ in prune(network(), tokens(), wanda(), done=given):
        pass
    for solved in prune(network(), tokens(), sparsegpt(), given=given):
        assert all(set(p.histograms) == {"weight"} for p in solved.linears.values())


def test_a_block_that_is_read_back_has_its_histograms(tmp_path):
    store = BlockStore(tmp_path)
    fresh = [tabulate_block(solved) for solved in prune(network(), tokens(), wanda(), done=store)]
    again = [tabulate_block(solved) for solved in prune(network(), tokens(), wanda(), done=store)]
    assert fresh == again and all(layer["histograms"]["score"] for block in fresh for layer in block["layers"])
