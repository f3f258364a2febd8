"""Bugs of the commit protocol, planted on purpose: what hunts for crashes must find each of them.

Each function breaks one rule of specs/log.md in this process, for good: a hunt that runs in the
same process puts things back with `planted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ckptlog.log.log import Log
from ckptlog.log.recovery import Recovery
from ckptlog.storage import files
from ckptlog.storage.disk import Disk
from ckptlog.storage.lock import WriterLock

Plant = Callable[[], dict[tuple[Any, str], object]]


def no_sync() -> dict[tuple[Any, str], object]:
    """Commits are not synced (C4 left out)."""
    return {(Disk, "sync"): lambda *_: None}


def early_publish() -> dict[tuple[Any, str], object]:
    """The end is published before the sync (C5 before C4)."""
    sync = vars(Log)["_sync"]

    def publish_first(self: Log, tail: Any) -> None:
        self._publish(tail)
        sync(self, tail)

    return {(Log, "_sync"): publish_first}


def no_folder_sync() -> dict[tuple[Any, str], object]:
    """No folder is synced: names may be lost (R4 left out, packs too)."""
    return {
        (files, "sync_directory"): lambda *_: None,
        (Disk, "sync_directory"): lambda *_: None,
    }


def no_cut() -> dict[tuple[Any, str], object]:
    """A torn tail is neither kept aside nor cut (V3 left out)."""
    settle = vars(Recovery)["_settle_tail"]

    class Uncut:
        def __init__(self, disk: Disk) -> None:
            self._disk = disk

        def truncate(self, fd: int, length: int) -> None:
            del fd, length

        def __getattr__(self, name: str) -> Any:
            return getattr(self._disk, name)

    def settle_uncut(self: Recovery, *arguments: Any) -> None:
        kept, self._disk = self._disk, Uncut(self._disk)  # type: ignore[assignment]
        try:
            settle(self, *arguments)
        finally:
            self._disk = kept

    return {
        (Recovery, "_settle_tail"): settle_uncut,
        (Recovery, "_set_aside_rest"): lambda *_: None,
    }


def no_lock() -> dict[tuple[Any, str], object]:
    """Two processes write at once."""
    return {
        (WriterLock, "try_acquire"): lambda *_: True,
        (WriterLock, "release"): lambda *_: None,
    }


def early_pack_name() -> dict[tuple[Any, str], object]:
    """A pack gets its name before its bytes are synced, and they never are."""
    from ckptlog.blobs import pack

    class Unsynced:
        def sync_file(self, fd: int) -> None:
            del fd

        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

    return {(pack, "files"): Unsynced()}


def stale_memory() -> dict[tuple[Any, str], object]:
    """What a process remembers of the log's end is believed under the lock, unread."""

    def catch_up(self: Log) -> Any:
        return self._tail if self._tail is not None else self._recover(self.published.read())

    return {(Log, "_catch_up"): catch_up}


BUGS: dict[str, Plant] = {
    bug.__name__: bug
    for bug in (no_sync, early_publish, no_folder_sync, no_cut, no_lock, early_pack_name,
                stale_memory)
}  # fmt: skip


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a bug during the block; "" is none."""
    with replaced(BUGS[name]() if name else {}):
        yield


@contextmanager
def replaced(others: dict[tuple[Any, str], object]) -> Iterator[None]:
    """Have other attributes of classes and modules during the block."""
    before: list[tuple[Any, str, object]] = []
    try:
        for (owner, attribute), other in others.items():
            before.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, other)
        yield
    finally:
        for owner, attribute, whole in reversed(before):
            setattr(owner, attribute, whole)
