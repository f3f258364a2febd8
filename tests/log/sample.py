"""Made-up events and small logs for the tests of this room and of the faults."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from ckptlog.formats import event as event_format
from ckptlog.formats import frame, segment
from ckptlog.log.batch import Group, Item, Tail, Won
from ckptlog.log.log import Log
from ckptlog.model.entry import Commit
from ckptlog.model.event import Event, Subject
from ckptlog.storage.disk import Disk
from ckptlog.storage.environment import Environment

STORE_ID = bytes(range(16))
WAIT_S = 10.0


class StillEnvironment(Environment):
    """A clock that steps only when it is read, so that every run is the same."""

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(disk)
        self._now_us = 1_700_000_000_000_000

    def now_us(self) -> int:
        self._now_us += 1
        return self._now_us


def event(name: str) -> Event:
    return Event(
        actor="tester",
        id=name,
        schema=1,
        subject=Subject(checkpoint=f"cp-{name}"),
        time="2026-01-01T00:00:00.000000Z",
        type="checkpoint.created",
    )


def record(name: str, size: int) -> bytes:
    """Return a chunk record as the log sees one: a digest and bytes that it does not read."""
    return blake3(name.encode()).digest() + blake3(name.encode()).digest(length=max(0, size - 32))


def group(*names: str, record_bytes: int = 0) -> Group:
    """Return one commit's items: an event for each name, with a chunk record in front of it."""
    return [
        Item(event(name), (record(name, record_bytes),) if record_bytes else ()) for name in names
    ]


def create_log(root: Path, *, disk: Disk | None = None, **options) -> Log:
    (root / "log").mkdir(parents=True)
    log = open_log(root, disk=disk, **options)
    with log._hold.mutex:
        log._lock.acquire(WAIT_S)
        log.create_first()
        log.published.sync()
        log._lock.release()
    return log


def open_log(root: Path, *, disk: Disk | None = None, **options) -> Log:
    return Log(root, STORE_ID, StillEnvironment(disk), **options)


def append(log: Log, *groups: Group) -> tuple[Commit, ...]:
    """Append at the tail, wherever that is."""
    with log.exclusive(WAIT_S) as tail:
        won = log.append(groups, tail.position, timeout_s=WAIT_S)
    assert isinstance(won, Won)
    return won.commits


def fill(log: Log, names: Iterable[str], **options) -> None:
    """Append one commit of one event for each name."""
    for name in names:
        append(log, group(name, **options))


def published_ids(log: Log, **options: bool) -> list[str]:
    """Return the ids of all published events, having checked that the positions are dense."""
    entries = [entry for commit in log.reader.commits(**options) for entry in commit.entries]
    assert [entry.position for entry in entries] == list(range(len(entries)))
    return [entry.event.id for entry in entries]


def segment_paths(root: Path) -> list[Path]:
    return sorted((root / "log").glob("[0-9]*.seg"))


def tail_of(log: Log) -> Tail:
    with log.exclusive(WAIT_S) as tail:
        return tail


def durables(path: Path, commits: Iterable[Commit]) -> dict[str, int]:
    """Return what each event frame of the first segment names as durable."""
    seed = segment.seed(STORE_ID, 0, 0)
    data = path.read_bytes()
    found = {}
    for commit in commits:
        for entry in commit.entries:
            body = frame.decode(seed, entry.offset, data, entry.offset).body
            found[entry.event.id] = event_format.decode_prefix(body)[1]
    return found
