"""A log that tests append to, and what watches it."""

from __future__ import annotations

import pytest

from ckptlog.storage.environment import Environment
from ckptlog.watch.watcher import Watcher
from tests.log.sample import STORE_ID, append, create_log, group


class Room:
    """One log with a writer, and watchers of it.

    Attributes:
        root: The store's folder (a log, no store.json).
        watcher: What a process has of it.
    """

    def __init__(self, root, **options):
        self.root = root
        self.log = create_log(root, **options)
        self.watchers = []
        self.watcher = self.process()

    def process(self, *, read_only=False, environment=None):
        """Return what another process would have."""
        made = Watcher(self.root, STORE_ID, environment or Environment(), read_only=read_only)
        self.watchers.append(made)
        return made

    def add(self, *names, record_bytes=0):
        """Append a commit of an event for each name."""
        return append(self.log, group(*names, record_bytes=record_bytes))[0]

    def watch(self, consumer=None, **options):
        return self.watcher.open(consumer, {"watcher": False, "poll_s": 0.01, **options})

    def take(self, consumer=None, **options):
        """Return the ids of what is there, acknowledged one by one."""
        got = []
        with self.watch(consumer, follow=False, **options) as events:
            for event in events:
                got.append(event.event.id)
                events.ack(event)
        return got

    def cursor_file(self, name):
        return self.root / "consumers" / f"{name}.cursor"

    def close(self):
        for watcher in self.watchers:
            watcher.close()
        self.log.close()


@pytest.fixture
def room(tmp_path):
    room = Room(tmp_path / "store", segment_bytes=13_000)
    yield room
    room.close()


def ids(events):
    return [event.event.id for event in events]
