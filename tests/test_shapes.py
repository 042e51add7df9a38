"""What tests check in every call: types, shapes, and that one letter is one length. A test of the tests."""

from collections.abc import Iterator

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from prune.allocators.uniform import Uniform
from prune.lowest import lowest
from tests.shapes import checked

COUNTS = torch.tensor([1, 2])


def test_a_shape_that_an_annotation_excludes_is_refused():
    assert lowest(torch.rand(2, 5), COUNTS).sum() == 3
    for scores in (torch.rand(2, 5, 1), torch.rand(2, 5) > 0.5, torch.rand(3, 5)):  # its axes, its kind, its groups
        with pytest.raises(BeartypeCallHintViolation):
            lowest(scores, COUNTS)


def test_a_field_of_another_type_is_refused():
    with pytest.raises(BeartypeCallHintViolation):
        Uniform("half")


def rows(x: Float[Tensor, "n t"]) -> Iterator[Tensor]:
    """As many as n of the one who asks for the first, which is another n."""
    yield from x


def sums(x: Float[Tensor, "n t"], later: Iterator[Tensor]) -> Float[Tensor, "n"]:
    return x.sum(1) + next(later).sum()


def test_what_gives_values_one_by_one_is_checked_when_it_is_called_and_in_a_scope_of_its_own():
    found = checked(sums)(torch.ones(2, 3), checked(rows)(torch.ones(5, 4)))
    assert found.tolist() == [7, 7]
    with pytest.raises(BeartypeCallHintViolation):
        checked(rows)(torch.ones(5))
