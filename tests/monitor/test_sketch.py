from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog import ArgumentError
from ckptlog.monitor.sketch import ERROR, HUGE, TINY, Sketch

NUMBERS = st.floats(-1e18, 1e18, allow_nan=False) | st.integers(-1000, 1000)


def filled(numbers):
    sketch = Sketch()
    for one in numbers:
        sketch.add(one)
    return sketch


def exact(numbers, share):
    return sorted(numbers)[max(1, math.ceil(share * len(numbers))) - 1]


def near(found, wanted):
    # One part in a billion for the rounding of logarithms.
    return abs(found - wanted) <= ERROR * abs(wanted) * (1 + 1e-6) + TINY


@given(st.lists(NUMBERS, min_size=1), st.floats(0, 1))
def test_a_quantile_is_within_its_error_of_the_sorted_numbers(numbers, share):
    sketch = filled(numbers)
    assert near(sketch.quantile(share), exact(numbers, share))
    assert (sketch.count, sketch.least, sketch.greatest) == (
        len(numbers),
        min(numbers),
        max(numbers),
    )
    assert sketch.last == numbers[-1]
    size = math.fsum(abs(one) for one in numbers)
    assert abs(sketch.sum - math.fsum(numbers)) <= 1e-12 * size


@given(st.lists(NUMBERS), st.lists(NUMBERS), st.floats(0, 1))
def test_a_merged_sketch_is_that_of_the_whole(first, second, share):
    merged, whole = filled(first), filled(first + second)
    merged.merge(filled(second))
    assert merged.quantile(share) == whole.quantile(share)
    assert (merged.count, merged.least, merged.greatest) == (
        whole.count,
        whole.least,
        whole.greatest,
    )


def test_its_memory_is_bounded():
    sketch = filled(10 ** (exponent / 100) for exponent in range(-900, 1800))
    for sign in (1, -1):
        for exponent in range(-9000, 18000):
            sketch.add(sign * 10 ** (exponent / 1000))
    assert sketch.buckets < 6500


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * HUGE, True, "1", None])
def test_what_is_no_number_is_refused_and_not_counted(value):
    sketch = Sketch()
    with pytest.raises(ArgumentError):
        sketch.add(value)
    assert sketch.count == 0
    assert sketch.quantile(0.5) is None
    assert sketch.summary("ms") == {"count": 0}


def test_threads_lose_nothing():
    sketch = Sketch()
    threads = [
        threading.Thread(target=lambda: [sketch.add(n) for n in range(1000)]) for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sketch.count == 8000
    assert sketch.sum == 8 * sum(range(1000))
    assert near(sketch.quantile(0.5), 499)
