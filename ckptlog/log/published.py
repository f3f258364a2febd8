"""`log/end`: up to where readers may read.

Rewritten in place at each commit, after the commit's bytes are durable; so it is never ahead of
the medium. It is not synced then: after a power cut an older end may be there, and the next
writer finds the commits beyond it. A torn or missing end means "unknown", never "empty": a torn one
is found again by the next writer, a missing one is damage.
"""

from __future__ import annotations

from pathlib import Path

from ckptlog.errors import FormatError
from ckptlog.formats import end as end_format
from ckptlog.formats.end import End
from ckptlog.storage.disk import Disk

# A reader without the lock can meet a record while it is being rewritten.
_READ_ATTEMPTS = 100


class PublishedEnd:
    """The end file of one store.

    Threads: reading is safe; publishing happens under the writer's lock only.
    """

    def __init__(self, path: Path, store_id: bytes, disk: Disk, *, read_only: bool) -> None:
        self._path = path
        self._store_id = store_id
        self._disk = disk
        self._read_only = read_only
        self._fd = -1
        # Bytes and what they say, replaced as one: other threads read meanwhile.
        self._seen: tuple[bytes, End | None] = (b"", None)

    def read(self) -> End | None:
        """Return the published end, or None when it is missing or damaged."""
        raw = b""
        for _ in range(_READ_ATTEMPTS):
            raw = self._read_raw()
            seen_raw, seen = self._seen
            if raw == seen_raw:
                return seen
            try:
                end = end_format.decode(raw, self._store_id)
            except FormatError:
                continue
            self._seen = (raw, end)
            return end
        self._seen = (raw, None)
        return None

    @property
    def is_torn(self) -> bool:
        """Whether the last `read` met what a power cut can leave of two records."""
        return end_format.is_torn(self._seen[0], self._store_id)

    def publish(self, end: End) -> None:
        """Show readers the log up to `end`. Not synced."""
        if self._fd < 0:
            self._create(end)
            return
        raw = end_format.encode(end)
        self._disk.write(self._fd, raw, 0)
        self._seen = (raw, end)

    def sync(self) -> None:
        """Put the end on the medium, as a clean close does."""
        if self._fd >= 0 and not self._read_only:
            self._disk.sync(self._fd)

    def close(self) -> None:
        """Close the file."""
        # Forgotten first: a child that is forked in between must not close it once more.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _create(self, end: End) -> None:
        self._disk.write_atomically(self._path, end_format.encode(end))
        self._open()

    def _open(self) -> bool:
        if self._fd >= 0:
            if not self._disk.is_removed(self._fd):
                return True
            # Somebody deleted the file; whoever wrote next has made another.
            self.close()
        if not self._path.exists():
            return False
        opener = self._disk.open_read if self._read_only else self._disk.open_write
        self._fd = opener(self._path)
        return True

    def _read_raw(self) -> bytes:
        return self._disk.read(self._fd, end_format.BYTES, 0) if self._open() else b""
