"""A set of digests that may be larger than memory: what a collection keeps.

The newest are in a Python set; what is more goes to sorted files (see `run`), which are mapped.
Halves of digests are kept: two that agree in 128 bits would both stay, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ckptlog.blobs import run_writer
from ckptlog.blobs.run import ENTRY, KEY_BYTES, Mark, Run
from ckptlog.blobs.run_writer import Stretch
from ckptlog.formats.line import sieve_of
from ckptlog.storage import files

# Some 25 MB of memory.
RECENT_MAX: Final = 250_000
_NAMES: Final = ("live",)
_RUNS_MAX: Final = 8


class LiveSet:
    """Digests, in memory and in files of a folder that nobody else uses.

    Threads: one.        Durability: none.
    """

    def __init__(self, folder: Path, store_id: bytes, *, recent_max: int = RECENT_MAX) -> None:
        self._folder = folder
        self._store_id = store_id
        self._recent_max = recent_max
        self._recent: set[bytes] = set()
        self._runs: list[Run] = []
        self._spilt = 0
        self._sieve = b""
        self._met = bytearray()

    def __len__(self) -> int:
        """Return how many were added; one that came again after long may count twice."""
        return len(self._recent) + sum(run.count for run in self._runs)

    def __contains__(self, digest: object) -> bool:
        """Say whether a digest was added."""
        if not isinstance(digest, bytes):
            return False
        if digest[:KEY_BYTES] in self._recent:
            return True
        return any(run.find(digest) is not None for run in reversed(self._runs))

    def in_memory(self) -> set[bytes] | None:
        """Return halves of all digests, not to be changed; None where some are in files."""
        return None if self._runs else self._recent

    def sieve(self) -> bytes:
        """Return the sieve of what is in memory, once nothing more is added (formats.line)."""
        return self._sieve

    def among(self, digests: Sequence[bytes]) -> set[bytes]:
        """Return those of some digests that were added; once closed, note that they were met."""
        if self._runs:
            found = self._runs[-1].among(digests, self._met or None)
            for run in self._runs[-2::-1]:
                found |= run.among(digests)
            return found | {one for one in digests if one[:KEY_BYTES] in self._recent}
        recent, size = self._recent, KEY_BYTES
        return {digest for digest in digests if digest[:size] in recent}

    def update(self, digests: Iterable[bytes]) -> None:
        """Add digests of 32 bytes.

        Raises:
            CheckpointStorageError: There is no room in the folder.
        """
        self._sieve = b""
        self._recent.update([digest[:KEY_BYTES] for digest in digests])
        if len(self._recent) >= self._recent_max:
            self._spill()

    def close(self) -> None:
        """Make ready for many questions: nothing more is added.

        Raises:
            CheckpointStorageError: There is no room in the folder.
        """
        if self._runs and self._recent:
            self._spill()
        if len(self._runs) > 1:
            self._merge()
        if self._runs:
            self._met = bytearray(self._runs[0].count)
        else:
            self._sieve = sieve_of(self._recent)

    def unmet(self) -> Iterator[bytes]:
        """Yield the keys in files that `among` was not asked for since the set was closed."""
        return self._runs[0].keys_but(self._met) if self._runs else iter(())

    def _spill(self) -> None:
        start, self._spilt = self._spilt, self._spilt + len(self._recent)
        mark = Mark(self._spilt, _NAMES[0], 0, bytes(32))
        entries = [ENTRY.pack(key, 0, 0, 0) for key in self._recent]
        self._runs.append(
            run_writer.write_entries(
                self._folder, self._store_id, Stretch(start, mark), _NAMES, entries
            )
        )
        self._recent = set()
        if len(self._runs) > _RUNS_MAX:
            self._merge()

    def _merge(self) -> None:
        merged = run_writer.merge_runs(self._folder, self._store_id, self._runs)
        for run in self._runs:
            if run.path is not None:
                files.remove(run.path)
        self._runs = [merged]
