"""Bytes, weights and durations have three digits or fewer, and a unit; metrics have the digits that mean something."""

import pytest

from experiments.console.text import count, digits, duration, plus_minus, rounded, size, timing


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
        (timing(12.345), "12.35"),
        (timing(0.01234), "0.012"),
        (digits("acc/boolq", 0.62345), "62.34"),
        (digits("ppl/text@128", 24.0625, "+"), "+24.062"),
        (digits("ppl/text@128", 12345.67), "12345.7"),
        (digits("ppl/text@128", 1.5e7), "1.50e+07"),
        (digits("audit/violations", 3.0), "3"),
        (plus_minus("ppl/text@128", 17.5, None), "17.500"),
        (plus_minus("acc/boolq", 0.75, 0.05), "75.00 ± 5.00"),
        (rounded(17.5), "17.5"),
        (rounded(123.4, 2), "120"),
        (rounded(12345.0), "1.2e4"),
        (rounded(1e-5), "1e-5"),
    ],
)
def test_numbers_are_told_by_one_rule_each(told, expected):
    assert told == expected
