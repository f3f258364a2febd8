"""Which events are asked for: every condition must hold, any of its values will do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from ckptlog.errors import ArgumentError
from ckptlog.model.event import Subject
from ckptlog.model.event_type import asked_types

_Test = Callable[[int, "Named"], bool]


class Named(Protocol):
    """What a selection looks at: an event, or what is left of one."""

    @property
    def actor(self) -> str:
        """Who did it."""

    @property
    def subject(self) -> Subject:
        """The public ids that it is about."""

    @property
    def time(self) -> str:
        """UTC, ISO 8601 with microseconds and Z."""

    @property
    def type(self) -> str:
        """What happened."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on events; an empty set and None mean any.

    types: As stored, without their `checkpoint.`, or a pattern of them.
    since, until: Text as in events; since is included, until is not.
    start, end: Positions; likewise.
    """

    actors: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    checkpoints: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    since: str | None = None
    until: str | None = None
    start: int = 0
    end: int | None = None

    def matcher(self) -> Callable[[int, Named], bool]:
        """Return the function that says whether the event at a position matches.

        Raises:
            ArgumentError: A type is not known.
        """
        tests = self._tests()
        if len(tests) == 1:
            return tests[0]
        return lambda position, event: all(test(position, event) for test in tests)

    def _tests(self) -> tuple[_Test, ...]:
        start, end, since, until = self.start, self.end, self.since, self.until
        types = asked_types("type", self.types)
        tests: dict[_Test, bool] = {
            lambda position, _: position >= start: start > 0,
            lambda position, _: end is None or position < end: end is not None,
            lambda _, event: since is None or event.time >= since: since is not None,
            lambda _, event: until is None or event.time < until: until is not None,
            lambda _, event: types.has(event.type): bool(self.types),
            lambda _, event: event.actor in self.actors: bool(self.actors),
            lambda _, event: event.subject.task in self.tasks: bool(self.tasks),
            lambda _, event: event.subject.checkpoint in self.checkpoints: bool(self.checkpoints),
            lambda _, event: event.subject.worker in self.workers: bool(self.workers),
            lambda _, event: event.subject.namespace in self.namespaces: bool(self.namespaces),
        }
        return tuple(test for test, is_asked in tests.items() if is_asked)


def names(argument: str, given: object) -> frozenset[str]:
    """Return what a caller asks for in one condition: nothing, one name, or several.

    Raises:
        ArgumentError: It is neither text nor texts.
    """
    if given is None:
        return frozenset()
    if isinstance(given, str):
        return frozenset((given,))
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    for value in found:
        if type(value) is not str:
            raise ArgumentError(
                f"{argument} is or holds {value!r}; text is needed.", argument=argument
            )
    return frozenset(found)
