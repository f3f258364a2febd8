"""When to capture next: from what has happened and two clocks to an action; pure.

    begin -> state --decide(clock)--> Wait(s) or Due(reason)
                  --succeeded / failed / slowed(clock)--> state

The theory. Captures stand at *slots*: the start plus whole multiples of the interval, on the
monotonic clock. Jitter makes a capture late inside of its slot and never moves the slots, so it
does not add up: no drift, however long a service runs. A capture that takes longer than an
interval skips the slots that it has missed; they are counted, not made up for.

Rules, in order of weight:
1. Nothing is due earlier than `interval_min_s` after the last attempt, or a capture by whomever.
2. After n failures in a row the step is interval * backoff^n, at most `interval_max_s`.
3. Under pressure (storage) the step is interval * slowdown, at most `interval_max_s`.
4. A clock that was set back or forward changes nothing: the slots are monotonic. But where wall
   time went on by more than an interval and a monotonic clock did not (the machine was suspended,
   which Linux's monotonic clock does not count), one capture is due at once, not one for each slot.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

INTERVAL: Final = "interval"
RESUMED: Final = "resumed"
# 2^n passes every bound long before.
_FAILURES_MAX: Final = 30
_MILLION: Final = 1_000_000


class Clock(msgspec.Struct, frozen=True):
    """Now, on two clocks. monotonic_s: Never goes back. wall_us: Unix microseconds; may jump."""

    monotonic_s: float
    wall_us: int


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule goes by, in seconds.

    jitter: Part of the interval, 0 to 0.5. backoff: What a failure makes of the interval, 1 to 16.
    """

    interval_s: float
    jitter: float = 0.0
    interval_min_s: float = 0.0
    interval_max_s: float = math.inf
    backoff: float = 2.0


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service stands.

    anchor_s: Slot 0. slot_s: The slot that is next. due_s: The slot with its jitter.
    attempted_s: When the last attempt, or capture by whomever, ended; None before the first.
    seen: The clocks as they were looked at last. failures: In a row.
    slowdown: Factor of the interval, from 1. missed: Slots that a long capture has skipped.
    """

    anchor_s: float
    slot_s: float
    due_s: float
    seen: Clock
    attempted_s: float | None = None
    failures: int = 0
    slowdown: float = 1.0
    missed: int = 0
    is_resumed: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do for so many seconds."""

    seconds: float


class Due(msgspec.Struct, frozen=True):
    """Capture now. late_s: After its slot."""

    reason: str
    late_s: float


def begin(rules: Rules, clock: Clock, unit: float, *, last_wall_us: int | None = None) -> Schedule:
    """Return the schedule of a service that starts.

    Args:
        unit: At random from 0 to 1: how much of the jitter the next capture gets.
        last_wall_us: When the newest capture was taken, by whatever process. The first one is due
            an interval after it, at once where there is none: a program that is restarted often
            must not capture at each start. A time in the future counts as now.
    """
    wait_s, attempted_s = 0.0, None
    if last_wall_us is not None:
        age_s = max(0.0, (clock.wall_us - last_wall_us) / _MILLION)
        wait_s, attempted_s = max(0.0, rules.interval_s - age_s), clock.monotonic_s - age_s
    slot_s = clock.monotonic_s + wait_s
    due_s = slot_s + (_jitter_s(rules, unit) if wait_s else 0.0)
    return Schedule(
        anchor_s=slot_s, slot_s=slot_s, due_s=due_s, seen=clock, attempted_s=attempted_s
    )


def interval_s(rules: Rules, state: Schedule) -> float:
    """Return the time between slots as it is now: longer after failures and under pressure."""
    factor = max(rules.backoff ** min(state.failures, _FAILURES_MAX), state.slowdown)
    return max(rules.interval_s, min(rules.interval_s * factor, rules.interval_max_s))


def look(rules: Rules, state: Schedule, clock: Clock) -> Schedule:
    """Return the schedule after a look at the clocks; call it whenever the service wakes."""
    wall_s = (clock.wall_us - state.seen.wall_us) / _MILLION
    gap_s = wall_s - (clock.monotonic_s - state.seen.monotonic_s)
    is_resumed = state.is_resumed or gap_s > rules.interval_s
    return msgspec.structs.replace(state, seen=clock, is_resumed=is_resumed)


def decide(rules: Rules, state: Schedule, clock: Clock) -> Wait | Due:
    """Return what to do now; `look` first."""
    now_s = clock.monotonic_s
    due_s = now_s if state.is_resumed else state.due_s
    if state.attempted_s is not None:
        due_s = max(due_s, state.attempted_s + rules.interval_min_s)
    if due_s <= now_s:
        reason = RESUMED if state.is_resumed else INTERVAL
        return Due(reason, max(0.0, now_s - state.slot_s))
    return Wait(due_s - now_s)


def captured(state: Schedule, at_s: float | None) -> Schedule:
    """Return the schedule after a capture by hand, at a time of the monotonic clock."""
    if at_s is None or (state.attempted_s is not None and at_s <= state.attempted_s):
        return state
    return msgspec.structs.replace(state, attempted_s=at_s)


def succeeded(rules: Rules, state: Schedule, clock: Clock, unit: float) -> Schedule:
    """Return the schedule after a capture, or after it was found that none is needed."""
    return _next(rules, msgspec.structs.replace(state, failures=0), clock, unit)


def failed(rules: Rules, state: Schedule, clock: Clock, unit: float) -> Schedule:
    """Return the schedule after a capture that failed."""
    failures = min(state.failures + 1, _FAILURES_MAX)
    return _next(rules, msgspec.structs.replace(state, failures=failures), clock, unit)


def released(state: Schedule, clock: Clock) -> Schedule:
    """Return the schedule after a pause: what was due meanwhile is due now, and not late."""
    now_s = clock.monotonic_s
    if state.due_s > now_s:
        return state
    return msgspec.structs.replace(state, slot_s=now_s, due_s=now_s)


def slowed(rules: Rules, state: Schedule, factor: float) -> Schedule:
    """Return the schedule with its interval times a factor, from the next slot on."""
    return msgspec.structs.replace(state, slowdown=max(1.0, min(factor, _most(rules))))


def _next(rules: Rules, state: Schedule, clock: Clock, unit: float) -> Schedule:
    now_s, step_s = clock.monotonic_s, interval_s(rules, state)
    # From the anchor, not from the slot before: sums of floats would drift.
    number = math.floor((now_s - state.anchor_s) / rules.interval_s) + 1
    slot_s = state.anchor_s + number * rules.interval_s
    if step_s > rules.interval_s:
        slot_s = now_s + step_s
        return msgspec.structs.replace(
            state, slot_s=slot_s, due_s=slot_s, seen=clock, attempted_s=now_s, is_resumed=False
        )
    gone = round((slot_s - state.slot_s) / rules.interval_s) - 1
    return msgspec.structs.replace(
        state,
        slot_s=slot_s,
        due_s=slot_s + _jitter_s(rules, unit),
        seen=clock,
        attempted_s=now_s,
        missed=state.missed + max(0, gone),
        is_resumed=False,
    )


def _jitter_s(rules: Rules, unit: float) -> float:
    return rules.interval_s * rules.jitter * unit


def _most(rules: Rules) -> float:
    return max(1.0, rules.interval_max_s / rules.interval_s)
