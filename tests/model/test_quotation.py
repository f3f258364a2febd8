"""Whatever a caller hands over, a message can show it: short, and without another error."""

from __future__ import annotations

import pytest
from hypothesis import given

from ckptlog.model.quotation import quoted
from tests.model.value_cases import values


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")


def looped():
    value: list = []
    value.append(value)
    return value


def deep():
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        (None, "None"),
        ("it's", '"it\'s"'),
        ("é\n\u2028\ud800", r"'\xe9\n\u2028\ud800'"),
        (10**5000, "an int of more than 4,200 digits"),
        (-(10**5000), "an int of more than 4,200 digits"),
        ([10**5000], "a value of type list"),
        (Hostile(), "a value of type Hostile"),
        ([Hostile()], "a value of type list"),
        (looped(), "[[...]]"),
    ],
    ids=range(10),
)
def test_what_is_shown(value, shown):
    assert quoted(value) == shown


@pytest.mark.parametrize("digits", [4200, 4214, 4215, 4299, 4300, 4301, 100_000])
def test_ints_at_the_limit(digits):
    for number in (10 ** (digits - 1), 10**digits - 1, -(10 ** (digits - 1))):
        assert len(quoted(number)) <= 80


def test_long_ones_are_cut():
    assert quoted("x" * 10**8) == "'" + "x" * 76 + "..."
    assert quoted(b"x" * 10**8) == "b'" + "x" * 75 + "..."
    assert len(quoted(bytearray(10**6))) == 80
    assert len(quoted(list(range(1000)))) == 80
    assert quoted(deep()) == "a value of type list" or quoted(deep()).startswith("[[")


@given(values)
def test_it_is_one_short_line_of_ascii(value):
    text = quoted(value)
    assert len(text) <= 80
    assert text.isascii()
    assert text.isprintable()
