"""The store as it was: every checkpoint's state after some event, and the views as of then.

An event holds all public facts of its checkpoint, so the state after event n is, of each
checkpoint, its last event up to n. A point inside a commit is a point like any other here, though
no reader of that time can have seen it.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptlog.errors import (
    ArgumentError,
    CheckpointStorageError,
    operating_system_door,
)
from ckptlog.log.bulk import BulkReader, Stretch
from ckptlog.model import html
from ckptlog.model.checkpoint import time_text
from ckptlog.model.cursor import BEGINNING, Cursor, after_entry
from ckptlog.model.entry import Commit, Entry
from ckptlog.repository.file_view import FOLDER, document_of
from ckptlog.views.errors import ViewError
from ckptlog.views.export import export_current
from ckptlog.views.files import Change, FilesView
from ckptlog.views.rebuild import Rebuild, complete
from ckptlog.views.register import Register

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

DATABASE: Final = "current.sqlite"
MANIFEST: Final = "replay.json"
_UNFINISHED: Final = ".replay.tmp"
_NO_BOOT: Final = bytes(16)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A store as it was.

    position: Of the last event that counts; None where none does.
    time: Of that event. leaf: Its RFC 6962 leaf hash, which ties the state to one history.
    entries: Last event of each checkpoint that was there, in the order of creation.
    later: Events that count though they are stamped later than the time that was asked for,
        because the clock went back.
    commit: First and last position of the commit that the point lies inside of; None where it
        lies between two.
    into: Folder of the views; None where none were asked for.
    """

    position: int | None
    time: str | None
    leaf: bytes
    entries: tuple[Entry, ...]
    later: int = 0
    commit: tuple[int, int] | None = None
    into: str | None = None

    @property
    def states(self) -> dict[str, int]:
        """Number of checkpoints in each state that occurs."""
        return dict(Counter(entry.event.state for entry in self.entries))

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts: dict[str, object] = {
            "position": self.position,
            "time": self.time,
            "leaf": self.leaf.hex(),
            **{name: f"{number:,}" for name, number in sorted(self.states.items())},
        }
        if self.later:
            facts["stamped later"] = f"{self.later:,}"
        if self.commit:
            facts["inside of the commit"] = "{} to {}".format(*self.commit)
        if self.into is not None:
            facts["views in"] = self.into
        rows = (
            (event.subject.checkpoint, event.subject.task, event.state, event.step, one.position)
            for one in self.entries
            for event in (one.event,)
        )
        titles = ("checkpoint", "task", "state", "step", "position")
        return html.card("Replay", facts, html.table(titles, rows, total=len(self.entries)))


def replay(
    store: Store, until: int | datetime | None = None, into: str | os.PathLike[str] | None = None
) -> Replay:
    """Return the state after an event, or at a time; write the views as of then.

    Args:
        until: A position: after the event there. A time (aware): after the last event, by
            position, that is not stamped later. None: now.
        into: A folder to make, or an empty one, outside of the store: current.sqlite, files/ and
            replay.json as of then. It is there whole or not at all.

    Raises:
        ArgumentError: There is no such position; the folder cannot be used.
        LogCorruptionError: The log is damaged before that point.
        CheckpointStorageError: The system refused; nothing was left in the folder.

    Cost: reads the log up to there once, a second time for the views, and all of it for a time;
        memory for an entry (about 1.5 KB) of each checkpoint that was there.
    """
    target = None if into is None else _target(store, into)
    stop, later = _stop(store, until)
    past = _Past(store, stop)
    found = past.fold(later)
    if target is None:
        return found
    with _unfinished(target) as folder:
        past.write(folder, found)
    return msgspec.structs.replace(found, into=str(target))


def _stop(store: Store, until: int | datetime | None) -> tuple[int, int]:
    """Return the position after the last event that counts, and how many are stamped later."""
    end = store.position
    if until is None:
        return end, 0
    if isinstance(until, datetime):
        return _stop_at(store, until)
    if type(until) is not int or until < 0:
        raise ArgumentError(
            f"until is {until!r}; a position (from 0 on) or a time is needed.", argument="until"
        )
    if until >= end:
        last = f"the last is {end - 1}" if end else "it is empty"
        raise ArgumentError(
            f"The log has no position {until}; {last}.",
            hint="`ckptlog log` shows the positions.",
            position=until,
            position_next=end,
        )
    return until + 1, 0


def _stop_at(store: Store, moment: datetime) -> tuple[int, int]:
    if moment.tzinfo is None:
        raise ArgumentError(
            f"until is {moment}, which has no time zone.",
            hint="datetime.now(UTC), for example.",
            argument="until",
        )
    limit = time_text(moment)
    stop = later = seen_later = 0
    for entry in store.events():
        if entry.event.time <= limit:
            stop, later = entry.position + 1, seen_later
        else:
            seen_later += 1
    return stop, later


class _Past:
    """The log up to a position."""

    def __init__(self, store: Store, stop: int) -> None:
        self._store = store
        self._stop = stop
        self._change = Change(Register(store.info.id_bytes, _NO_BOOT))
        self._cursor: Cursor = BEGINNING
        self._stretch: Stretch | None = None

    def fold(self, later: int) -> Replay:
        """Read the log; return what it comes to."""
        last: Commit | None = None
        for whole in self._whole_commits():
            last = whole
            for entry in _head(whole, self._stop).entries:
                self._change.add(entry)
        if last is None:
            return Replay(position=None, time=None, leaf=BEGINNING.leaf, entries=())
        head = _head(last, self._stop)
        entry = head.entries[-1]
        self._cursor = after_entry(entry, head.leaf)
        is_cut = len(head.entries) < len(last.entries)
        living = sorted(self._change.last.values(), key=lambda one: one.origin)
        return Replay(
            position=entry.position,
            time=entry.event.time,
            leaf=head.leaf,
            entries=tuple(living),
            later=later,
            commit=(last.entries[0].position, last.position_next - 1) if is_cut else None,
        )

    def write(self, folder: Path, found: Replay) -> None:
        """Write the views into an empty folder."""
        store = self._store
        log = store.log
        bulk = BulkReader(log.segments, store.info.id_bytes)
        rebuild = Rebuild(log.reader, bulk, store.blobs.raw, taken=self._meet)
        windows = self._windows(rebuild.windows(BEGINNING, log.end()))
        try:
            export_current(folder / DATABASE, store.info.id_bytes, windows, rebuild.meta_of)
        except ViewError as error:
            raise CheckpointStorageError(
                f"{folder / DATABASE} cannot be written: {error}", path=str(folder)
            ) from error
        files = FilesView(folder / FOLDER, store.info.id_bytes, _NO_BOOT)
        files.apply(self._change, self._cursor, lambda entry: document_of(store, entry))
        files.strip()
        with operating_system_door("Cannot write"):
            (folder / MANIFEST).write_bytes(_manifest(store, found))

    def _whole_commits(self) -> Iterator[Commit]:
        if not self._stop:
            return
        for commit in self._store.log.reader.commits():
            yield commit
            if commit.position_next >= self._stop:
                return

    def _meet(self, _: Sequence[Commit], stretch: Stretch | None) -> None:
        self._stretch = stretch

    def _windows(self, windows: Iterator[list[Commit]]) -> Iterator[list[Commit]]:
        """Yield what lies below the stop."""
        if not self._stop:
            return
        for window in windows:
            if window[-1].position_next < self._stop:
                yield window
                continue
            stretch = self._stretch
            commits = window if stretch is None else complete(window, stretch)
            kept = [one for one in commits if one.entries[0].position < self._stop]
            yield [*kept[:-1], _head(kept[-1], self._stop)]
            return


def _head(commit: Commit, stop: int) -> Commit:
    """Return what a commit has below a position, which lies in it or behind it."""
    if commit.position_next <= stop:
        return commit
    count = stop - commit.entries[0].position
    last = commit.entries[count - 1]
    end = last.offset + last.length
    return Commit(
        commit.entries[:count],
        tuple(place for place in commit.placements if place.offset < end),
        commit.leaves[count - 1],
        commit.container,
        end,
        commit.raw[:count] if count > 1 else (),
    )


def _manifest(store: Store, found: Replay) -> bytes:
    """Return what the views are of; nothing in it differs from one replay to the next."""
    content: dict[str, Any] = {
        "store": store.id,
        "position": found.position,
        "time": found.time,
        "leaf": found.leaf.hex(),
        "checkpoints": len(found.entries),
        "states": dict(sorted(found.states.items())),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


# --- the folder -----------------------------------------------------------------------------------


def _target(store: Store, into: str | os.PathLike[str]) -> Path:
    """Return the folder to make, refusing one that cannot be.

    Raises:
        ArgumentError: It holds something, is no folder, lies in the store or around it, or is
            where this process works.
    """
    try:
        target = Path(os.path.realpath(into))
    except (TypeError, ValueError, OSError) as error:
        raise ArgumentError(f"{into!r} is not a path: {error}", argument="into") from error
    root = Path(os.path.realpath(store.path))
    fault = ""
    if target == root or root in target.parents:
        fault = "lies in the store"
    elif target in root.parents:
        fault = "holds the store"
    elif target == Path(os.path.realpath(".")):
        fault = "is the working directory, which would be replaced"
    elif target.exists() and not target.is_dir():
        fault = "is not a directory"
    elif target.is_dir() and any(target.iterdir()):
        fault = "is not empty"
    elif not target.parent.is_dir():
        fault = "cannot be made: the directory above it does not exist"
    if fault:
        raise ArgumentError(
            f"{target} {fault}.",
            hint="Name a new or an empty directory outside of the store.",
            argument="into",
            path=str(target),
        )
    return target


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Give a folder beside the target to fill; it becomes the target when the block ends.

    What a killed one has left is removed: its lock died with it.
    """
    prefix = f".{target.name}."
    folder = target.parent / f"{prefix}{os.getpid()}{_UNFINISHED}"
    with operating_system_door("Cannot make the folder of the views"):
        for path in target.parent.iterdir():
            if path.name.startswith(prefix) and path.name.endswith(_UNFINISHED):
                _remove_unused(path)
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(fd, LOCK_EX)
        yield folder
        with operating_system_door(f"Cannot make {target}"):
            os.rename(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(fd)


def _remove_unused(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)
