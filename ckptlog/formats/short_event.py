"""Event schema 2: the same facts as schema 1 in some three fifths of the bytes (specs/event.md).

A store holds an event for every change, so what an event says twice, or could be worked out from
itself, is left out: times are numbers, digests base64, the state follows from the type, a parent's
id is mostly the checkpoint's own, an id that the program made stands as how long before the
event it was made.

`pack` and `unpack` are pure, and inverse on everything that `pack` accepts: an event means the same
whichever schema it was written in. Nothing is needed but the entry itself.
"""

from __future__ import annotations

import binascii
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, NoReturn, cast

import msgspec

from ckptlog.errors import FormatError
from ckptlog.kernel import native
from ckptlog.model.event import (
    CREATED,
    INTEGER_MAX,
    Event,
    Link,
    Natural,
    PackEntry,
    Reference,
    Subject,
)
from ckptlog.model.state import EVENT_OF_STATE

SHORT_SCHEMA: Final = 2
REFERENCE: Final = (
    "(?P<root>[A-Za-z0-9+/]{43}),(?P<size>0|[1-9][0-9]{0,15})(?:,(?P<kind>[a-z]{1,16}))?"
)
LEAF_KIND: Final = "leaf"
TAIL_MARK: Final = "~"
"""From the last one on the ids of a checkpoint and its parent are mostly the same."""
TYPE_FAMILY: Final = "checkpoint"
STATE_OF_TYPE: Final = {kind: state.value for state, kind in EVENT_OF_STATE.items()}
# From the year 1 to the end of 9999: other times have no text.
TIME_US_MIN: Final = -62_135_596_800_000_000
TIME_US_MAX: Final = 253_402_300_799_999_999

# Between the two.
AGE_US_MAX: Final = TIME_US_MAX - TIME_US_MIN
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KIND_CHARACTERS_MAX: Final = 16
_ROOT_BYTES: Final = 32
# An id that the program makes (manager.preparation): 7 bytes of time, 5 others; hexadecimal.
_MADE_TIME_BYTES: Final = 7
_MADE_REST_BYTES: Final = 5
_MADE_CHARACTERS: Final = 24
_REST_CHARACTERS: Final = 7
_SECONDS_CHARACTERS: Final = 19
_TIME_CHARACTERS: Final = 27
_MILLION: Final = 1_000_000

# Each type that tells the state, and the state; that of a creation comes first.
_TYPES: Final = tuple(
    text for state, kind in EVENT_OF_STATE.items() for text in (kind, state.value)
)
_FIELDS: Final = (
    "actor",
    "created",
    "data",
    "id",
    "meta",
    "new",
    "origin",
    "previous",
    "schema",
    "state",
    "step",
    "subject",
    "time",
    "total",
    "type",
)
_PARTS: Final = (Event, Reference, Subject, _FIELDS, _TYPES, LEAF_KIND, SHORT_SCHEMA)
_ABSENT: Final = Reference(LEAF_KIND, cast("str", None), 0)
_a2b, _b2a = binascii.a2b_base64, binascii.b2a_base64

Span = Annotated[int, msgspec.Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
"""Microseconds; what is further away (before 1684, after 2255) stands as text."""


class Short(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """An event as it stands in schema 2; fields in alphabetical order of their names.

    age: Microseconds from the checkpoint's creation to the event; absent in the creation itself.
    at: Unix time, microseconds. Both are the time as text where that number is too large.
    cp: The checkpoint.
    data, meta: `<root in base64, without padding>,<size>`, and `,<kind>` unless that is leaf.
    id: The command's id as the caller gave it, else
    made: of an id that the program made: `<age in microseconds>,<its other 5 bytes in base64>`,
        with a blank behind it as the id has one.
    previous: Absent where it is the origin.
    space: The namespace.
    state: Absent where it is what the type says.
    type: `checkpoint.created` where it is absent; `.x` stands for `checkpoint.x`.
    up: The parent, else
    up~: what differs in it, of the same length, from the checkpoint: what is before, and from the
        last ~ on, is the checkpoint's own.
    """

    actor: str
    age: Span | str | msgspec.UnsetType = msgspec.UNSET
    at: Span | str
    cause: str = ""
    cp: str = ""
    data: str = ""
    facts: dict[str, int | str] = {}
    fingerprint: str = ""
    id: str | msgspec.UnsetType = msgspec.UNSET
    made: str = ""
    meta: str = ""
    new: Natural = 0
    origin: Link = -1
    packs: tuple[PackEntry, ...] = ()
    previous: Link | msgspec.UnsetType = msgspec.UNSET
    removes: tuple[str, ...] = ()
    sanitised: Natural = 0
    space: str = ""
    state: str | msgspec.UnsetType = msgspec.UNSET
    step: Natural = 0
    task: str = ""
    total: Natural = 0
    type: str | msgspec.UnsetType = msgspec.UNSET
    up: str = ""
    up_other: str = msgspec.field(default="", name="up~")
    worker: str = ""


def encoded(event: Event) -> bytes | None:
    """Return the bytes of an ordinary event by the kernel; None where only `pack` can tell."""
    if native is None or event.facts or event.packs or event.sanitised:
        return None
    if event.cause or event.fingerprint or event.removes:
        return None
    subject = event.subject
    data = _ABSENT if event.data is None else event.data
    meta = _ABSENT if event.meta is None else event.meta
    return native.short_entry(
        _TYPES,
        event.actor,
        event.created,
        event.time,
        subject.checkpoint,
        data.root,
        data.size,
        data.kind,
        event.id,
        meta.root,
        meta.size,
        meta.kind,
        event.new,
        event.origin,
        event.previous,
        subject.namespace,
        event.state,
        event.step,
        subject.task,
        event.total,
        event.type,
        subject.parent,
        subject.worker,
    )


def decoded(entry: bytes | memoryview) -> Event | None:
    """Return the event of an ordinary entry by the kernel; None where only `unpack` can tell."""
    return None if native is None else native.short_event(entry, _PARTS)


def pack(event: Event) -> Short:
    """Return an event of schema 2 as it is written.

    Raises:
        FormatError: It has a time, a reference or a type that schema 2 cannot hold.
    """
    subject, kind = event.subject, event.type
    at = _us_of(event.time)
    made = _made(event.id, at)
    parent, shared = _parent_parts(subject.parent, subject.checkpoint)
    unset = msgspec.UNSET
    return Short(
        actor=event.actor,
        age=_span(at - _us_of(event.created), event.created) if event.created else unset,
        at=_span(at, event.time),
        cause=event.cause,
        cp=subject.checkpoint,
        data=_reference_text(event.data) if event.data is not None else "",
        facts=event.facts,
        fingerprint=event.fingerprint,
        id=unset if made else event.id,
        made=made,
        meta=_reference_text(event.meta) if event.meta is not None else "",
        new=event.new,
        origin=event.origin,
        packs=event.packs,
        previous=unset if event.previous == event.origin else event.previous,
        removes=event.removes,
        sanitised=event.sanitised,
        space=subject.namespace,
        state=unset if event.state == STATE_OF_TYPE.get(kind, "") else event.state,
        step=event.step,
        task=subject.task,
        total=event.total,
        type=unset if kind == CREATED else _type_text(kind),
        up=parent,
        up_other=shared,
        worker=subject.worker,
    )


def unpack(short: Short) -> Event:
    """Return the event that stands there, as schema 1 would have had it.

    Raises:
        FormatError: A text in it is malformed.
    """
    unset = msgspec.UNSET
    at = _us_at(short.at)
    kind = CREATED if type(short.type) is msgspec.UnsetType else short.type
    if kind[:1] == ".":
        kind = TYPE_FAMILY + kind
    state = short.state
    return Event(
        actor=short.actor,
        cause=short.cause,
        created="" if short.age is unset else time_text(_us_created(short.age, at)),
        data=_reference(short.data) if short.data else None,
        facts=short.facts,
        fingerprint=short.fingerprint,
        id=id_of(short.id, short.made, at),
        meta=_reference(short.meta) if short.meta else None,
        new=short.new,
        origin=short.origin,
        packs=short.packs,
        previous=short.origin if short.previous is unset else short.previous,
        removes=short.removes,
        sanitised=short.sanitised,
        schema=SHORT_SCHEMA,
        state=STATE_OF_TYPE.get(kind, "") if state is unset else state,
        step=short.step,
        subject=Subject(
            short.cp,
            short.space,
            parent(short.up, short.up_other, short.cp),
            short.task,
            short.worker,
        ),
        time=time_text(at),
        total=short.total,
        type=kind,
    )


# --- times ----------------------------------------------------------------------------------


def time_text(us: int) -> str:
    """Return Unix microseconds as ISO text.

    Raises:
        FormatError: It lies before the year 1 or after 9999.
    """
    if not TIME_US_MIN <= us <= TIME_US_MAX:
        raise FormatError(f"An event's time of {us} us is out of range.")
    second, rest = divmod(us, _MILLION)
    return f"{_second_text(second)}.{rest:06d}Z"


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:_SECONDS_CHARACTERS]


@lru_cache(maxsize=4096)
def _second_of(text: str) -> int:
    second = (datetime.fromisoformat(text + "+00:00") - _EPOCH) // timedelta(seconds=1)
    # The other way round it must be the same text: many write one instant.
    if _second_text(second) != text:
        raise ValueError(text)
    return second


def _span(us: int, text: str) -> int | str:
    return us if -INTEGER_MAX <= us <= INTEGER_MAX else text


def _us_at(told: int | str) -> int:
    """Return the Unix time that `at` tells."""
    if type(told) is int:
        return told
    us = _us_of(told)  # type: ignore[arg-type]
    if type(_span(us, "")) is int:
        _refuse("a time that needs text", told)  # type: ignore[arg-type]
    return us


def _us_created(told: int | str, at: int) -> int:
    """Return the Unix time that `age` tells."""
    if type(told) is int:
        return at - told
    us = _us_of(told)  # type: ignore[arg-type]
    if type(_span(at - us, "")) is int:
        _refuse("a time that needs text", told)  # type: ignore[arg-type]
    return us


def _us_of(text: str) -> int:
    """Return ISO text as Unix microseconds."""
    digits = text[_SECONDS_CHARACTERS + 1 : -1]
    try:
        is_sound = len(text) == _TIME_CHARACTERS and digits.isascii() and digits.isdecimal()
        if is_sound and text[_SECONDS_CHARACTERS] == "." and text[-1] == "Z":
            return _second_of(text[:_SECONDS_CHARACTERS]) * _MILLION + int(digits)
    except (ValueError, OverflowError):
        pass
    raise FormatError(f"The time {text!a:.60} is not written as YYYY-MM-DDTHH:MM:SS.ffffffZ.")


# --- references, ids, types -----------------------------------------------------------------


def _reference_text(reference: Reference) -> str:
    root, size, kind = reference.root, reference.size, reference.kind
    raw = bytes.fromhex(root)
    if len(raw) != _ROOT_BYTES or raw.hex() != root or not 0 <= size <= INTEGER_MAX:
        _refuse_reference(reference)
    text = f"{_b2a(raw, newline=False)[:-1].decode()},{size}"
    if kind == LEAF_KIND:
        return text
    if not _is_kind(kind):
        _refuse_reference(reference)
    return f"{text},{kind}"


def _refuse_reference(reference: Reference) -> NoReturn:
    if not 0 <= reference.size <= INTEGER_MAX:
        raise FormatError(f"A payload's size is negative or above {INTEGER_MAX}.")
    raise FormatError(f"A payload cannot be named {reference.kind!a:.40} {reference.root!a:.80}.")


def _reference(text: str) -> Reference:
    root, _, rest = text.partition(",")
    size, comma, kind = rest.partition(",")
    try:
        number = int(size)
        raw = _a2b(root + "=", strict_mode=True)
    except ValueError:
        _refuse("a reference", text)
    if comma:
        if not _is_kind(kind):
            _refuse("a reference", text)
    else:
        kind = LEAF_KIND
    # Many texts are one number to int().
    if len(raw) != _ROOT_BYTES or not 0 <= number <= INTEGER_MAX or str(number) != size:
        _refuse("a reference", text)
    return Reference(kind, raw.hex(), number)


def _is_kind(kind: str) -> bool:
    is_word = kind.isascii() and kind.isalpha() and kind.islower()
    return is_word and len(kind) <= _KIND_CHARACTERS_MAX and kind != LEAF_KIND


def _made(identifier: str, at: int) -> str:
    """Return an id that the program made as it stands in an event of this time; "" for any other.

    Such an id is the time at which it was made, 14 digits, and 10 more.
    """
    blank = identifier[_MADE_CHARACTERS:]
    if len(identifier) < _MADE_CHARACTERS or blank not in ("", " "):
        return ""
    digits = identifier[:_MADE_CHARACTERS]
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return ""
    age = at - int.from_bytes(raw[:_MADE_TIME_BYTES])
    if raw.hex() != digits or abs(age) > AGE_US_MAX:
        return ""
    rest = _b2a(raw[_MADE_TIME_BYTES:], newline=False)[:-1].decode()
    return f"{age},{rest}{blank}"


def id_of(given: str | msgspec.UnsetType, made: str, at: int) -> str:
    """Return the command's id; exactly one of `id` and `made` stands in an event."""
    if type(given) is str:
        if made:
            _refuse("an id, beside another", made)
        return given
    age, _, rest = made.partition(",")
    blank = " " if rest[_REST_CHARACTERS:] == " " else ""
    try:
        number = int(age)
        raw = _a2b(rest[:_REST_CHARACTERS] + "=", strict_mode=True)
    except ValueError:
        _refuse("an id", made)
    time = at - number
    if not 0 <= time < 256**_MADE_TIME_BYTES or str(number) != age:
        _refuse("an id", made)
    if len(rest) != _REST_CHARACTERS + len(blank) or len(raw) != _MADE_REST_BYTES:
        _refuse("an id", made)
    return f"{time:014x}{raw.hex()}{blank}"


def _parent_parts(parent: str, checkpoint: str) -> tuple[str, str]:
    """Return (whole, what differs): one of them is empty.

    Of two ids of one length the middle differs: their times and randoms, not what they begin with
    nor, behind a mark, whose they are.
    """
    size = len(parent)
    if not size or size != len(checkpoint) or not (parent + checkpoint).isascii():
        return parent, ""
    end = _tail_at(checkpoint)
    if parent == checkpoint or parent[end:] != checkpoint[end:]:
        return parent, ""
    # The first byte that differs, without a loop.
    differing = int.from_bytes(parent.encode()) ^ int.from_bytes(checkpoint.encode())
    return "", parent[size - (differing.bit_length() + 7) // 8 : end]


def parent(whole: str, differing: str, checkpoint: str) -> str:
    """Return a parent's id, as it stands or from what differs in it; "" where there is none.

    Raises:
        FormatError: Both stand there, or more differs than there is.
    """
    if not differing:
        return whole
    if whole:
        _refuse("a parent, beside another", differing)
    end = _tail_at(checkpoint)
    begin = end - len(differing)
    if begin < 0:
        _refuse("a parent", differing)
    return checkpoint[:begin] + differing + checkpoint[end:]


def _tail_at(checkpoint: str) -> int:
    at = checkpoint.rfind(TAIL_MARK)
    return at if at >= 0 else len(checkpoint)


def _type_text(kind: str) -> str:
    if kind.startswith("."):
        raise FormatError(f"An event's type cannot be {kind!a:.60}.")
    return kind.removeprefix(TYPE_FAMILY) if kind.startswith(f"{TYPE_FAMILY}.") else kind


def _refuse(what: str, text: str) -> NoReturn:
    raise FormatError(f"{text!a:.80} is not {what}.")
