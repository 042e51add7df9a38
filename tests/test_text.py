"""Bytes, weights and durations have three digits or fewer, and a unit in which they are no long number."""

import pytest

from experiments.console.text import count, duration, size


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1000), "0.977 KiB"),
        (size(1.5 * 2**20), "1.5 MiB"),
        (size(2000 * 2**30), "2000 GiB"),
        (count(12), "12"),
        (count(6_738_415_616), "6.74 billion"),
        (duration(0.04), "0.0 s"),
        (duration(9.9), "9.9 s"),
        (duration(89), "89 s"),
        (duration(100), "1.7 min"),
        (duration(2 * 3600), "2.0 h"),
        (duration(3.5 * 86400), "3.5 d"),
    ],
)
def test_numbers_are_told_by_one_rule_each(told, expected):
    assert told == expected
