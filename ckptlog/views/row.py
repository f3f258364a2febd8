"""The records that the view keeps, and their bytes.

A record is `checksum (xxh3-64, 8 bytes) + msgpack array`: one SQLite column for all facts is
twice as fast to read as one column per fact, the checksum notices what a bad medium or a foreign
hand did to them, and the decoder checks every type, so that no query trips over a text where a
number belongs. Columns beside it exist only to be searched by.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from xxhash import xxh3_64_digest

from ckptlog.model.entry import Entry
from ckptlog.model.event import Link, Reference
from ckptlog.model.lease import Grant
from ckptlog.views.errors import ViewDamagedError

_CHECKSUM_BYTES: Final = 8
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Row(
    msgspec.Struct,
    frozen=True,
    gc=False,
    array_like=True,
    forbid_unknown_fields=True,
):
    """A checkpoint as its last event left it, and where that event lies.

    id, task, namespace, worker, parent, state, step, total: The public facts.
    origin: Position of the creation; what lists are ordered by.
    created, updated: Times of the creation and of the last event; UTC, ISO 8601.
    position: Of the last event; of the deletion where `deleted`.
    container, offset, length, span: Place of that event (model.entry.Entry).
    data_kind, data_root, data_size: Root of the data; "", "" and 0 where there is none.
    meta_kind, meta_root, meta_size: Root of title, description and metadata; likewise.
    meta: That payload's wire; None where there is none, or it is too large to be kept here.
    deleted: Whether this is a tombstone: its id is spent, its payloads are not to be read.
    previous: In a tombstone, position of the checkpoint's last event before the deletion; the
        deletion of a whole task links to none. -1 in others.
    """

    id: str
    task: str
    namespace: str
    worker: str
    parent: str
    state: str
    step: int
    total: int
    origin: _Count
    created: str
    updated: str
    position: _Count
    container: str
    offset: _Count
    length: _Count
    span: _Count
    data_kind: str
    data_root: str
    data_size: _Count
    meta_kind: str
    meta_root: str
    meta_size: _Count
    meta: bytes | None = None
    deleted: bool = False
    previous: Link = -1


class Standing(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """How far the view is, whose it is, and its sums.

    store: Id of the store, 16 bytes.
    home: Where these bytes were written, so that a torn file is noticed (views.seal).
    position, leaf, container, offset: As in `Mark`.
    checkpoints: Living ones.
    logical, new, sanitised: Sums over all events (`Totals`).
    id_time_max: Greatest number that an id beginning `cp_` ends in.
    fence: Of the last collection (specs/collection.md).
    """

    store: bytes
    home: str = ""
    position: _Count = 0
    leaf: bytes = bytes(32)
    container: str = ""
    offset: _Count = 0
    checkpoints: _Count = 0
    logical: _Count = 0
    new: _Count = 0
    sanitised: _Count = 0
    id_time_max: _Count = 0
    fence: _Count = 0


class Mark(msgspec.Struct, frozen=True, gc=False):
    """How far a view is: everything below `position` is applied.

    leaf: Leaf hash of the event before it, 32 bytes; zeros where there is none.
    container, offset: End of that event's commit; "" and 0 where there is none.
    """

    position: int
    leaf: bytes
    container: str
    offset: int


class Totals(msgspec.Struct, frozen=True, gc=False):
    """Sums of a store.

    checkpoints: Living ones.
    logical_bytes: Sizes of the payloads of each event that saved some (`model.event.saved_bytes`),
        summed: what a whole copy of the state at each save would take.
    new_bytes: What the events added to the store for payloads, as stored.
    events: Number of events.
    sanitised: Secrets replaced.
    """

    checkpoints: int
    logical_bytes: int
    new_bytes: int
    events: int
    sanitised: int


_Record = TypeVar("_Record", Row, Standing, Grant)
_encoder = msgspec.msgpack.Encoder()
_row_decoder = msgspec.msgpack.Decoder(Row)
_standing_decoder = msgspec.msgpack.Decoder(Standing)
_grant_decoder = msgspec.msgpack.Decoder(Grant)
_NO_REFERENCE: Final = Reference("", "", 0)


def encode(record: Row | Standing | Grant) -> bytes:
    """Return a record's bytes.

    Raises:
        ViewDamagedError: A number is too large, or a text has surrogates: no event has such.
    """
    try:
        wire = _encoder.encode(record)
    except (OverflowError, UnicodeError) as error:
        raise ViewDamagedError(f"A record cannot be kept in the view: {error}") from error
    return xxh3_64_digest(wire) + wire


def decode_row(body: object) -> Row:
    """Return the row that a column holds.

    Raises:
        ViewDamagedError: It holds anything else.
    """
    return _decode(body, _row_decoder)


def decode_standing(body: object) -> Standing:
    """Return the standing that a column holds.

    Raises:
        ViewDamagedError: It holds anything else.
    """
    return _decode(body, _standing_decoder)


def decode_grant(body: object) -> Grant:
    """Return the lease that a column holds.

    Raises:
        ViewDamagedError: It holds anything else.
    """
    return _decode(body, _grant_decoder)


def _decode(body: object, decoder: msgspec.msgpack.Decoder[_Record]) -> _Record:
    if type(body) is bytes:
        wire = body[_CHECKSUM_BYTES:]
        if xxh3_64_digest(wire) == body[:_CHECKSUM_BYTES]:
            try:
                return decoder.decode(wire)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                raise ViewDamagedError(f"A record of the view is malformed: {error}") from error
    raise ViewDamagedError("A record of the view is damaged.")


def row_of(entry: Entry, meta: bytes | None) -> Row:
    """Return the row that an event of a living checkpoint leaves."""
    event = entry.event
    subject = event.subject
    data = event.data or _NO_REFERENCE
    about = event.meta or _NO_REFERENCE
    return Row(
        subject.checkpoint,
        subject.task,
        subject.namespace,
        subject.worker,
        subject.parent,
        event.state,
        event.step,
        event.total,
        entry.position if event.origin < 0 else event.origin,
        event.created or event.time,
        event.time,
        entry.position,
        entry.container,
        entry.offset,
        entry.length,
        entry.span,
        data.kind,
        data.root,
        data.size,
        about.kind,
        about.root,
        about.size,
        meta,
    )


def tombstone_of(row: Row, entry: Entry) -> Row:
    """Return what stays of a checkpoint after the event that deleted it, or its task."""
    return msgspec.structs.replace(
        row,
        updated=entry.event.time,
        position=entry.position,
        container=entry.container,
        offset=entry.offset,
        length=entry.length,
        span=entry.span,
        data_kind="",
        data_root="",
        data_size=0,
        meta_kind="",
        meta_root="",
        meta_size=0,
        meta=None,
        deleted=True,
        previous=row.position,
    )
