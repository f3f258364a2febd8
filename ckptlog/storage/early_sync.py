"""Puts a long file on the medium while it is still written.

Theory. The last sync of a file waits until the medium's own cache is written out, and that takes
about as long as the bytes since the sync before are many: 37 MB take 40 ms even where the system
had written all of them back long ago. A sync that another thread begins every few megabytes takes
the same time, but beside the work that makes the rest.

What is promised is still the last sync's to keep. A system tells a failure to the first sync that
meets it and never again, so `wait` tells those of the early ones.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress

from ckptlog.storage import files
from ckptlog.storage.pool import Pool


class EarlySync:
    """Syncs of files that are still written, one after the other, by a thread of its own.

    Threads: not safe.        Durability: none before the caller's own sync, behind `wait`.
    """

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._begun: list[Future[None]] = []

    def begin(self, fd: int) -> None:
        """Let what a file has so far go to the medium; nothing where an earlier sync is at work.

        The descriptor may be closed meanwhile.
        """
        if self._begun and not self._begun[-1].done():
            return
        try:
            own = os.dup(fd)
        except OSError:  # no descriptor is left: the last sync does it all
            return
        if self._pool is None:
            self._pool = Pool(1, "ckptlog-sync")
        job = self._pool.begin(_sync, own)
        if job is None:  # no thread is to be had, and the job is not done later either
            os.close(own)
        else:
            self._begun.append(job)

    def wait(self) -> None:
        """Wait for what was begun.

        Raises:
            CheckpointStorageError: A sync failed since the last call.
        """
        begun, self._begun = self._begun, []
        failures = [failure for job in begun if (failure := job.exception()) is not None]
        for failure in failures:
            raise failure

    def close(self) -> None:
        """End the thread, whatever came of it. Twice is fine."""
        with suppress(Exception):
            self.wait()
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _sync(fd: int) -> None:
    try:
        files.sync_file(fd)
    finally:
        os.close(fd)
