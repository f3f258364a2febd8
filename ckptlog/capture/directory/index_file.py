"""Where a stat index lies: read, checked and written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from ckptlog.capture.directory.draft import VERSION, Draft, whole
from ckptlog.capture.directory.scan import Options, Scan
from ckptlog.capture.directory.stat_index import StatIndex, Whole
from ckptlog.errors import CheckpointStorageError
from ckptlog.storage.files import write_atomically
from ckptlog.storage.pool import Pool

_CHECKSUM_BYTES: Final = 16
_decoder = msgspec.msgpack.Decoder(Whole)
_encode = msgspec.msgpack.Encoder().encode


class IndexFile:
    """Where the index of one component lies; what was read last is kept while the file stays.

    Threads: safe; two at once may both read it.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self._options = options
        self._last: tuple[tuple[int, int, int], StatIndex | None] | None = None
        self._pool: Pool | None = None
        self._jobs: list[Future[None]] = []

    def load(self) -> StatIndex | None:
        """Return the index; None where there is none that is sound."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        # A new index is always a new file.
        status = found.st_ino, found.st_mtime_ns, found.st_size
        last = self._last
        if last is None or last[0] != status:
            last = self._last = status, load(self.path, self._options)
        return last[1]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Write in a thread, in the block; its end waits for that. For one capture at a time."""
        with Pool(1, "ckptlog-index") as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool, jobs, self._jobs = None, self._jobs, []
        for job in jobs:
            job.result()

    def save(self, found: Scan, draft: Draft) -> None:
        """Write the index of a capture; see `save`. One that cannot be written is none."""
        if self._pool is None:
            self._save(found, draft)
        else:
            self._jobs.append(self._pool.submit(self._save, found, draft))

    def _save(self, found: Scan, draft: Draft) -> None:
        with suppress(OSError, CheckpointStorageError):
            save(self.path, self._options, found, draft)


def load(path: Path, options: Options, root: str | None = None) -> StatIndex | None:
    """Return the index of the capture with this root; None where there is none that is sound.

    Args:
        root: None for whatever capture it is of.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    body, checksum = memoryview(raw)[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if xxhash.xxh3_128_digest(body) != checksum:
        return None
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    is_ours = found.version == VERSION and found.options == _options_text(options)
    if not is_ours or (root is not None and found.root != root):
        return None
    index = StatIndex(found)
    return index if index.is_sound else None


def save(path: Path, options: Options, found: Scan, draft: Draft) -> None:
    """Write the index of a capture.

    Durability: none; it is made anew where it is lost.
    """
    body = _encode(whole(found, draft, _options_text(options)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, body + xxhash.xxh3_128_digest(body), durable=False)


def _options_text(options: Options) -> str:
    """Return what an index is bound to.

    One from before captures said that attributes are in them names roots that do not say it.
    """
    return f"{options!a}, told" if options.has_attributes else ascii(options)
