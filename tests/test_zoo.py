"""Every causal LM of transformers does what the table in experiments/tables/families.md says of it."""

import pytest

from tests import zoo
from tests.small import names


def recorded() -> dict[str, str]:
    """What came of each model type."""
    rows = [line.strip("| ").split(" | ") for line in zoo.TABLE.read_text().splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows[1:]}


@pytest.mark.parametrize("kind", ["gpt2", "jetmoe", "mamba"])
def test_a_family_is_walked_pruned_and_saved_as_it_runs(kind):
    assert zoo.tried(kind)[0] == recorded()[kind] == "works"


@pytest.mark.parametrize("kind", ["roberta"])
def test_a_family_that_sees_later_tokens_is_known(kind):
    assert zoo.tried(kind)[0] == recorded()[kind] == "not causal"


def test_nothing_in_the_table_is_wrong_or_a_fault_of_ours():
    found = set(recorded().values())
    assert found == {"works", "not causal", "refused", "not built", "no language model"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", names())
def test_a_family_does_what_the_table_says(kind):
    result, words = zoo.tried(kind)
    assert result == recorded().get(kind), words
