"""What a subscription reads from: one store's log, with descriptors of its own.

Of its own, because it looks at the published end in its own rhythm, opening the file anew each
time, and goes on or ends whatever the store's other users do.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ckptlog.log.follower import Follower, WakeUp
from ckptlog.log.published import PublishedEnd
from ckptlog.log.reader import LogReader
from ckptlog.log.segments import FOLDER as LOG_FOLDER
from ckptlog.log.segments import Segments
from ckptlog.model.cursor import Cursor
from ckptlog.storage.environment import Environment
from ckptlog.watch.hint import LogHint


class OpenedLog(msgspec.Struct, frozen=True):
    """A log opened for reading."""

    reader: LogReader
    published: PublishedEnd
    environment: Environment

    def follower(self, cursor: Cursor, wake_up: WakeUp, poll_s: float) -> Follower:
        """Return a follower of it."""
        return Follower(
            self.reader,
            self.published,
            cursor,
            environment=self.environment,
            wake_up=wake_up,
            poll_s=poll_s,
        )

    def close(self) -> None:
        """Close its files."""
        self.reader.close()
        self.published.close()


class Source(msgspec.Struct, frozen=True):
    """A store as subscriptions see it. store_id: 16 bytes."""

    root: Path
    store_id: bytes
    environment: Environment
    hint: LogHint

    def open_log(self) -> OpenedLog:
        """Open the log for reading."""
        disk = self.environment.disk
        folder = self.root / LOG_FOLDER
        segments = Segments(folder, self.store_id, disk)
        published = PublishedEnd(folder / "end", self.store_id, disk, read_only=True)
        reader = LogReader(self.root, self.store_id, segments, published)
        return OpenedLog(reader, published, self.environment)
