"""Alarms go on at their limit, off below it, and tell once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptlog.policy.alarm import ALARMS, Reading, slowdown, turns


def test_on_once_and_off_once():
    on = {}
    told = []
    for value in (0.1, 0.9, 0.95, 0.88, 0.9, 0.5, 0.4):
        for turn in turns(on, [Reading("stale", value, 0.9)]):
            told.append((value, turn.is_on))
            on = {"stale": turn} if turn.is_on else {}
    assert told == [(0.9, True), (0.5, False)]


@given(st.lists(st.floats(0, 2)), st.sampled_from(ALARMS))
def test_they_alternate(values, name):
    on, told = {}, []
    for value in values:
        for turn in turns(on, [Reading(name, value, 1.0)]):
            told.append(turn.is_on)
            on = {name: turn} if turn.is_on else {}
    assert told == [number % 2 == 0 for number in range(len(told))]
    assert (name in on) == (len(told) % 2 == 1)


def test_what_is_not_measured_stays():
    assert turns({"stale": 1}, []) == []


def test_pressure_doubles_the_interval_and_relief_halves_it():
    factors, now = [], 1.0
    for pressure in (0.8, 0.9, 0.95, 0.99, 0.99, 0.99, 0.99, 0.87, 0.5, 0.5, 0.5, 0.5, 0.5):
        now = slowdown(pressure, 0.9, now)
        factors.append(now)
    assert factors == [1, 2, 4, 8, 16, 16, 16, 16, 8, 4, 2, 1, 1]
