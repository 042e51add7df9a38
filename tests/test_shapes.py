"""What tests check in every call: types, shapes, and that one letter is one length. A test of the tests."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from prune.allocators.uniform import Uniform
from prune.lowest import lowest

COUNTS = torch.tensor([1, 2])


def test_a_shape_that_an_annotation_excludes_is_refused():
    assert lowest(torch.rand(2, 5), COUNTS).sum() == 3
    for scores in (torch.rand(2, 5, 1), torch.rand(2, 5) > 0.5, torch.rand(3, 5)):  # its axes, its kind, its groups
        with pytest.raises(BeartypeCallHintViolation):
            lowest(scores, COUNTS)


def test_a_field_of_another_type_is_refused():
    with pytest.raises(BeartypeCallHintViolation):
        Uniform("half")
