"""The history's files: named by day and positions, written whole, checked before they are believed.

    history/date=2026-01-31/<start>-<stop>.parquet    rows of one day in one span (`span`)
    history.json                                      which of them count (`manifest`)
    history.tmp/                                      what is being written

The folder itself holds whole Parquet files and nothing else, at any time, so that any tool can
read it. A file is renamed into it without a sync: what a power cut leaves of it does not have the
digest that the manifest says, and is made again. Its bytes depend on nothing but the rows and the
version of the library that writes them. Names are made of dates and numbers only.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xxhash import xxh3_128, xxh3_128_hexdigest

from ckptlog.errors import (
    ArgumentError,
    LockTimeoutError,
    from_os_error,
    operating_system_door,
)
from ckptlog.storage.files import (
    TEMPORARY_SUFFIX,
    create_temporary,
    publish,
    remove,
    unlock_and_close,
    write_all,
    write_atomically,
)
from ckptlog.views.errors import ViewDamagedError
from ckptlog.views.history import manifest as manifests
from ckptlog.views.history.column import COLUMNS, PARTITION, SCHEMA, schema
from ckptlog.views.history.manifest import UNDATED, File, Manifest
from ckptlog.views.history.past import UNKNOWN_US, Fact
from ckptlog.views.history.span import Span

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP_ROWS: Final = 65_536
_COMPRESSION_LEVEL: Final = 1
_BLOCK_BYTES: Final = 1024 * 1024
_LOCK_STEP_S: Final = 0.01
_DAY: Final = f"{PARTITION}="
_OWN: Final = re.compile(r"\d{20}-\d{20}\.parquet")
_PARQUET: Final = re.compile(r".*\.parquet", re.DOTALL)
_SCRAP: Final = re.compile(rf"{_OWN.pattern}\.\d+-\d+{re.escape(TEMPORARY_SUFFIX)}")
_ANY: Final = re.compile(r".*", re.DOTALL)


class Shelf:
    """The folder of one history.

    Threads: the owner serialises; `write` may run beside reads of other files.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self._manifest = folder.with_name(f"{folder.name}.json")
        self._scratch = folder.with_name(f"{folder.name}{TEMPORARY_SUFFIX}")
        self._store = store
        self._is_named = False
        # What was hashed already: size, time of the last change, inode.
        self._seen: dict[File, tuple[int, int, int]] = {}

    @contextmanager
    def lock(self, timeout_s: float) -> Iterator[None]:
        """Hold the folder, making it if need be: one process at a time changes a history.

        Raises:
            LockTimeoutError: Another process held it for too long.
            CheckpointStorageError: It cannot be made.
            ArgumentError: As `refuse_foreign`, where that was asked before.
        """
        with operating_system_door("Cannot open the history"):
            if self.folder.is_symlink() or self.folder.is_file():
                self.folder.unlink()  # never followed: what lies behind it is not ours to change
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._acquire(fd, timeout_s)
            if self._is_named:  # another store may have come first since it was looked at
                self.refuse_foreign()
            yield
        finally:
            self._is_named = False
            unlock_and_close(fd)

    def _acquire(self, fd: int, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise LockTimeoutError(
                        f"Another process has been at work on the history in {self.folder} for "
                        f"{timeout_s:g} s.",
                        hint="Call again; or name another folder to build one of your own.",
                        path=str(self.folder),
                    ) from None
                time.sleep(_LOCK_STEP_S)

    def refuse_foreign(self) -> None:
        """Refuse a folder in which somebody else keeps something; for one that a user named.

        Until the next `lock` has ended the folder counts as named: it is looked at once more under
        the lock, and nothing is removed from it that does not have a name of ours.

        Raises:
            ArgumentError: It holds the history of another store, or files that are not ours (with
                a manifest that can be believed: Parquet files, which would be taken for rows), or
                what stands in the manifest's place is another's.
        """
        try:
            foreign = self._foreign()
        except OSError as error:
            raise from_os_error(error, "Cannot look at the history") from error
        if foreign is not None:
            raise ArgumentError(
                f"{self.folder} (with {self._manifest.name} beside it) holds something else: "
                f"{foreign}.",
                hint="Name a folder that is new or empty, or one that holds this store's history.",
                argument="folder",
            )
        self._is_named = True

    def _foreign(self) -> str | None:
        """Say what is in the folder, or beside it, that is not ours; None where all is."""
        try:
            data = self._manifest.read_bytes()
        except FileNotFoundError:
            is_used = self.folder.exists() and (
                not self.folder.is_dir() or any(self.folder.iterdir())
            )
            return "it is not empty, and there is no manifest" if is_used else None
        if data and not data.startswith(manifests.BEGIN):
            return f"{self._manifest.name} is not the manifest of a history"
        store = manifests.owner(data)
        if store is not None and store != self._store:
            return f"the history of the store {store}"
        # An empty or torn manifest proves nothing: then only names of ours are.
        return _stranger(self.folder, _PARQUET if store is not None else _ANY)

    # --- the manifest -----------------------------------------------------------------------

    def load(self) -> Manifest:
        """Return the manifest.

        Raises:
            ViewDamagedError: There is none that can be believed.
        """
        try:
            data = self._manifest.read_bytes()
        except FileNotFoundError:
            raise ViewDamagedError("There is no history yet.") from None
        except OSError as error:
            raise ViewDamagedError(f"The history's manifest cannot be read: {error}") from error
        return manifests.decode(data, self._store)

    def save(self, manifest: Manifest) -> None:
        """Let a manifest count from now on."""
        write_atomically(self._manifest, manifests.encode(manifest), durable=False)

    def sweep(self, manifest: Manifest, *, is_ours: bool) -> None:
        """Remove what the manifest does not name: replaced files, what a killed process left.

        Args:
            is_ours: Whether there was a manifest before: then every Parquet file in the folder
                that is not named is removed, for others would take it for rows. Else, and in
                a folder that a user named, only those with names of ours.
        """
        named = {file.name for file in manifest.files}
        names = _PARQUET if is_ours and not self._is_named else _OWN
        with suppress(OSError):
            for day in list(os.scandir(self.folder)):
                _sweep_day(day, named, names)
        with suppress(OSError):
            for entry in list(os.scandir(self._scratch)):
                if _SCRAP.fullmatch(entry.name):
                    remove(Path(entry.path))
            self._scratch.rmdir()
        self._seen = {file: seen for file, seen in self._seen.items() if file.name in named}

    # --- checking ---------------------------------------------------------------------------

    def broken(self, files: Iterable[File], *, is_thorough: bool) -> list[File]:
        """Return the files that are missing or not what the manifest says.

        Args:
            is_thorough: Hash those that this process has not hashed yet; else only those that
                changed since it did, and for the others the size must do.
        """
        return [file for file in files if not self._is_sound(file, is_thorough=is_thorough)]

    def forget(self) -> None:
        """Believe nothing that was checked before."""
        self._seen = {}

    def _is_sound(self, file: File, *, is_thorough: bool) -> bool:
        path = self.folder / file.name
        try:
            found = path.lstat()
            stamp = (found.st_size, found.st_mtime_ns, found.st_ino)
            seen = self._seen.get(file)
            if found.st_size != file.bytes or path.is_symlink() or path.parent.is_symlink():
                return False
            if seen == stamp or (seen is None and not is_thorough):
                return True
            if _digest(path) != file.digest:
                return False
        except OSError:
            return False
        self._seen[file] = stamp
        return True

    # --- rows -------------------------------------------------------------------------------

    def write(self, span: Span, table: pa.Table) -> list[File]:
        """Write the rows of a span, a file for each day.

        Args:
            table: Exactly the rows of the span, in order.

        Raises:
            CheckpointStorageError: By kind: full, denied, read-only, io.

        Threads: one span at a time.
        """
        return [self._write_day(span, date, rows) for date, rows in _by_day(table)]

    def _write_day(self, span: Span, date: str, rows: pa.Table) -> File:
        data = _parquet(rows, self._store)
        digest = xxh3_128_hexdigest(data)
        file = File(span.start, span.stop, date, rows.num_rows, len(data), digest)
        path = self.folder / file.name
        if path.parent.is_symlink():
            remove(path.parent)
        with operating_system_door("Cannot write the history"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch.mkdir(exist_ok=True)
        fd, temporary = create_temporary(self._scratch / path.name)
        try:
            write_all(fd, data, 0)
            publish(temporary, path, durable=False)
        except BaseException:
            remove(temporary)
            raise
        finally:
            os.close(fd)
        return file

    def read(self, files: Sequence[File], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of files, by position.

        Raises:
            ViewDamagedError: A file cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = schema() if columns is None else pa.schema([schema().field(c) for c in columns])
        tables = [wanted.empty_table()]
        for file in files:
            try:
                with pq.ParquetFile(
                    self.folder / file.name, page_checksum_verification=True
                ) as opened:
                    found = opened.read(columns=wanted.names).cast(wanted)
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise ViewDamagedError(f"{file.name} cannot be read: {error}") from error
            tables.append(found)
        whole = pa.concat_tables(tables)
        return whole if len(files) < 2 else whole.sort_by("position")

    def facts(self, files: Sequence[File], positions: Sequence[int]) -> dict[int, Fact]:
        """Return what rows say of checkpoints, by position; those not in the files are left out.

        Args:
            positions: Ascending.

        Raises:
            ViewDamagedError: A file cannot be read.
        """
        found: dict[int, Fact] = {}
        by_span: dict[Span, list[File]] = {}
        for file in files:
            by_span.setdefault(file.span, []).append(file)
        for span, own in by_span.items():
            wanted = [one for one in positions if span.start <= one < span.stop]
            if wanted:
                found |= _facts(self.read(own, _FACT_COLUMNS), wanted)
        return found


_FACT_COLUMNS: Final = ("position", "time", "state_after", "state_since")


def _facts(table: pa.Table, wanted: Sequence[int]) -> dict[int, Fact]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = table.filter(pc.is_in(table["position"], pa.array(wanted, pa.int64())))
    columns = [
        rows["position"].to_pylist(),
        rows["state_after"].to_pylist(),
        pc.fill_null(rows["state_since"].cast(pa.int64()), UNKNOWN_US).to_pylist(),
        pc.fill_null(rows["time"].cast(pa.int64()), UNKNOWN_US).to_pylist(),
    ]
    return {position: Fact(*fact) for position, *fact in zip(*columns, strict=True)}


def _by_day(table: pa.Table) -> list[tuple[str, pa.Table]]:
    """Return the rows of each day, days in order; rows keep theirs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = table["time"].cast(pa.date32()).combine_chunks()
    runs = pc.run_end_encode(days)
    ends, values = runs.run_ends.to_pylist(), runs.values.to_pylist()
    if len(set(values)) == len(values):  # no clock went back over midnight: a day is a slice
        starts = [0, *ends]
        parts = {
            _name(day): table.slice(start, end - start)
            for day, start, end in zip(values, starts, ends, strict=False)
        }
    else:
        parts = {
            _name(day): table.filter(pc.is_null(days) if day is None else pc.equal(days, day))
            for day in set(values)
        }
    return sorted(parts.items())


def _name(day: Any) -> str:
    return UNDATED if day is None else str(day.isoformat())


def _parquet(rows: pa.Table, store: str) -> pa.Buffer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"ckptlog.store": store, "ckptlog.schema": str(SCHEMA)}
    # One chunk for each column: where pages end must not depend on how the rows came together.
    rows = rows.combine_chunks().replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=_COMPRESSION_LEVEL,
        use_dictionary=[one.name for one in COLUMNS if one.is_repetitive],
        column_encoding={one.name: one.encoding for one in COLUMNS if not one.is_repetitive},
        sorting_columns=[pq.SortingColumn(0)],
        write_page_index=True,
        write_page_checksum=True,
    )
    return sink.getvalue()


def _digest(path: Path) -> str:
    hasher = xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def _stranger(folder: Path, names: re.Pattern[str]) -> str | None:
    """Return the path of something that has one of these names, and none of ours; None for none."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        return folder.name
    for day in list(os.scandir(folder)):
        if not (day.is_dir(follow_symlinks=False) and day.name.startswith(_DAY)):
            if names.fullmatch(day.name) and not _OWN.fullmatch(day.name):
                return day.name
            continue
        for entry in list(os.scandir(day.path)):
            if names.fullmatch(entry.name) and not _OWN.fullmatch(entry.name):
                return f"{day.name}/{entry.name}"
    return None


def _sweep_day(day: os.DirEntry[str], named: set[str], names: re.Pattern[str]) -> None:
    if not day.is_dir(follow_symlinks=False):
        if names.fullmatch(day.name):
            remove(Path(day.path))
        return
    if not day.name.startswith(_DAY):
        return
    entries = list(os.scandir(day.path))
    for entry in entries:
        if f"{day.name}/{entry.name}" not in named and names.fullmatch(entry.name):
            remove(Path(entry.path))
    with suppress(OSError):  # something is left in it
        Path(day.path).rmdir()
