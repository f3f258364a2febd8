"""The breaker beside a model; retries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import SourceBusyError
from ckptlog.recovery.breaker import Breaker, BreakerSettings
from ckptlog.recovery.retry import Backoff, retried

_steps = st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["good", "bad", "gave up"])))


@given(_steps, st.integers(1, 4))
def test_a_breaker_is_its_model(steps, failures_max):
    breaker = Breaker(BreakerSettings(failures_max, rest_s=10, rest_max_s=35))
    now, failures, rest, until = 0.0, 0, 10.0, None
    for wait, outcome in steps:
        now += wait
        expected = "closed" if until is None else "open" if now < until else "half_open"
        assert breaker.state(now) == expected
        assert breaker.allows(now) == (expected != "open")
        if expected == "open":
            assert breaker.wait_s(now) == until - now
            continue
        if expected == "half_open":
            assert not breaker.allows(now)  # one trial at a time
        if outcome == "gave up":
            breaker.gave_up()
        elif outcome == "good":
            breaker.succeeded()
            failures, rest, until = 0, 10.0, None
        else:
            breaker.failed(now)
            failures += 1
            if expected == "half_open":
                rest = min(rest * 2, 35)
                until = now + rest
            elif failures >= failures_max:
                until = now + rest


@given(st.integers(1, 6), st.integers(0, 8))
def test_as_often_as_was_said_and_never_longer_than_the_bound(attempts, failing):
    waits, calls = [], []

    def call():
        calls.append(1)
        if len(calls) <= failing:
            raise SourceBusyError("busy")
        return "done"

    backoff = Backoff(attempts=attempts, first_s=1, longest_s=5)
    if failing < attempts:
        assert retried(call, backoff, sleep=waits.append) == "done"
    else:
        with pytest.raises(SourceBusyError):
            retried(call, backoff, sleep=waits.append)
    assert len(calls) == min(failing + 1, attempts)
    assert all(0 <= wait <= backoff.bound_s(n) <= 5 for n, wait in enumerate(waits, 1))


def test_what_cannot_pass_is_not_met_again():
    calls = []

    def call():
        calls.append(1)
        raise ValueError

    with pytest.raises(ValueError):
        retried(call, Backoff(), sleep=pytest.fail)
    assert len(calls) == 1
