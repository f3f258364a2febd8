"""What was just written is found again, for a while, and never takes more than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs.recent import Recent


def test_the_newest_half_is_always_there():
    recent = Recent(100)
    for number in range(50):
        recent.put(number, f"value {number}", 10)
        assert [recent.get(one) for one in range(number - 4, number + 1) if one >= 0] == [
            f"value {one}" for one in range(max(0, number - 4), number + 1)
        ]
        assert recent.cost <= 100
    assert recent.get(0) is None


def test_what_is_too_large_is_not_held():
    recent = Recent(100)
    recent.put("small", 1, 50)
    recent.put("large", 2, 51)
    assert recent.get("large") is None
    assert recent.get("small") == 1
    assert Recent(0).get("x") is None


def test_clear():
    recent = Recent(100)
    recent.put("a", 1, 50)
    recent.put("b", 1, 50)
    recent.clear()
    assert recent.get("a") is recent.get("b") is None
    assert recent.cost == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40))
def test_never_more_than_it_may_and_never_an_older_value(puts):
    recent, newest = Recent(100), {}
    for serial, (key, cost) in enumerate(puts):
        recent.put(key, serial, cost)
        if cost <= 50:
            newest[key] = serial
        assert recent.cost <= 100
        for known, value in newest.items():
            assert recent.get(known) in {value, None}
