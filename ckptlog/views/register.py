"""What the file view knows of its files: one row a checkpoint, and how far it is.

The rows are all it needs to go on: where a checkpoint's file lies, what its bytes hash to, which
event it shows, and what `index.json` says of it. Written whole, atomically, after the files; so it
never speaks of a file that was not there. Page: specs/view-files.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec
from xxhash import xxh3_64_digest

from ckptlog.model.cursor import BEGINNING, Cursor
from ckptlog.model.state import CheckpointState
from ckptlog.views.document import folder_of, name_of
from ckptlog.views.errors import ViewDamagedError

FORMAT: Final = 1
DIGEST_BYTES: Final = 8
UNREADABLE: Final = b""
_CHECKSUM_BYTES: Final = 8
_STATES: Final = tuple(state.value for state in CheckpointState)
_Count = Annotated[int, msgspec.Meta(ge=0)]


class FileRow(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One living checkpoint.

    id, task, worker, state: The public facts. origin: Position of its creation; the order of lists.
    position: Of the event that the file shows.
    digest: xxh3-64 of the file's bytes; UNREADABLE where its payload could not be read, and there
        is no file.
    """

    id: str
    task: str
    worker: str
    state: str
    origin: _Count
    position: _Count
    digest: bytes

    @property
    def path(self) -> str:
        """Path of the file below the view's folder."""
        return f"{folder_of(self.state)}/{name_of(self.id)}"


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The register as it is written.

    boot: Of the machine that wrote the files, which are not synced. is_whole: Whether every file
    is there; False while the view is built anew. index: Digest of index.json.
    """

    format: int
    store: bytes
    boot: bytes
    is_whole: bool
    index: bytes
    last_updated: str
    position: _Count
    leaf: bytes
    container: str
    offset: _Count
    rows: list[FileRow]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


class Register:
    """The rows of one file view, by checkpoint and by task.

    Attributes:
        cursor: Behind the last event that the files show.
        last_updated: That event's time; "" before the first.
        index: Digest of index.json as it was written last.
        is_whole: Whether every row's file was written.
        boot: Of the machine on which it was.
    """

    def __init__(self, store_id: bytes, boot: bytes) -> None:
        self.store_id = store_id
        self.boot = boot
        self.cursor: Cursor = BEGINNING
        self.last_updated = ""
        self.index = b""
        self.is_whole = True
        self._rows: dict[str, FileRow] = {}
        self._of_task: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[FileRow]:
        return iter(self._rows.values())

    def get(self, checkpoint: str) -> FileRow | None:
        """Return a checkpoint's row."""
        return self._rows.get(checkpoint)

    def of_task(self, task: str) -> tuple[str, ...]:
        """Return the ids of a task's checkpoints."""
        return tuple(self._of_task.get(task, ()))

    def put(self, row: FileRow) -> None:
        """Take in a row, in the place of the one that is there."""
        before = self._rows.get(row.id)
        if before is not None and before.task != row.task:
            self.drop(row.id)
        self._rows[row.id] = row
        self._of_task.setdefault(row.task, {})[row.id] = None

    def drop(self, checkpoint: str) -> None:
        """Forget a checkpoint."""
        row = self._rows.pop(checkpoint, None)
        if row is not None:
            names = self._of_task[row.task]
            del names[checkpoint]
            if not names:
                del self._of_task[row.task]

    def encode(self) -> bytes:
        """Return the register's bytes; equal registers have equal bytes."""
        cursor = self.cursor
        record = _Record(
            FORMAT,
            self.store_id,
            self.boot,
            self.is_whole,
            self.index,
            self.last_updated,
            cursor.position,
            cursor.leaf,
            cursor.container,
            cursor.offset,
            self.in_order(),
        )
        wire = _encoder.encode(record)
        return xxh3_64_digest(wire) + wire

    def in_order(self) -> list[FileRow]:
        """Return the rows in the order of creation; they nearly are."""
        return sorted(self._rows.values(), key=lambda row: row.origin)


def decode(data: bytes) -> Register:
    """Return the register that bytes hold.

    Raises:
        ViewDamagedError: They are torn, damaged, or another version's.
    """
    wire = data[_CHECKSUM_BYTES:]
    if len(data) <= _CHECKSUM_BYTES or xxh3_64_digest(wire) != data[:_CHECKSUM_BYTES]:
        raise ViewDamagedError("The register of the file view is torn or damaged.")
    try:
        record = _decoder.decode(wire)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ViewDamagedError(f"The register of the file view is malformed: {error}") from error
    if record.format != FORMAT:
        raise ViewDamagedError(f"The register has format {record.format}; {FORMAT} is known.")
    register = Register(record.store, record.boot)
    register.cursor = Cursor(record.position, record.leaf, record.container, record.offset)
    register.last_updated, register.index = record.last_updated, record.index
    register.is_whole = record.is_whole
    for row in record.rows:
        register.put(row)
    return register


def index_of(rows: Iterable[FileRow], last_updated: str, position: int) -> dict[str, Any]:
    """Return the content of index.json: the specification's structure, in the order of creation.

    Args:
        rows: Of living checkpoints, in the order of creation.
        position: After the last event that is shown.
    """
    by_task: dict[str, list[str]] = {}
    by_worker: dict[str, list[str]] = {}
    by_state: dict[str, list[str]] = {state: [] for state in _STATES}
    unreadable: list[str] = []
    total = 0
    for row in rows:
        total += 1
        by_task.setdefault(row.task, []).append(row.id)
        by_state.setdefault(row.state, []).append(row.id)
        if row.worker:
            by_worker.setdefault(row.worker, []).append(row.id)
        if row.digest == UNREADABLE:
            unreadable.append(row.id)
    metadata: dict[str, Any] = {
        "last_updated": last_updated or None,
        "total_checkpoints": total,
        "position": position,
    }
    if unreadable:
        metadata["unreadable"] = unreadable
    return {
        "by_task": by_task,
        "by_worker": by_worker,
        "by_state": by_state,
        "metadata": metadata,
    }
