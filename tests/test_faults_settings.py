"""Settings that cannot be: numbers out of range, parts that do not go together, a device that is not there."""

import pytest

from tests.faults import Fault, cases, check

FAULTS = [
    Fault("a negative sparsity", "sparsity=-0.1", "sparsity: expected the share to remove, 0 to 1, found -0.1"),
    Fault("a sparsity above one", "sparsity=1.5", "sparsity: expected the share to remove, 0 to 1, found 1.5"),
    Fault("a sparsity in percent", "sparsity=50.0", "expected the share to remove, 0 to 1, found 50"),
    Fault("a sparsity that is no number", "sparsity=nan", "expected the share to remove, 0 to 1, found nan"),
    Fault("an infinite sparsity", "sparsity=inf", "expected the share to remove, 0 to 1, found inf"),
    Fault("a word for the sparsity", "sparsity=half", "sparsity: expected a number such as 0.5, found half"),
    Fault("a list for the sparsity", "sparsity=[0.5]", "sparsity: expected a number such as 0.5"),
    Fault("no sparsity", "sparsity=", "sparsity: expected a number such as 0.5, found"),
    Fault("null for a part's sparsity", "allocator.sparsity=null", "allocator.sparsity: expected a number such as 0.5"),
    Fault("all weights removed", "sparsity=1.0", "", 0),
    Fault("2:4 at another sparsity", "pattern=2of4 sparsity=0.7", "removes exactly 0.5 .* found sparsity=0.7; set"),
    Fault("2:4 at no number", "pattern=2of4 sparsity=nan", "removes exactly 0.5 of the weights, found sparsity=nan"),
    Fault("a pattern with a colon", "pattern=2:4", "pattern=2:4: no such option, did you mean 2of4\\?; there are"),
    Fault("2:4 that keeps all four", "pattern=2of4 pattern.n=4", "expected 0 < n < m .*, found n=4 m=4"),
    Fault(
        "a pattern that the width does not divide",
        "pattern=2of4 pattern.n=3 pattern.m=7 sparsity=0.5714285714285714",
        "needs an input width that 7 divides, found 32: choose a pattern that fits",
    ),
    Fault("an allocator that varies what n:m fixes", "experiment=owl pattern=2of4", "OWL varies .*; use pattern="),
    Fault(
        "a share for each row where rows compete", "experiment=besa scope=matrix", "rows compete here; set scope=row"
    ),
    Fault("masks of a method that does not exist", "given=wnda", "given=wnda: .* did you mean wanda\\?; there are"),
    Fault("masks of the dense model", "given=dense update=barber", "given=dense: no experiment that prunes"),
    Fault("masks and an allocator", "given=wanda experiment=owl", "given=wanda fixes the masks; use allocator=uniform"),
    Fault("masks and a metric that costs a survey", "given=wanda metric=gblm", "given=wanda fixes .*; leave it out"),
    Fault(
        "reconstructed weights of no run",
        "experiment=barber given=null update.retain_reconstruction=true",
        "name it, as given=sparsegpt",
    ),
    Fault(
        "masks at another sparsity",
        "experiment=wanda given=magnitude update=barber allocator.sparsity=0.3",
        "its masks remove 0.5, but this run is to remove 0.3; set sparsity",
    ),
    Fault(
        "swaps across groups of 2:4", "experiment=barber pattern=2of4 update.granularity=matrix", "needs update.gran"
    ),
    Fault("an unknown scope", "scope=layer", "scope: expected row or matrix, found 'layer'"),
    Fault("an unknown granularity", "granularity=blocks", "expected one of block, submodule, sequential, found blocks"),
    Fault("an unknown stream", "propagate=sparse", "propagate: expected one of pruned, dense, found sparse"),
    Fault("a negative seed", "seed=-1", "seed: expected a whole number from 0 to \\d+, found -1"),
    Fault("a seed with a fraction", "seed=1.5", "seed: expected a whole number such as 0, found 1.5"),
    Fault("a seed beyond 64 bits", "seed=18446744073709551616", "seed: expected a whole number from 0 to"),
    Fault("an empty batch", "batch=0", "batch: expected a whole number from 1 to \\d+, found 0"),
    Fault("a batch beyond all memory", "batch=100000000000000000000", "batch: expected a whole number from 1 to"),
    Fault("yes for a switch", "save_model=maybe", "save_model: expected false, true or packed, found maybe"),
    Fault("a number for a folder", "model.path=5", "model.path=5: no such folder; give a model's folder or a hub id"),
    Fault("a number for a device", "device=0", "device: expected text, found the number 0"),
    Fault("a GPU that is not there", "device=cuda:99", "device=cuda:99: .*; set device=auto or device=cpu"),
    Fault(
        "a device of another kind", "device=tpu", "device: expected auto, cpu, cuda or cuda:1 and the like, found tpu"
    ),
    Fault(
        "an unknown precision",
        "model.dtype=int8",
        "dtype=int8: expected one of auto, float32, float16, bfloat16",
    ),
    Fault("blocks under another name", "model.blocks=nope", "nope: .* has no ModuleList of that name"),
    Fault("no model folder", "model.path=/nowhere/at/all", "no such folder; give a model's folder or a hub id"),
    Fault("no output folder", "outputs=", "outputs: expected a folder, found nothing"),
]


@pytest.mark.parametrize("fault", cases(FAULTS))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)
