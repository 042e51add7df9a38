"""What tests draw from torch's own generator does not depend on which tests ran before."""

import pytest
import torch


@pytest.fixture(params=[0, 1])
def drawn(request):
    return torch.rand(3)


def test_a_fixture_and_a_test_draw_the_same_after_whatever_was_drawn(drawn):
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(3, generator=generator)
    assert torch.equal(drawn, first) and torch.equal(torch.rand(3), first)
    torch.rand(7)
