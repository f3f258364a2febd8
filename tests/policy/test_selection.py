"""Conditions on events: all of them must hold, any of their values will do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlog.errors import ArgumentError
from ckptlog.model.event import SCHEMA, Event, Subject
from ckptlog.policy.selection import Selection, names

WORDS = ("", "a", "b", "c")
TYPES = ("checkpoint.created", "checkpoint.failed", "task.deleted")
TIMES = tuple(f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 6))

words = st.sampled_from(WORDS)
some = st.frozensets(words, max_size=2)
times = st.sampled_from(TIMES)
subjects = st.builds(
    Subject, checkpoint=words, namespace=words, parent=words, task=words, worker=words
)
events = st.builds(
    Event,
    actor=words,
    id=st.just("c"),
    schema=st.just(SCHEMA),
    subject=subjects,
    time=times,
    type=st.sampled_from(TYPES),
)
selections = st.builds(
    Selection,
    actors=some,
    tasks=some,
    checkpoints=some,
    workers=some,
    namespaces=some,
    types=st.frozensets(st.sampled_from((*TYPES, "created", "deleted")), max_size=2),
    since=st.none() | times,
    until=st.none() | times,
    start=st.integers(0, 5),
    end=st.none() | st.integers(0, 5),
)


def is_asked_for(wanted, position, event):
    """Say the same, the long way."""
    subject = event.subject
    sets = (
        (wanted.actors, event.actor),
        (wanted.tasks, subject.task),
        (wanted.checkpoints, subject.checkpoint),
        (wanted.workers, subject.worker),
        (wanted.namespaces, subject.namespace),
    )
    if any(values and value not in values for values, value in sets):
        return False
    short = event.type.removeprefix("checkpoint.")
    is_short = short in wanted.types and event.type == f"checkpoint.{short}"
    if wanted.types and event.type not in wanted.types and not is_short:
        return False
    if wanted.since is not None and event.time < wanted.since:
        return False
    if wanted.until is not None and event.time >= wanted.until:
        return False
    return wanted.start <= position and (wanted.end is None or position < wanted.end)


@given(selections, events, st.integers(0, 6))
def test_a_matcher_says_what_its_conditions_say(wanted, event, position):
    assert wanted.matcher()(position, event) == is_asked_for(wanted, position, event)


def test_one_condition_at_a_time():
    event = Event(
        actor="ada",
        id="c",
        schema=SCHEMA,
        subject=Subject("cp", "ns", "p", "t", "w"),
        time=TIMES[2],
        type="checkpoint.created",
    )
    yes = [
        {},
        {"actors": {"ada", "bob"}},
        {"tasks": {"t"}},
        {"checkpoints": {"cp"}},
        {"workers": {"w"}},
        {"namespaces": {"ns"}},
        {"types": {"created"}},
        {"types": {"checkpoint.created"}},
        {"types": {"checkpoint.c*"}},
        {"since": TIMES[2]},
        {"until": TIMES[3]},
        {"start": 7},
        {"end": 8},
    ]
    no = [
        {"actors": {"Ada"}},
        {"tasks": {"cp"}},
        {"checkpoints": {"t"}},
        {"workers": {""}},
        {"namespaces": {"n"}},
        {"types": {"updated", "task.*"}},
        {"since": TIMES[3]},
        {"until": TIMES[2]},
        {"start": 8},
        {"end": 7},
    ]
    for conditions, answer in [*((one, True) for one in yes), *((one, False) for one in no)]:
        fields = {k: frozenset(v) if isinstance(v, set) else v for k, v in conditions.items()}
        assert Selection(**fields).matcher()(7, event) is answer, conditions


def test_names_that_a_caller_gives():
    assert names("actor", None) == frozenset()
    assert names("actor", "ada") == {"ada"}
    assert names("actor", "") == {""}
    assert names("actor", ["ada", "bob"]) == names("actor", iter(("bob", "ada")))
    for wrong in (7, b"ada", ["ada", 7], [None]):
        with pytest.raises(ArgumentError) as caught:
            names("actor", wrong)
        assert "actor" in str(caught.value)
