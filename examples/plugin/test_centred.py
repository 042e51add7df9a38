"""What the metric promises. The contract tests of the project try the rest, see README.md."""

import torch
from mypackage.centred import Centred


def test_the_weight_that_is_farthest_from_the_mean_of_its_row_scores_most():
    weight = torch.tensor([[3.0, 3.0, -1.0, 3.0]])  # its mean is 2
    assert Centred()(weight, {}).tolist() == [[1, 1, 3, 1]]
    assert torch.equal(Centred(share=0.0)(weight, {}), weight.abs())
