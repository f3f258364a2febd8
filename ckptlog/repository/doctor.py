"""The doctor: what is wrong inside a store, or only strange, and what to do about it.

Each check looks at one thing. What surrounds a store (rights, medium, libraries, lock) is the
command line's to look at; whether every byte is right is `verify`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptlog.blobs.pack import FOLDER as PACKS
from ckptlog.blobs.pack import read_index
from ckptlog.errors import CheckpointError
from ckptlog.formats import pack
from ckptlog.log.segments import FOLDER as LOG
from ckptlog.repository import layout
from ckptlog.repository.opening import open_store
from ckptlog.repository.report import Finding
from ckptlog.storage.files import TEMPORARY_SUFFIX
from ckptlog.views.errors import ViewError

if TYPE_CHECKING:
    from ckptlog.repository.store import Store

# Younger files may belong to a writer at work.
_AGE_S: Final = 3600
_CLOCK_BEHIND_US: Final = 5_000_000
_SHOWN: Final = 3
_REPLAY: Final = "Run `ckptlog replay`; the log is not concerned."


def diagnose(store: Store | str | os.PathLike[str]) -> list[Finding]:
    """Return what there is to say about a store, open or by its path.

    A store that cannot be opened has its error as the only finding. Nothing is changed.
    """
    if not isinstance(store, str | os.PathLike):
        return list(_findings(store))
    try:
        with open_store(store, read_only=True) as opened:
            return list(_findings(opened))
    except CheckpointError as error:
        return [Finding("error", error.code, error.message, error.hint)]


def _findings(store: Store) -> Iterator[Finding]:
    for check in (_log, _tail, _view, _index, _packs, _left_overs, _reserve, _clock, _legacy):
        try:
            yield from check(store)
        except CheckpointError as error:
            yield Finding("error", error.code, error.message, error.hint)


def _log(store: Store) -> Iterator[Finding]:
    if store.log.published.read() is None:
        yield Finding(
            "error",
            "doctor.end",
            "The published end of the log is missing or damaged.",
            "Run `ckptlog repair`, with --from where there is a second copy of this store.",
        )
        return
    yield Finding("ok", "doctor.log", f"The log has {store.position} events.")
    for note in store.log.notes:
        yield Finding(
            "warning",
            "doctor.recovery",
            note,
            "What was acknowledged is there; a crash or the medium is the cause.",
        )


def _tail(store: Store) -> Iterator[Finding]:
    """Tell of commits beyond the published end: a writer is at work, or it died."""
    end = store.log.published.read()
    if end is None:
        return
    disk = store.environment.disk
    fd = disk.open_read(store.log.segments.path(end.first, end.generation))
    try:
        beyond = disk.read(fd, 4, end.offset)
    finally:
        disk.close(fd)
    if beyond.strip(b"\0") and end == store.log.published.read():
        yield Finding(
            "warning",
            "doctor.tail",
            "Something stands beyond the published end: a writer is at work, or one was killed.",
            "The next writer keeps what is whole; opening the store for writing is enough.",
        )


def _view(store: Store) -> Iterator[Finding]:
    try:
        view = store.view()
        problems, kind, notes = view.check(), view.kind, view.notes
    except ViewError as error:
        yield Finding("warning", "doctor.view", f"The view is damaged: {error}", _REPLAY)
        return
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        yield Finding("warning", "doctor.view", f"The view is damaged: {shown}", _REPLAY)
    elif kind != "file" and not store.read_only:
        yield Finding(
            "warning",
            "doctor.view",
            f"The view is kept in memory and made anew at each opening. {' '.join(notes)}".strip(),
            "Make the folder `views` in the store writable.",
        )
    else:
        anew = f" {' '.join(notes)}" if notes else ""
        yield Finding("ok", "doctor.view", f"The view is sound.{anew}")


def _index(store: Store) -> Iterator[Finding]:
    index = store.index
    for problem in index.problems:
        yield Finding("warning", "doctor.index", problem, _REPLAY)
    if index.position < store.position:
        yield Finding(
            "warning",
            "doctor.index",
            f"The chunk index ends at {index.position} of {store.position} events.",
            _REPLAY,
        )
    elif not index.problems:
        yield Finding("ok", "doctor.index", f"The chunk index has {index.entries} entries.")


def _packs(store: Store) -> Iterator[Finding]:
    unused = []
    for path in sorted((store.path / PACKS).glob("*.pack")):
        if pack.parse_name(path.name) is None or not _is_old(store, path):
            continue
        container = f"{PACKS}/{path.name}"
        try:
            places = read_index(path, store.info.id_bytes)
        except CheckpointError as error:
            yield Finding("error", "doctor.pack", error.message, "Run `ckptlog verify`.")
            continue
        found = (store.index.get(place.digest) for place in places)
        if not any(place is not None and place.container == container for place in found):
            unused.append(container)
    if unused:
        yield _files_finding("doctor.packs", "No event seems to have registered", unused)


def _left_overs(store: Store) -> Iterator[Finding]:
    torn = [f"{LOG}/{path.name}" for path in sorted((store.path / LOG).glob("torn-*"))]
    if torn:
        yield _files_finding("doctor.torn", "Recoveries have cut off and kept", torn)
    folders = ["", LOG, PACKS, layout.VIEWS, f"{layout.VIEWS}/chunks"]
    temporary = [
        str(path.relative_to(store.path))
        for folder in folders
        for path in sorted((store.path / folder).glob(f"*{TEMPORARY_SUFFIX}"))
        if _is_old(store, path)
    ]
    if temporary:
        hint = "They do not count. `ckptlog compact` removes those that nobody works on."
        yield _files_finding("doctor.temporary", "A crash has left", temporary, hint)


_HINT_LEFT = "They do not count. Once no process has the store open they may be deleted."


def _files_finding(code: str, what: str, names: list[str], hint: str = _HINT_LEFT) -> Finding:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
    return Finding(
        "warning",
        code,
        f"{what} {shown}.",
        hint,
    )


def _is_old(store: Store, path: Path) -> bool:
    try:
        return store.environment.now_us() / 1e6 - path.stat().st_mtime > _AGE_S
    except OSError:  # gone meanwhile
        return False


def _reserve(store: Store) -> Iterator[Finding]:
    if not (store.path / layout.RESERVE).exists():
        yield Finding(
            "warning",
            "doctor.reserve",
            "The reserve, which lets a delete fit on a full disk, was used up.",
            "Free some space; the next close of the store makes it again.",
        )


def _clock(store: Store) -> Iterator[Finding]:
    last = store.event_at(store.position - 1) if store.position else None
    if last is None:
        return
    behind_us = int(datetime.fromisoformat(last.event.time).timestamp() * 1e6)
    behind_us -= store.environment.now_us()
    if behind_us > _CLOCK_BEHIND_US:
        yield Finding(
            "warning",
            "doctor.clock",
            f"This machine's clock is {behind_us / 1e6:.0f} s behind the last event.",
            "Set the clock. Order and recovery do not depend on it; ages and clean-ups do.",
        )


def _legacy(store: Store) -> Iterator[Finding]:
    if layout.is_legacy(store.path):
        yield Finding(
            "warning",
            "doctor.legacy",
            "Checkpoints of the old layout (checkpoint_*.json) stand beside the store.",
            f"Bring them in, if that was not done: ckptlog import legacy {store.path}",
        )
