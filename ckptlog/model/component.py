"""The component: one part of a running system that can be captured and brought back.

A component is any object with `name`, `capture` and `restore`. Everything else is optional and
found by name, with a default (`traits_of`, and the functions below):

    kind              str, "value"     what sort of payload it is; part of the capture's digest
    schema_version    int, 1           of the payload; `migrate` lifts an older one
    depends_on        names, ()        components that are prepared and restored before it
    reads_parts       bool, False      restore and validate get a Stored, not the whole value
    stability         str, "live"      how what capture() returned stays as it was (STABILITIES)
    location          dict, {}         texts by which a self-describing component is found again
    look_ahead()                       do beforehand what makes capture() shorter
    prepare()                          hold still, until commit() or abort()
    commit()                           the cut is taken: go on
    abort()                            the cut was given up: go on
    validate(payload) -> list[str]     faults of a payload, before it is restored
    verify_restored() -> list[str]     faults of the component after it
    migrate(payload, from_version)     a payload of an older schema_version, as one of this
    plan(stored) -> Plan               what a restore would change
    is_absent() -> bool                whether what would be captured does not exist
    make_absent()                      make that so; with is_absent() or not at all

specs/capture.md has the order of the calls and what a component may rely on.

Pure: nothing here calls a component's code but `migrated`, `faults_of` and `faults_restored`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from ckptlog.errors import ComponentError
from ckptlog.model.quotation import quoted

LIVE: Final = "live"
COPIED: Final = "copied"
IMMUTABLE: Final = "immutable"
FORK: Final = "fork"
SNAPSHOT: Final = "snapshot"
REREAD: Final = "reread"
STABILITIES: Final = (LIVE, COPIED, IMMUTABLE, FORK, SNAPSHOT, REREAD)
"""How a captured state stays as it was at the barrier, while the system goes on.

live: It does not: it is serialised inside the barrier.
copied, immutable: capture() returned a copy of its own, or what is never changed in place.
fork: A forked child, which nobody changes, serialises it.
snapshot, reread: The medium keeps it (SQLite), or it is read, and compared afterwards (files).
"""

ABSENT: Final = "absent"
"""The kind of what stands in a safety capture for a component that is missing; nobody else's."""

COMPONENTS_MAX: Final = 1_000
SCHEMA_MAX: Final = 2**31
LOCATION_CHARACTERS_MAX: Final = 4_096

_METHODS: Final = (
    "look_ahead",
    "prepare",
    "commit",
    "abort",
    "validate",
    "verify_restored",
    "migrate",
    "plan",
    "is_absent",
    "make_absent",
)

_name = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch


@runtime_checkable
class Component(Protocol):
    """What every component has; the optional rest is at the head of this module."""

    name: str

    def capture(self) -> object:
        """Return the state: a storable value (specs/values.md), or a Snapshot."""

    def restore(self, payload: object) -> None:
        """Take the state over: a value as capture() gave it; a Stored where reads_parts is set.

        Must end in the same state however often it is called with one payload: a recovery that
        was interrupted calls it again.
        """


@runtime_checkable
class Snapshot(Protocol):
    """A stable state, taken inside the barrier and written after it.

    Attributes:
        stability: SNAPSHOT or REREAD, for the record.
    """

    stability: str

    def write(self, writer: Any, before: Any | None) -> Any:
        """Write the state, piece by piece, and return its root.

        Args:
            writer: A blobs.tree_writer.TreeWriter, for this component alone.
            before: The component's blobs.tree_reader.Stored of the previous capture, or None.

        Raises:
            ChangedError: What is read now is not what it was at the barrier: the whole cut is
                taken again.
        """

    def close(self) -> None:
        """Let go of the state. Called exactly once, whether or not it was written."""


@dataclass(frozen=True)
class Traits:
    """What a component says of itself; see the head of this module."""

    name: str
    kind: str = "value"
    schema_version: int = 1
    depends_on: tuple[str, ...] = ()
    reads_parts: bool = False
    stability: str = LIVE
    location: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One thing that a restore would change. kind: add, change or remove. bytes: of the new."""

    kind: str
    path: str
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """What a restore of one component would do.

    changes: In order of their paths. bytes_read: From the store. summary: In one line.
    """

    changes: tuple[Change, ...] = ()
    bytes_read: int = 0
    summary: str = ""


def is_snapshot(value: object) -> bool:
    """Say whether what capture() returned writes itself."""
    kind = type(value)
    return callable(getattr(kind, "write", None)) and callable(getattr(kind, "close", None))


def traits_of(component: object) -> Traits:
    """Return what a component says of itself, checked.

    Raises:
        ComponentError: Something is missing, or is not what it must be; the message names it.
    """
    if isinstance(component, type):
        raise ComponentError(
            f"{component.__name__} is a class; a component is an object.",
            hint=f"Make one: {component.__name__}(...).",
        )
    name = getattr(component, "name", None)
    if type(name) is not str or not _name(name):
        raise ComponentError(
            f"A component of type {type(component).__name__} has the name {quoted(name)}.",
            hint="Names are 1 to 64 of A-Z a-z 0-9 _ . and -.",
        )
    for method in ("capture", "restore"):
        if not callable(getattr(component, method, None)):
            raise ComponentError(
                f"Component {name!r} has no method {method}().", component=name, attribute=method
            )
    _check_methods(name, component)
    return Traits(
        name,
        _kind(name, component),
        _schema(name, getattr(component, "schema_version", 1)),
        _names(name, getattr(component, "depends_on", ())),
        _flag(name, getattr(component, "reads_parts", False)),
        _stability(name, getattr(component, "stability", LIVE)),
        location_of(name, getattr(component, "location", {})),
    )


def in_order(components: Iterable[Traits]) -> list[Traits]:
    """Return components so that each stands behind those that it depends on.

    Beside that they keep the order in which they were given.

    Raises:
        ComponentError: None or too many, a name twice, an unknown dependency, or a cycle.
    """
    given = list(components)
    by_name: dict[str, Traits] = {}
    for one in given:
        if one.name in by_name:
            raise ComponentError(
                f"Two components have the name {one.name!r}.",
                hint="Give each a name of its own.",
                component=one.name,
            )
        by_name[one.name] = one
    if not 1 <= len(given) <= COMPONENTS_MAX:
        raise ComponentError(
            f"There are {len(given)} components; 1 to {COMPONENTS_MAX} are needed.",
            hint="Give objects with get_state() and set_state(), dicts, or components.",
        )
    for one in given:
        if missing := [name for name in one.depends_on if name not in by_name]:
            raise ComponentError(
                f"Component {one.name!r} depends on {missing[0]!r}, which is not there.",
                hint=f"There are: {', '.join(by_name)}.",
                component=one.name,
            )
    ordered: dict[str, Traits] = {}
    while len(ordered) < len(given):
        ready = [
            one
            for one in given
            if one.name not in ordered and all(name in ordered for name in one.depends_on)
        ]
        if not ready:
            raise _cycle([one for one in given if one.name not in ordered])
        ordered.update((one.name, one) for one in ready)
    return list(ordered.values())


def migrated(component: object, payload: object, from_version: int) -> object:
    """Return a payload of an older schema_version as one of the component's own.

    Raises:
        ComponentError: It is of a newer one, or the component has no migrate().
    """
    traits = traits_of(component)
    if from_version == traits.schema_version:
        return payload
    migrate = getattr(component, "migrate", None)
    if from_version > traits.schema_version or migrate is None:
        raise ComponentError(
            f"The payload of component {traits.name!r} has schema version {from_version}, "
            f"the component {traits.schema_version}.",
            hint="Give the component a migrate(payload, from_version)."
            if from_version < traits.schema_version
            else "Restore it with the newer program that captured it.",
            component=traits.name,
            from_version=from_version,
            schema_version=traits.schema_version,
        )
    return migrate(payload, from_version)


def faults_of(component: object, payload: object) -> list[str]:
    """Return what a component's own validate() finds wrong with a payload; [] where it has none."""
    return _faults(component, "validate", payload)


def faults_restored(component: object) -> list[str]:
    """Return what a component's own verify_restored() finds after a restore."""
    return _faults(component, "verify_restored")


def _faults(component: object, method: str, *arguments: object) -> list[str]:
    check = getattr(component, method, None)
    if check is None:
        return []
    found = check(*arguments)
    if found is None or found is True:
        return []
    if found is False:
        return [f"{method}() says no."]
    if isinstance(found, list | tuple) and all(type(one) is str for one in found):
        return list(found)
    raise _wrong(getattr(component, "name", "?"), f"{method}()", found, "a list of texts")


def _cycle(left: Sequence[Traits]) -> ComponentError:
    """Return the error for components that wait for each other."""
    by_name = {one.name: one for one in left}
    path = [left[0].name]
    while path.count(path[-1]) == 1:
        path.append(next(name for name in by_name[path[-1]].depends_on if name in by_name))
    circle = path[path.index(path[-1]) :]
    return ComponentError(
        f"Components depend on each other in a circle: {' -> '.join(circle)}.",
        hint="Take one of these out of depends_on.",
        component=circle[0],
    )


def _wrong(name: str, attribute: str, value: object, needed: str) -> ComponentError:
    return ComponentError(
        f"Component {name!r} has {attribute} = {quoted(value)}; {needed} is needed.",
        component=name,
        attribute=attribute,
    )


def _check_methods(name: str, component: object) -> None:
    for method in _METHODS:
        found = getattr(component, method, None)
        if found is not None and not callable(found):
            raise _wrong(name, method, found, "a method")
    lacking = [one for one in _METHODS[-2:] if getattr(component, one, None) is None]
    if len(lacking) == 1:
        raise ComponentError(
            f"Component {name!r} has no method {lacking[0]}().",
            hint="is_absent() and make_absent() go together.",
            component=name,
            attribute=lacking[0],
        )


def _kind(name: str, component: object) -> str:
    kind = getattr(component, "kind", "value")
    if kind == ABSENT and not hasattr(component, "stands_for"):
        raise _wrong(name, "kind", kind, "another one")
    if type(kind) is str and _name(kind):
        return kind
    raise _wrong(name, "kind", kind, "a text of 1 to 64 of A-Z a-z 0-9 _ . and -")


def _schema(name: str, version: object) -> int:
    if type(version) is int and 1 <= version <= SCHEMA_MAX:
        return version
    raise _wrong(name, "schema_version", version, "a whole number from 1 on")


def _names(name: str, names: object) -> tuple[str, ...]:
    if isinstance(names, set | frozenset):
        names = sorted(names, key=str)  # in one order each time
    if isinstance(names, list | tuple) and all(type(one) is str for one in names):
        return tuple(dict.fromkeys(names))
    raise _wrong(name, "depends_on", names, "a list of names")


def _flag(name: str, value: object) -> bool:
    if type(value) is bool:
        return value
    raise _wrong(name, "reads_parts", value, "True or False")


def _stability(name: str, stability: object) -> str:
    if type(stability) is str and stability in STABILITIES:
        return stability
    raise _wrong(name, "stability", stability, f"one of {', '.join(STABILITIES)}")


def location_of(name: str, location: object) -> dict[str, str]:
    """Return a component's location, checked.

    Raises:
        ComponentError: It is no small dict of texts.
    """
    if isinstance(location, Mapping) and all(
        type(key) is str and type(text) is str for key, text in location.items()
    ):
        found = dict(location)
        if sum(map(len, (*found, *found.values()))) <= LOCATION_CHARACTERS_MAX:
            return found
    raise _wrong(name, "location", location, "a small dict of texts")
