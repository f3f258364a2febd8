"""The file of events that could not be delivered: JSON Lines, one event each, durable."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ckptlog.errors import operating_system_door
from ckptlog.storage import files
from ckptlog.storage.environment import Environment
from ckptlog.watch.event import WatchEvent


class DeadLetters:
    """Appends to one file; several processes may share it.

    Threads: safe; a line is one write at the file's end.
    """

    def __init__(self, path: Path, environment: Environment) -> None:
        self.path = path
        self._environment = environment

    def add(self, event: WatchEvent, reason: str, attempts: int) -> None:
        """Add an event.

        Raises:
            CheckpointStorageError: It could not be written; the event must not be acknowledged.

        Durability: on the medium when it returns.
        """
        letter = {
            "event": event.to_cloud_event(),
            "reason": reason,
            "attempts": attempts,
            "time_us": self._environment.now_us(),
        }
        line = msgspec.json.encode(letter) + b"\n"
        is_new = not self.path.exists()
        with operating_system_door("Cannot write a dead letter"):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(self.path, flags, 0o666)
        try:
            if not _ends_a_line(fd):  # a crash has torn the last one
                line = b"\n" + line
            with operating_system_door("Cannot write a dead letter"):
                while line:
                    line = line[os.write(fd, line) :]
            files.sync_file(fd)
        finally:
            os.close(fd)
        if is_new:
            files.sync_directory(self.path.parent)


def _ends_a_line(fd: int) -> bool:
    with operating_system_door("Cannot read the dead letters"):
        size = os.fstat(fd).st_size
        return size == 0 or os.pread(fd, 1, size - 1) == b"\n"
