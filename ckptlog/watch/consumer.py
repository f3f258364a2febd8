"""A named consumer's durable cursor, and the lock that makes it one consumer at a time.

Order of writes (specs/cursor.md): lock -> read -> (new: the whole file, durably) -> deliver ->
acknowledge: the other slot, fdatasync. A file that cannot be believed is never replaced silently.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote

import msgspec

from ckptlog.errors import (
    CheckpointError,
    CheckpointStorageError,
    ConsumerBusyError,
    ConsumerDamagedError,
    ConsumerForeignError,
    LockTimeoutError,
    StoreClosedError,
    operating_system_door,
)
from ckptlog.formats import cursor as cursor_format
from ckptlog.formats.cursor import CursorRecord
from ckptlog.model import html
from ckptlog.model.cursor import Cursor
from ckptlog.model.identifier import check_id, file_name
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.storage.lock import WriterLock, describe_holder

FOLDER = "consumers"
CURSOR_SUFFIX = ".cursor"
LOCK_SUFFIX = ".lock"
_RESET_HINT = (
    "Nothing was delivered. Begin anew where you choose: ckptlog consumers reset NAME --start "
    "beginning, or watch(..., reset=True); the beginning misses nothing."
)


class Consumer:
    """One consumer, held by this object until it is closed.

    Args:
        folder: Where the cursors lie; made when it is missing.
        busy_timeout_s: How long to wait for another holder to end.

    Raises:
        ConsumerBusyError: Somebody else holds it.

    Threads: the owner serialises calls.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        store_id: bytes,
        environment: Environment,
        *,
        busy_timeout_s: float = 0.0,
    ) -> None:
        check_id("consumer", name)
        self.name = name
        self.path = cursor_path(folder, name)
        self._store_id = store_id
        self._environment = environment
        self._disk = environment.disk
        self._fd = -1
        self._serial = 0
        _make_folder(folder)
        self._lock = WriterLock(folder / f"{file_name(name)}{LOCK_SUFFIX}", environment)
        self._is_held = False
        self._pid = os.getpid()
        try:
            self._lock.acquire(busy_timeout_s)
        except LockTimeoutError as error:
            self._lock.close()
            self._refuse_busy(error)
        self._is_held = True

    def _refuse_busy(self, error: LockTimeoutError) -> NoReturn:
        holder = error.context.get("holder", "")
        raise ConsumerBusyError(
            f"{holder or 'Another process'} already reads as the consumer {self.name!r}.",
            hint="One at a time: end that one, wait with busy_timeout_s, or use another name.",
            consumer=self.name,
            holder=holder,
        ) from error

    def load(self) -> Cursor | None:
        """Return the cursor; None for a new consumer.

        Raises:
            ConsumerDamagedError: The file is there and holds no whole record.
            ConsumerForeignError: It is another store's or another consumer's.
        """
        data = read_file(self.path)
        if data is None:
            return None
        record = checked(data, self.path, self._store_id, self.name)
        self._serial = record.serial
        return record.cursor

    def save(self, cursor: Cursor) -> None:
        """Make a cursor durable.

        Raises:
            StoreClosedError: The name was let go of; it may be somebody else's by now.
            CheckpointStorageError: The medium refused; the cursor before is still there.

        Durability: on the medium when it returns.
        """
        if not self._is_held:
            raise StoreClosedError(
                f"The consumer {self.name!r} was closed; its cursor is not ours to move.",
                hint="Open it again.",
            )
        serial = self._serial + 1
        now_us = max(0, self._environment.now_us())
        record = CursorRecord(self._store_id, self.name, serial, cursor, now_us)
        data = cursor_format.encode(record)
        if not self._open():
            self._create(data, serial)
        else:
            try:
                self._disk.write(self._fd, data, cursor_format.slot_of(serial))
                self._disk.sync(self._fd)
            except CheckpointStorageError:
                # After a failed sync the kernel may hold as clean what never reached the medium.
                self._close_file()
                raise
        self._serial = serial

    def begin_anew(self) -> None:
        """Believe nothing that is in the file; the next `save` replaces it whole."""
        self._close_file()
        self._serial = 0

    def remove(self) -> None:
        """Forget the consumer and close."""
        self._close_file()
        with operating_system_door("Cannot remove a consumer's cursor"):
            self.path.unlink(missing_ok=True)
        files.sync_directory(self.path.parent)
        # While it is held, so that nobody takes a lock on a file without a name.
        files.remove(self._lock.path)
        self._let_go()

    def close(self) -> None:
        """Let go of the name."""
        self._close_file()
        self._let_go()

    def _let_go(self) -> None:
        # Unlocked first: a child that was forked this moment still has a copy of the descriptor.
        # In the child itself it is closed already, and unlocking would take the parent's.
        if self._is_held:
            self._is_held = False
            if os.getpid() == self._pid:
                self._lock.release()
        self._lock.close()

    def _open(self) -> bool:
        if self._fd >= 0 and self._disk.is_removed(self._fd):
            self._close_file()
        if self._fd < 0 and self._serial and self.path.exists():
            self._fd = self._disk.open_write(self.path)
        return self._fd >= 0

    def _create(self, data: bytes, serial: int) -> None:
        at = cursor_format.slot_of(serial)
        whole = bytes(at) + data
        whole += bytes(cursor_format.FILE_BYTES - len(whole))
        self._disk.write_atomically(self.path, whole)

    def _close_file(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    with operating_system_door("Cannot make the folder of the consumers"):
        folder.mkdir(parents=True, exist_ok=True)
    files.sync_directory(folder.parent)


def cursor_path(folder: Path, name: str) -> Path:
    """Return the path of a consumer's cursor."""
    return folder / f"{file_name(name)}{CURSOR_SUFFIX}"


def read_file(path: Path) -> bytes | None:
    """Return the bytes of a cursor's file, None where there is none."""
    with operating_system_door("Cannot read a consumer's cursor"):
        try:
            with path.open("rb") as file:
                return file.read(cursor_format.FILE_BYTES)
        except FileNotFoundError:
            return None


def checked(data: bytes, path: Path, store_id: bytes, name: str | None) -> CursorRecord:
    """Return the record that counts in a file's bytes.

    Args:
        name: The consumer; None for whichever the file is named after.

    Raises:
        ConsumerDamagedError, ConsumerForeignError: It cannot be believed.
    """
    record = cursor_format.newest(data)
    if record is None:
        raise ConsumerDamagedError(
            f"The cursor {path} of a consumer is damaged.", hint=_RESET_HINT, path=str(path)
        )
    is_named = record.name == name or (
        name is None and path == cursor_path(path.parent, record.name)
    )
    if record.store_id != store_id or not is_named:
        owner = f"the store {record.store_id.hex()}, consumer {record.name!r}"
        raise ConsumerForeignError(
            f"The cursor {path} belongs to {owner}.", hint=_RESET_HINT, path=str(path)
        )
    return record


class ConsumerStatus(msgspec.Struct, frozen=True):
    """What is known of a consumer, without holding it.

    position: Of the next event; None where the file cannot be believed.
    lag: Durable events that it has not acknowledged.
    updated_us: Unix time of its last acknowledgement, microseconds.
    holder: The process that reads as it; "" for none.
    fault: Code of the error that it would meet when it is opened; "" for none.
    """

    name: str
    position: int | None = None
    lag: int | None = None
    updated_us: int | None = None
    holder: str = ""
    fault: str = ""


class ConsumerList(list[ConsumerStatus]):
    """Consumers by name; a list that shows itself in a notebook."""

    def _repr_html_(self) -> str:
        titles = ("consumer", "position", "lag", "acknowledged", "read by", "fault")
        rows = (
            (one.name, one.position, one.lag, _moment(one.updated_us), one.holder, one.fault)
            for one in self
        )
        return html.card(
            f"Consumers ({len(self):,})", {}, html.table(titles, rows, total=len(self))
        )


def _moment(time_us: int | None) -> datetime | None:
    if not time_us:
        return None
    try:
        return datetime.fromtimestamp(time_us // 1_000_000, UTC)
    except (ValueError, OverflowError):  # a clock that was never right
        return None


def list_consumers(
    folder: Path, store_id: bytes, position: int, check: Callable[[Cursor], None]
) -> ConsumerList:
    """Return every consumer whose cursor lies in a folder, by name.

    Args:
        position: After the last durable event of the store.
        check: Refuses a cursor that is not of the log's past.
    """
    if not folder.is_dir():
        return ConsumerList()
    with operating_system_door("Cannot list the consumers"):
        paths = sorted(folder.glob(f"*{CURSOR_SUFFIX}"))
    found = [_status(path, store_id, position, check) for path in paths]
    return ConsumerList(sorted(found, key=lambda one: one.name))


def _status(
    path: Path, store_id: bytes, position: int, check: Callable[[Cursor], None]
) -> ConsumerStatus:
    holder = describe_holder(path.with_suffix(LOCK_SUFFIX))
    holder = "" if holder == "an unknown process" else holder
    try:
        record = checked(read_file(path) or b"", path, store_id, None)
    except (ConsumerDamagedError, ConsumerForeignError, CheckpointStorageError) as error:
        name = unquote(path.name.removesuffix(CURSOR_SUFFIX))
        return ConsumerStatus(name, holder=holder, fault=error.code)
    at, fault = record.cursor.position, ""
    try:
        check(record.cursor)
    except CheckpointError as error:
        fault = error.code
    return ConsumerStatus(record.name, at, max(0, position - at), record.time_us, holder, fault)
