"""Which events a subscription delivers; the others are passed over."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.callback import refuse_deferred
from ckptlog.model.entry import Entry
from ckptlog.model.event_type import asked_types

Words = str | Collection[str]
Accepts = Callable[[Entry], bool]


class EventFilter(msgspec.Struct, frozen=True):
    """Words that an event must have; None lets every word pass.

    types: Whole types, `checkpoint.*` for all of a kind, or `completed` for
        `checkpoint.completed`; known ones.
    tasks, checkpoints, workers, namespaces: Of the event's subject.
    actors, states: Of the event.
    where: Asked last; an error in it ends the subscription.
    """

    types: Words | None = None
    tasks: Words | None = None
    checkpoints: Words | None = None
    workers: Words | None = None
    namespaces: Words | None = None
    actors: Words | None = None
    states: Words | None = None
    where: Accepts | None = None


def predicate(wanted: EventFilter) -> Accepts | None:
    """Return the question that a filter asks of an entry; None where all pass.

    Raises:
        ArgumentError: A word is no text, or a type is not known.
    """
    tests: list[Accepts] = []
    if wanted.types is not None:
        tests.append(_by_type(_words("types", wanted.types)))
    for name, part in (
        ("tasks", "task"),
        ("checkpoints", "checkpoint"),
        ("workers", "worker"),
        ("namespaces", "namespace"),
    ):
        words = getattr(wanted, name)
        if words is not None:
            tests.append(_by_subject(part, _words(name, words)))
    if wanted.actors is not None:
        tests.append(_by_field("actor", _words("actors", wanted.actors)))
    if wanted.states is not None:
        tests.append(_by_field("state", _words("states", wanted.states)))
    if wanted.where is not None:
        if not callable(wanted.where):
            raise ArgumentError("where is no function.", argument="where")
        refuse_deferred("where", wanted.where)
        tests.append(wanted.where)
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda entry: all(test(entry) for test in tests)


def _words(name: str, words: Any) -> frozenset[str]:
    found = [words] if isinstance(words, str) else words
    try:
        kept = frozenset(found)
    except TypeError:
        kept = frozenset({None})
    if not all(isinstance(word, str) for word in kept):
        raise ArgumentError(f"{name} is {words!r}; a word or several are needed.", argument=name)
    return kept


def _by_type(words: frozenset[str]) -> Accepts:
    asked = asked_types("types", words)
    whole = asked.whole
    if not asked.starts:
        return lambda entry: entry.event.type in whole
    return lambda entry: asked.has(entry.event.type)


def _by_subject(part: str, words: frozenset[str]) -> Accepts:
    return lambda entry: getattr(entry.event.subject, part) in words


def _by_field(part: str, words: frozenset[str]) -> Accepts:
    return lambda entry: getattr(entry.event, part) in words
