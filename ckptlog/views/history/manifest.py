"""The manifest: what files a history consists of, and up to which event of which log it goes.

It is the commit point: files that it does not name do not count, and are removed. It is JSON with
a checksum of itself in front; anything else than a manifest that is right in every respect counts
as none, and then the history is made anew.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Final

import msgspec
from xxhash import xxh3_128_hexdigest

from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.history.column import SCHEMA
from ckptlog.views.history.span import Span, spans

KIND: Final = "ckptlog.history"
VERSION: Final = 1
# What Hive calls the partition of rows that have no date.
UNDATED: Final = "__HIVE_DEFAULT_PARTITION__"
# What a manifest's file begins with.
BEGIN: Final = b'{"checksum":"'

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class File(msgspec.Struct, frozen=True, order=True, gc=False, forbid_unknown_fields=True):
    """One Parquet file: the rows of one day in one span.

    start, stop: The span; positions.
    date: `2026-01-31`, or UNDATED.
    rows, bytes: Numbers of.
    digest: xxh3-128 of its bytes.
    """

    start: _Count
    stop: _Count
    date: str
    rows: _Count
    bytes: _Count
    digest: _Digest

    @property
    def span(self) -> Span:
        """The positions that it belongs to."""
        return Span(self.start, self.stop)

    @property
    def name(self) -> str:
        """Its path below the history's folder; made of numbers only, never read from anywhere."""
        return f"date={self.date}/{self.start:020d}-{self.stop:020d}.parquet"


class Manifest(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A history.

    store: Id of the store.
    position, leaf, container, offset: Of the cursor after its last row (model.cursor.Cursor).
    files: By span and date.
    written_by: Version of the library that made the files; for people.
    """

    store: str
    position: _Count
    leaf: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    container: str
    offset: _Count
    files: tuple[File, ...]
    written_by: str = ""
    kind: str = KIND
    version: int = VERSION
    schema: int = SCHEMA

    @property
    def cursor(self) -> Cursor:
        """Where the history goes on."""
        return Cursor(self.position, bytes.fromhex(self.leaf), self.container, self.offset)


class _Owner(msgspec.Struct, frozen=True, gc=False):
    """What every version of a manifest says."""

    store: str
    kind: str


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    checksum: str
    history: msgspec.Raw


def empty(store: str) -> Manifest:
    """Return the manifest of a history without rows."""
    return make(store, BEGINNING, ())


def make(store: str, cursor: Cursor, files: tuple[File, ...], written_by: str = "") -> Manifest:
    """Return the manifest of a history that goes up to a cursor."""
    place = (cursor.position, cursor.leaf.hex(), cursor.container, cursor.offset)
    return Manifest(store, *place, tuple(sorted(files)), written_by)


def encode(manifest: Manifest) -> bytes:
    """Return a manifest's bytes."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return msgspec.json.encode(_Envelope(xxh3_128_hexdigest(body), msgspec.Raw(body))) + b"\n"


def decode(data: bytes, store: str) -> Manifest:
    """Return the manifest that bytes hold.

    Raises:
        ViewDamagedError: They do not, or it is not one of this store in this version.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        body = bytes(envelope.history)
        if xxh3_128_hexdigest(body) != envelope.checksum:
            raise ViewDamagedError("The history's manifest is damaged.")
        found = msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ViewDamagedError(f"The history's manifest is malformed: {error}") from error
    if (found.kind, found.version, found.schema) != (KIND, VERSION, SCHEMA):
        raise ViewDamagedError("The history was made by another version.")
    if found.store != store:
        raise ViewDamagedError("The history belongs to another store.")
    if not is_whole(found):
        raise ViewDamagedError("The history's manifest does not name every row once.")
    return found


def owner(data: bytes) -> str | None:
    """Return the id of the store whose manifest, of whatever version, bytes hold; None for none."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        body = bytes(envelope.history)
        found = msgspec.json.decode(body, type=_Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    is_one = found.kind == KIND and xxh3_128_hexdigest(body) == envelope.checksum
    return found.store if is_one else None


def is_whole(manifest: Manifest) -> bool:
    """Say whether the files are those of a history of this length."""
    rows: dict[Span, int] = {}
    for file in manifest.files:
        rows[file.span] = rows.get(file.span, 0) + file.rows
    names = {file.name for file in manifest.files}
    return (
        rows == {span: span.stop - span.start for span in spans(manifest.position)}
        and len(names) == len(manifest.files)
        and all(file.rows and _is_date(file.date) for file in manifest.files)
    )


def _is_date(text: str) -> bool:
    try:
        return text == UNDATED or datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
