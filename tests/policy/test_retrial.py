from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.policy import retrial
from ckptlog.policy.retrial import Attempt, Limits, attempts_of, gave_up, judge, record_of


def by(*workers: str) -> list[Attempt]:
    return [Attempt(worker, number, "2026") for number, worker in enumerate(workers)]


@pytest.mark.parametrize(
    ("before", "worker", "action", "reason"),
    [
        ("", "a", retrial.RETRY, "the first attempt from here"),
        ("a", "a", retrial.RETRY, "attempt 2 of 4 from here"),
        ("aa", "a", retrial.REFUSE, "worker 'a' tried 2 times; another has to"),
        ("aa", "b", retrial.REASSIGN, "attempt 3 of 4 from here, after worker 'a'"),
        ("aba", "b", retrial.REASSIGN, "attempt 4 of 4 from here, after worker 'a'"),
        ("aba", "a", retrial.REFUSE, "worker 'a' tried 2 times; another has to"),
        ("abab", "c", retrial.GIVE_UP, "4 times without getting further: 'a' 2 times, 'b' 2 times"),
        ("abcd", "a", retrial.GIVE_UP, "4 times without getting further: 'a' once, 'b' once, 'c'"),
    ],
)
def test_verdicts(before, worker, action, reason):
    verdict = judge(by(*before), worker, Limits())
    assert verdict.action == action
    assert verdict.reason.startswith(reason)


def test_one_worker_alone_may_be_allowed_all_attempts():
    alone = Limits(attempts=3, of_worker=None)
    assert [judge(by(*"a" * count), "a", alone).action for count in range(4)] == [
        *[retrial.RETRY] * 3,
        retrial.GIVE_UP,
    ]


@given(st.lists(st.sampled_from("abc")), st.integers(1, 5), st.none() | st.integers(1, 5))
def test_no_order_of_workers_goes_beyond_the_limits(order, most, of_worker):
    limits = Limits(attempts=most, of_worker=of_worker)
    made: list[Attempt] = []
    for worker in order:
        verdict = judge(made, worker, limits)
        if verdict.action in (retrial.RETRY, retrial.REASSIGN):
            made += by(worker)
    assert len(made) <= most
    if of_worker is not None:
        assert all(sum(one.worker == each for one in made) <= of_worker for each in "abc")


def test_attempts_are_told_by_metadata():
    attempts = tuple(by("w", "w", "v"))
    metadata = {"other": 1, retrial.KEY: record_of(attempts)}
    assert attempts_of(metadata) == attempts
    assert gave_up(metadata) is None
    assert gave_up({retrial.KEY: {"gave_up": "why"}}) == "why"


@pytest.mark.parametrize(
    "record",
    [
        None, 1, [], {"attempts": 1}, {"attempts": [1, {}, {"worker": 1, "lease": 1, "at": ""}]},
        {"gave_up": 7},
    ],
)  # fmt: skip
def test_what_is_malformed_counts_for_nothing(record):
    assert attempts_of({retrial.KEY: record}) == ()
    assert gave_up({retrial.KEY: record}) is None


def test_a_very_long_list_is_cut():
    metadata = {retrial.KEY: {"attempts": [{"worker": "w", "lease": 1, "at": ""}] * 5000}}
    assert len(attempts_of(metadata)) == retrial.ATTEMPTS_MAX
    assert len(record_of(by(*"w" * 5000))["attempts"]) == retrial.ATTEMPTS_MAX
