"""The toy matrices of ../shared/papers/quantisation.md, in float64."""

from functools import cache

import numpy
import torch

from prune.method import Linear, Unit
from prune.metrics.obs import OBS
from prune.patterns.unstructured import Unstructured
from prune.statistic import Gathered, Stats
from prune.statistics.inputs import Gram, Squares


def toy(weight, x, metric=None, pattern=None, sparsity=0.5, quantizer=None, given=None):
    """A matrix in float64 on these inputs [tokens, i], which count as one sequence."""
    values = {Squares(): x.square().sum(0), Gram(): x.T @ x}
    stats = Stats("toy", lambda: Gathered(values, len(x)))
    share = torch.tensor([sparsity], dtype=torch.float64)
    chosen = {"quantizer": quantizer} if quantizer else {}
    pattern = pattern or Unstructured("matrix")
    return Linear("toy", weight, stats, metric or OBS(), pattern, share, given, stored=torch.float64, **chosen)


def solved(update, linear):
    """The answer of an update and then the quantizer."""
    return linear.quantizer(Unit({"toy": linear}), {"toy": update.linear(linear)})["toy"]


def error(x, weight, found):
    return float((x @ (weight - found).T).square().sum() / (x @ weight.T).square().sum())


def toy_a():
    i, j, t = (torch.arange(n, dtype=torch.float64) for n in (4, 8, 32))
    weight = ((37 * i[:, None] + 101 * j + 17 * i[:, None] * j) % 211 - 105) / 53
    x = ((29 * t[:, None] + 53 * j + 7 * t[:, None] * j * j) % 97 - 48) / 31
    return weight, x


@cache
def toy_b(seed):
    draw = numpy.random.default_rng(seed)
    d = 256
    mix = draw.normal(size=(d, d)) / d**0.5
    x = draw.normal(size=(2048, d)) @ (0.6 * numpy.eye(d) + 0.8 * mix) * numpy.exp(0.8 * draw.normal(size=d))
    weight = draw.standard_t(5, (96, d)) / d**0.5
    return torch.from_numpy(weight), torch.from_numpy(x)
