from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.blobs.cache import Cache


def test_the_longest_unused_goes_first():
    cache: Cache[object, object] = Cache(3)
    for key in "abc":
        cache.put(key, key.upper(), 1)
    assert cache.get("a") == "A"
    cache.put("d", "D", 1)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]


def test_what_is_too_large_is_not_held_and_takes_its_old_self_along():
    cache: Cache[object, object] = Cache(10)
    cache.put("a", 1, 10)
    cache.put("a", 2, 11)
    assert cache.get("a") is None
    assert cache.cost == 0


def test_a_new_value_replaces_the_old_one_and_its_cost():
    cache: Cache[object, object] = Cache(10)
    cache.put("a", 1, 9)
    cache.put("a", 2, 3)
    cache.put("b", 3, 7)
    assert (cache.get("a"), cache.get("b"), cache.cost) == (2, 3, 10)
    cache.remove("a")
    cache.remove("never there")
    assert (cache.get("a"), cache.cost) == (None, 7)
    cache.clear()
    assert (cache.get("b"), cache.cost) == (None, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))), st.integers(0, 20))
def test_the_cost_is_the_sum_and_never_over_the_limit(puts, limit):
    costs: dict[int, int] = {}
    cache: Cache[int, object] = Cache(limit)
    for key, cost in puts:
        cache.put(key, (key, cost), cost)
        costs[key] = cost
        held = {key for key in costs if cache.get(key) is not None}
        assert cache.cost == sum(costs[key] for key in held) <= limit
        assert (key in held) == (cost <= limit)


def test_threads_do_not_break_the_sum():
    cache: Cache[object, object] = Cache(50)

    def work(start):
        for n in range(2000):
            key = (start + n * 7) % 40
            cache.put(key, n, key % 5 + 1)
            cache.get((key + 1) % 40)
            if n % 50 == 0:
                cache.remove(key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = sum(key % 5 + 1 for key in range(40) if cache.get(key) is not None)
    assert cache.cost == left <= 50
