"""The schedule: slots do not drift, nothing overlaps, clocks may jump, failures back off."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ckptlog.policy import schedule
from ckptlog.policy.schedule import Clock, Due, Rules, Wait

RULES = Rules(interval_s=30, jitter=0.1, interval_max_s=480)
UNITS = st.floats(0, 1)


def at(seconds: float, wall_s: float | None = None) -> Clock:
    return Clock(seconds, int((1_700_000_000 + (seconds if wall_s is None else wall_s)) * 1e6))


def test_the_first_is_due_at_once_where_there_is_none():
    state = schedule.begin(RULES, at(100), 0.7)
    assert schedule.decide(RULES, state, at(100)) == Due("interval", 0)


def test_the_first_waits_for_an_interval_after_one_that_is_there():
    last = at(90).wall_us
    state = schedule.begin(RULES, at(100), 0.5, last_wall_us=last)
    assert schedule.decide(RULES, state, at(100)) == Wait(20 + 1.5)


def test_the_least_time_is_kept_from_whatever_was_captured_before():
    rules = Rules(interval_s=30, interval_min_s=100)
    state = schedule.begin(rules, at(100), 0, last_wall_us=at(80).wall_us)
    assert schedule.decide(rules, state, at(100)) == Wait(80)
    assert schedule.decide(rules, schedule.captured(state, 150), at(150)) == Wait(100)
    assert schedule.captured(state, 60) == schedule.captured(state, None) == state


def test_one_that_is_dated_in_the_future_counts_as_one_of_now():
    state = schedule.begin(RULES, at(100), 0, last_wall_us=at(10_000).wall_us)
    assert schedule.decide(RULES, state, at(100)) == Wait(30)


@given(st.lists(st.tuples(st.floats(0, 29), UNITS), min_size=1, max_size=50))
def test_slots_do_not_drift(spent):
    state = schedule.begin(RULES, at(0), 0)
    now_s = 0.0
    for number, (took_s, unit) in enumerate(spent):
        found = schedule.decide(RULES, state, at(now_s))
        if isinstance(found, Wait):
            now_s += found.seconds
        # Late by its jitter, and by what a jittered one before it has used up, but no more.
        assert 30 * number - 1e-6 <= now_s <= 30 * number + 3 + 1e-6
        now_s += min(took_s, 30 * (number + 1) - now_s - 1e-3)
        state = schedule.succeeded(RULES, state, at(now_s), unit)
    assert state.missed == 0


@given(st.integers(1, 40))
def test_a_long_capture_skips_slots_and_counts_them(slots):
    state = schedule.begin(RULES, at(0), 0)
    end_s = 30 * slots + 5.0
    state = schedule.succeeded(RULES, state, at(end_s), 0)
    assert state.missed == slots
    assert schedule.decide(RULES, state, at(end_s)) == Wait(25)


@given(st.integers(1, 100))
def test_failures_back_off_up_to_the_limit_and_a_success_ends_it(failures):
    state = schedule.begin(RULES, at(0), 0)
    for _ in range(failures):
        state = schedule.failed(RULES, state, at(7), 0.3)
    found = schedule.decide(RULES, state, at(7))
    assert found == Wait(min(30 * 2**failures, 480))
    state = schedule.succeeded(RULES, state, at(7), 0)
    assert schedule.decide(RULES, state, at(7)) == Wait(23)


def test_pressure_makes_it_rarer_up_to_the_limit():
    state = schedule.slowed(RULES, schedule.begin(RULES, at(0), 0), 4)
    state = schedule.succeeded(RULES, state, at(1), 0)
    assert schedule.decide(RULES, state, at(1)) == Wait(120)
    assert schedule.slowed(RULES, state, 1e9).slowdown == 16
    assert schedule.slowed(RULES, state, 0.1).slowdown == 1


@given(st.floats(-1e6, 1e6))
def test_wall_clock_jumps_change_no_slot(jump_s):
    state = schedule.succeeded(RULES, schedule.begin(RULES, at(0), 0), at(1), 0)
    later = at(2, wall_s=2 + jump_s)
    state = schedule.look(RULES, state, later)
    found = schedule.decide(RULES, state, later)
    # Forward by more than an interval looks like a suspended machine: one capture, at once.
    is_one = isinstance(found, Due)
    assert is_one == (jump_s > 30)
    state = schedule.succeeded(RULES, state, later, 0)
    assert schedule.decide(RULES, schedule.look(RULES, state, later), later) == Wait(28)


def test_after_a_suspension_one_is_due_not_one_for_each_slot():
    state = schedule.succeeded(RULES, schedule.begin(RULES, at(0), 0), at(1), 0)
    awake = at(2, wall_s=50_000)
    state = schedule.look(RULES, state, awake)
    assert schedule.decide(RULES, state, awake).reason == "resumed"
    state = schedule.succeeded(RULES, state, awake, 0)
    assert state.missed == 0
    assert isinstance(schedule.decide(RULES, state, awake), Wait)


def test_the_least_interval_holds_for_every_reason():
    rules = msgspec.structs.replace(RULES, interval_min_s=20)
    state = schedule.succeeded(rules, schedule.begin(rules, at(0), 0), at(29), 0)
    assert schedule.decide(rules, state, at(29)) == Wait(20)


class Machine(RuleBasedStateMachine):
    """A service over clocks that go on, jump and stop, beside the promises."""

    def __init__(self):
        super().__init__()
        self.mono_s, self.wall_s = 1000.0, 1e9
        self.rules = Rules(interval_s=10, jitter=0.2, interval_min_s=1, interval_max_s=80)
        self.state = schedule.begin(self.rules, self.clock(), 0.5)
        self.ended_s = None
        self.waited_s = 0.0

    def clock(self):
        return Clock(self.mono_s, int(self.wall_s * 1e6))

    def look(self):
        self.state = schedule.look(self.rules, self.state, self.clock())
        return schedule.decide(self.rules, self.state, self.clock())

    @rule(seconds=st.floats(0.001, 100))
    def time_goes_on(self, seconds):
        self.mono_s += seconds
        self.wall_s += seconds

    @rule(seconds=st.floats(-1e5, 1e5))
    def the_wall_clock_jumps(self, seconds):
        self.wall_s = max(1.0, self.wall_s + seconds)

    @precondition(lambda self: isinstance(self.look(), Wait))
    @rule()
    def it_waits(self):
        seconds = self.look().seconds
        self.mono_s += seconds + 1e-6
        self.wall_s += seconds
        assert isinstance(self.look(), Due)  # a wait that is over leads to a capture

    @precondition(lambda self: isinstance(self.look(), Due))
    @rule(took_s=st.floats(0, 35), unit=UNITS, is_good=st.booleans())
    def it_captures(self, took_s, unit, is_good):
        if self.ended_s is not None:
            assert self.mono_s >= self.ended_s + 1 - 1e-6
        self.mono_s += took_s
        self.wall_s += took_s
        step = schedule.succeeded if is_good else schedule.failed
        before = self.state.failures
        self.state = step(self.rules, self.state, self.clock(), unit)
        assert self.state.failures == (0 if is_good else min(before + 1, 30))
        self.ended_s = self.mono_s

    @rule(factor=st.floats(0.5, 100))
    def pressure(self, factor):
        self.state = schedule.slowed(self.rules, self.state, factor)

    @invariant()
    def no_wait_is_longer_than_the_limit(self):
        found = schedule.decide(self.rules, self.state, self.clock())
        assert isinstance(found, Due) or 0 < found.seconds <= 80 + 2


TestMachine = Machine.TestCase
