"""Carries one file into a backup or out of it: read, checked, hashed, written, synced.

A container is checked frame by frame on the way: the checksum of each is bound to store, file and
offset, so what arrives is what was written, or nothing arrives. A new file is written under a
temporary name and renamed; one that grows is written behind its valid length only. A file that is
there already with the same bytes is left alone.

Memory: one window (1 MiB), or the largest frame (an index of a pack, 44 MB).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from ckptlog.errors import FormatError
from ckptlog.formats import frame
from ckptlog.formats.backup import BackedFile
from ckptlog.storage import files
from ckptlog.storage.disk import Disk

WINDOW_BYTES: Final = 1024 * 1024
Advance = Callable[[int], None]


class Carried(msgspec.Struct, frozen=True):
    """What carrying a file did. written: Bytes that were copied; the others were there."""

    file: BackedFile
    written: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One file to carry.

    name: As the manifest has it. bytes: Valid length; -1 for the whole file.
    seed: Of its checksums, where it consists of frames; None for any other.
    kept: What the target holds of it already, checked and hashed: its length in the manifest.
    """

    name: str
    source: Path
    target: Path
    bytes: int
    seed: int | None = None
    kept: BackedFile | None = None


class Carrier:
    """Carries files.

    Args:
        advance: Called with the number of bytes after each window.

    Durability: bytes; the caller syncs the folders.        Threads: one.
    """

    def __init__(self, disk: Disk, advance: Advance) -> None:
        self._disk = disk
        self._advance = advance

    def carry(self, job: Job) -> Carried:
        """Bring a file to its target.

        Raises:
            FormatError: A frame is damaged, or the source ends before its valid length.
            CheckpointStorageError: By what the system says; errno ENOENT: there is no source.
        """
        fd = self._disk.open_read(job.source)
        try:
            size = self._disk.size(fd)
            length = size if job.bytes < 0 else job.bytes
            if size < length:
                raise FormatError(f"It has {size} bytes; {length} were durable.")
            if job.kept is not None:
                return self._extend(job, fd, length, job.kept)
            return self._whole(job, fd, length)
        finally:
            self._disk.close(fd)

    def _whole(self, job: Job, fd: int, length: int) -> Carried:
        if _size(job.target) == length and (digest := self._compare(job, fd, length)):
            return Carried(BackedFile(job.name, length, digest), 0)
        hasher = blake3()
        out, temporary = files.create_temporary(job.target)
        try:
            at = 0
            for data in self._windows(job, fd, 0, length):
                self._disk.write(out, data, at)
                hasher.update(data)
                at += len(data)
                self._advance(len(data))
            self._disk.sync(out)
            files.publish(temporary, job.target, durable=False)
        except BaseException:
            files.remove(temporary)
            raise
        finally:
            os.close(out)
        return Carried(BackedFile(job.name, length, hasher.hexdigest()), length)

    def _compare(self, job: Job, fd: int, length: int) -> str:
        """Return the hash of a file that is there already, synced; "" where it is another."""
        hasher = blake3()
        there = self._disk.open_read(job.target)
        try:
            at = 0
            for data in self._windows(job, fd, 0, length):
                if self._disk.read(there, len(data), at) != data:
                    return ""
                hasher.update(data)
                at += len(data)
            self._disk.sync(there)  # a killed run may not have come to that
        finally:
            self._disk.close(there)
        self._advance(length)
        return hasher.hexdigest()

    def _extend(self, job: Job, fd: int, length: int, kept: BackedFile) -> Carried:
        """Write what has come behind the kept part, which is hashed and compared first."""
        if length < kept.bytes:
            raise TargetLongerError(job.name)
        hasher = blake3()
        out = self._disk.open_write(job.target)
        try:
            if self.hash_part(out, kept.bytes, hasher) != kept.blake3:
                raise TargetChangedError(job.name)
            at = kept.bytes
            for data in self._windows(job, fd, at, length):
                self._disk.write(out, data, at)
                hasher.update(data)
                at += len(data)
                self._advance(len(data))
            if self._disk.size(out) > length:  # of a run that was killed
                self._disk.truncate(out, length)
            self._disk.sync(out)
        finally:
            self._disk.close(out)
        return Carried(BackedFile(job.name, length, hasher.hexdigest()), length - kept.bytes)

    def hash_part(self, fd: int, length: int, hasher: blake3 | None = None) -> str:
        """Return the hash of a file's first bytes, "" where it is shorter."""
        hasher = blake3() if hasher is None else hasher
        at = 0
        while at < length:
            data = self._disk.read(fd, min(WINDOW_BYTES, length - at), at)
            if not data:
                return ""
            hasher.update(data)
            at += len(data)
        return hasher.hexdigest()

    def _windows(self, job: Job, fd: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a stretch, whole checked frames at a time where it has frames."""
        at = start
        while at < stop:
            data = self._disk.read(fd, min(WINDOW_BYTES, stop - at), at)
            if job.seed is not None:
                data = self._checked(job.seed, fd, at, stop, data)
            if not data:
                raise FormatError(f"It ends at {at}; {stop} bytes were durable.")
            yield data
            at += len(data)

    def _checked(self, seed: int, fd: int, at: int, stop: int, data: bytes) -> bytes:
        """Return the whole checked frames at the front of data, at least one."""
        end = _walked(seed, at, data)
        if not end:
            size = frame.body_length(data[: frame.HEADER_BYTES])
            if size is not None and frame.HEADER_BYTES + size <= stop - at:
                data = self._disk.read(fd, frame.HEADER_BYTES + size, at)
            _, _, end = frame.measure(seed, at, data)  # raises, or it was longer than a window
        return data[:end]


class TargetChangedError(Exception):
    """A backup's file is not what its manifest says. Never leaves the repository."""


class TargetLongerError(Exception):
    """A backup's file is longer than the source. Never leaves the repository."""


def _walked(seed: int, at: int, data: bytes) -> int:
    end = 0
    for _, _, _, end in frame.walk(seed, at, data):  # noqa: B007 - the last one counts
        pass
    return end


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
