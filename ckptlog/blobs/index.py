"""The chunk index: where each chunk of the log lies. Disposable, and never a reason to fail.

A memory tail takes what commits bring; when it is full it becomes a sorted, immutable run (see
`run`). Neighbours are merged until each run is more than twice as large as the next newer one:
their number grows with the logarithm of the index, and so does how often an entry is rewritten.

Invariants (specs/index.md):
* Everything below `position` is indexed; runs cover stretches of positions that follow each
  other from 0, so what is missing or damaged is always "all from here on", and the owner scans
  the log from `persisted` to heal it. A run may hold more than its stretch; that harms nobody.
* A wrong or missing answer costs time, never data: whoever reads a chunk checks its digest, and
  asks the log when the index does not know.
* Files are changed only under a flock on `lock` in the folder, which is tried, never awaited; a
  file is only ever made under another name and renamed, so a mapped one never changes.
* Whatever goes wrong with the folder, the index goes on in memory and says so in `problems`.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ckptlog.blobs import run_writer
from ckptlog.blobs.run import SUFFIX, Mark, Run, open_run
from ckptlog.errors import CheckpointError, FormatError, operating_system_door
from ckptlog.model.entry import Commit, Placement
from ckptlog.storage import files

# Some 6 MB of memory, and 30 ms to write.
TAIL_ENTRIES_MAX: Final = 20_000
_FACTOR: Final = 2
_LOCK_NAME: Final = "lock"
_LIST_TRIES_MAX: Final = 10


class _View(NamedTuple):
    """What a look-up sees, replaced as a whole: newest first, the tail, then the runs.

    frozen: The tail that is being written, or could not be yet.
    runs: From old to new; those in files stand before those in memory.
    """

    tail: dict[bytes, Placement]
    frozen: dict[bytes, Placement]
    runs: tuple[Run, ...]
    newest_first: tuple[Run, ...]


class _Job(NamedTuple):
    """What one flush has to write: everything below mark that is in no run."""

    epoch: int
    mark: Mark
    frozen: dict[bytes, Placement]
    runs: tuple[Run, ...]


class ChunkIndex:
    """Digest to place, for every chunk of the log below `position`.

    Args:
        folder: Where runs live; None keeps everything in memory.
        store_id: 16 bytes; runs of other stores are dropped.
        read_only: Use the runs that are there, and change nothing in the folder.
        tail_entries_max: Chunks that the memory tail holds before a flush writes it.

    Threads: safe; look-ups take no lock.
    """

    def __init__(
        self,
        folder: Path | None,
        store_id: bytes,
        *,
        read_only: bool = False,
        tail_entries_max: int = TAIL_ENTRIES_MAX,
    ) -> None:
        self._store_id = store_id
        self._tail_entries_max = tail_entries_max
        self._target = None if read_only else folder  # where runs are written; None: in memory
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._epoch = 0
        self._problems: list[str] = []
        self._mark: Mark | None = None
        self._view = _view({}, {}, ())
        if folder is not None:
            self._load(folder)

    @property
    def position(self) -> int:
        """Every chunk of the log below this position is indexed."""
        mark = self._mark
        return mark.position if mark else 0

    @property
    def persisted(self) -> Mark | None:
        """Where the runs in files end: (position, container, offset_end, leaf); None at 0."""
        return _persisted(self._view.runs)

    @property
    def entries(self) -> int:
        """How many places are held; a chunk that was stored twice may count twice."""
        view = self._view
        return len(view.tail) + len(view.frozen) + sum(run.count for run in view.runs)

    @property
    def tail_entries(self) -> int:
        """How many of them are in memory, until a flush writes them."""
        view = self._view
        return len(view.tail) + len(view.frozen)

    @property
    def problems(self) -> tuple[str, ...]:
        """What was dropped or could not be written, in words, oldest first."""
        return tuple(self._problems)

    def get(self, digest: bytes) -> Placement | None:
        """Return where a chunk lies by the newest commit that stored it, None if unknown.

        A file that turns out damaged is dropped and reported; `position` falls then.
        """
        view = self._view
        found = view.tail.get(digest) or view.frozen.get(digest)
        if found is not None:
            return found
        for run in view.newest_first:
            try:
                found = run.find(digest)
            except FormatError as error:
                self._drop(run, error)
                return self.get(digest)
            if found is not None:
                return found
        return None

    def add(self, commit: Commit, extra: Iterable[Placement] = ()) -> bool:
        """Take in the next commit: its own chunks and those of the packs that it registers.

        A commit that is already covered is skipped.

        Returns:
            False where commits before this one are missing; nothing was taken in then, and the
            owner scans the log from `position` first.
        """
        with self._lock:
            position = self.position
            if commit.position_next <= position:
                return True
            if commit.entries[0].position > position:
                return False
            tail = self._view.tail
            for place in commit.placements:
                tail[place.digest] = place
            for place in extra:
                tail[place.digest] = place
            self._mark = Mark(
                commit.position_next, commit.container, commit.offset_end, commit.leaf
            )
        return True

    def flush(self, *, force: bool = False) -> None:
        """Write the tail as a run when it is full; with force, whatever there is.

        Returns at once, having done nothing, while another thread or process flushes.

        Durability: none; what is lost is scanned again.        Threads: safe; look-ups go on.
        """
        if not self._flushing.acquire(blocking=False):
            return
        try:
            job = self._freeze(force=force)
            if job is not None:
                self._write(job)
        finally:
            self._flushing.release()

    def clear(self) -> None:
        """Forget everything and remove the runs: the owner scans the log from the start."""
        with self._flushing, self._lock:
            self._epoch += 1
            self._view = _view({}, {}, ())
            self._mark = None
            if self._target is not None:
                for path in _run_paths(self._target):
                    files.remove(path)

    def shed(self) -> None:
        """Remove the runs, and write none any more: the owner scans the log into memory."""
        self.clear()
        with self._flushing, self._lock:
            self._target = None

    def adopt(self, run: Run) -> None:
        """Hold what a run from position 0 on holds, and only that; its file is ours from now on.

        Durability: none.        Threads: safe; look-ups go on.
        """
        with self._flushing, self._lock:
            self._epoch += 1
            if self._target is not None:
                try:
                    run = self._moved(run, self._target)
                except (CheckpointError, OSError) as error:
                    self._target = None
                    self._problems.append(f"The chunk index stays in memory: {error}")
            self._view = _view({}, {}, (run,))
            self._mark = run.mark

    def _moved(self, run: Run, folder: Path) -> Run:
        """Return a run as it is once its file is in the folder, in the place of all others."""
        if run.path is None:
            self._target = None
            return run
        # Another process that flushes at this moment may remove it again: then it is read where
        # it is mapped, and whoever opens the folder next scans the log.
        with _folder_lock(folder):
            for path in _run_paths(folder):
                files.remove(path)
            run.path.replace(folder / run.name)
            return open_run(folder / run.name, self._store_id)

    def close(self) -> None:
        """Write what is left and let go of the files; the index is empty afterwards."""
        self.flush(force=True)
        with self._flushing, self._lock:
            self._epoch += 1
            self._view = _view({}, {}, ())
            self._mark = None
            self._target = None

    def _load(self, folder: Path) -> None:
        try:
            chain, problems = _read_chain(folder, self._store_id, ())
        except CheckpointError as error:
            self._give_up(error)
            return
        self._problems += problems
        self._view = _view({}, {}, chain)
        self._mark = _persisted(chain)

    def _freeze(self, *, force: bool) -> _Job | None:
        with self._lock:
            tail, frozen, runs, _ = self._view
            written = runs[-1].mark.position if runs else 0
            is_full = len(tail) + len(frozen) > self._tail_entries_max
            mark = self._mark
            if mark is None or mark.position <= written or not (is_full or force):
                return None
            frozen = {**frozen, **tail}
            self._view = _view({}, frozen, runs)
            return _Job(self._epoch, mark, frozen, runs)

    def _write(self, job: _Job) -> None:
        try:
            folder = self._target
            runs = self._in_folder(job, folder) if folder else self._in_memory(job)
        except FormatError as error:  # a run that was to be merged is damaged
            self._drop_named(error)
            return
        except CheckpointError as error:
            self._give_up(error)
            runs = self._in_memory(job)
        if runs is None:
            return  # another process is at it; the next flush takes the frozen part along
        with self._lock:
            if self._epoch != job.epoch:
                return
            self._view = _view(self._view.tail, {}, runs)
            end = runs[-1].mark
            if self._mark is None or end.position > self._mark.position:
                self._mark = end

    def _in_memory(self, job: _Job) -> tuple[Run, ...]:
        start = job.runs[-1].mark.position if job.runs else 0
        fresh = run_writer.write_run(None, self._store_id, start, job.mark, job.frozen.values())
        return self._merged((*job.runs, fresh), None)

    def _in_folder(self, job: _Job, folder: Path) -> tuple[Run, ...] | None:
        """Write under the folder's lock, on top of what other processes have written."""
        with _folder_lock(folder) as is_ours:
            if not is_ours:
                return None
            chain, problems = _read_chain(folder, self._store_id, job.runs)
            self._problems += problems
            start = chain[-1].mark.position if chain else 0
            if start < (job.runs[-1].mark.position if job.runs else 0):
                # Somebody made the folder anew; what we have does not follow on what is there.
                self._target = None
                self._problems.append(f"{folder} was made anew by another process; not written.")
                return self._in_memory(job)
            runs = chain
            if start < job.mark.position:
                fresh = run_writer.write_run(
                    folder, self._store_id, start, job.mark, job.frozen.values()
                )
                runs = self._merged((*chain, fresh), folder)
            _sweep(folder, runs)
            return runs

    def _merged(self, runs: tuple[Run, ...], folder: Path | None) -> tuple[Run, ...]:
        """Merge the newest runs until each is over _FACTOR times the size of the next."""
        first = last = len(runs) - 1
        size = runs[last].count
        while first and _is_like(runs[first - 1], folder):
            if runs[first - 1].count > _FACTOR * size:
                break
            first -= 1
            size += runs[first].count
        if first == last:
            return runs
        return (*runs[:first], run_writer.merge_runs(folder, self._store_id, runs[first:]))

    def _drop(self, damaged: Run, error: FormatError) -> None:
        """Drop a run and everything after it; the owner will scan from where it began."""
        with self._lock:
            view = self._view
            if damaged not in view.runs:
                return
            self._epoch += 1
            self._problems.append(error.message)
            kept = view.runs[: view.runs.index(damaged)]
            self._view = _view({**view.frozen, **view.tail}, {}, kept)
            self._mark = kept[-1].mark if kept else None
        self._remove(damaged.name)

    def _drop_named(self, error: FormatError) -> None:
        """Drop the run that an error names, be it ours or one that another process wrote."""
        name = str(error.context.get("run"))
        for run in self._view.runs:
            if run.name == name:
                self._drop(run, error)
                return
        self._problems.append(error.message)
        self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove a damaged file; one that stays would be met again by every flush."""
        if self._target is None:
            return
        path = self._target / name
        files.remove(path)
        if os.path.lexists(path):
            self._target = None

    def _give_up(self, error: CheckpointError) -> None:
        """Go on in memory."""
        self._target = None
        self._problems.append(f"The chunk index stays in memory: {error.message}")


def _view(
    tail: dict[bytes, Placement], frozen: dict[bytes, Placement], runs: tuple[Run, ...]
) -> _View:
    return _View(tail, frozen, runs, runs[::-1])


def _persisted(runs: tuple[Run, ...]) -> Mark | None:
    marks = [run.mark for run in runs if run.path is not None]
    return marks[-1] if marks else None


def _is_like(run: Run, folder: Path | None) -> bool:
    return (run.path is None) == (folder is None)


def _run_paths(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if name.endswith(SUFFIX)]


def _read_chain(
    folder: Path, store_id: bytes, have: tuple[Run, ...]
) -> tuple[tuple[Run, ...], list[str]]:
    """Return the runs in a folder that follow each other from 0, and what is wrong with others."""
    candidates, problems = _open_all(folder, store_id, have)
    chain: list[Run] = []
    position = 0
    while fitting := [
        run for run in candidates if run.start <= position and run.mark.position > position
    ]:
        chain.append(max(fitting, key=lambda run: run.mark.position))
        position = chain[-1].mark.position
    problems += [
        f"{run.name} was dropped: nothing sound leads up to it."
        for run in candidates
        if run.start > position
    ]
    return tuple(chain), problems


def _open_all(folder: Path, store_id: bytes, have: tuple[Run, ...]) -> tuple[list[Run], list[str]]:
    """Open every run in a folder; again where another process changed it meanwhile.

    Whoever opens the index has no lock, so a merge may take files away between list and open.
    """
    opened = {run.name: run for run in have if run.path is not None}
    candidates: list[Run] = []
    problems: list[str] = []
    with operating_system_door("Cannot list the chunk index"):
        paths = _run_paths(folder)
        for _ in range(_LIST_TRIES_MAX):
            candidates, problems = [], []
            for path in paths:
                try:
                    candidates.append(opened.get(path.name) or open_run(path, store_id))
                except CheckpointError as error:
                    problems.append(f"{path.name} was dropped: {error.message}")
            listed, paths = paths, _run_paths(folder)
            if listed == paths:
                break
    return candidates, problems


def _sweep(folder: Path, runs: tuple[Run, ...]) -> None:
    """Remove what is no part of the chain; only under the folder's lock."""
    kept = {run.name for run in runs}
    with operating_system_door("Cannot list the chunk index"):
        names = os.listdir(folder)
    for name in names:
        if name.endswith(files.TEMPORARY_SUFFIX) or (name.endswith(SUFFIX) and name not in kept):
            files.remove(folder / name)


@contextmanager
def _folder_lock(folder: Path) -> Iterator[bool]:
    """Try the folder's lock; the block is told whether it has it."""
    with operating_system_door("Cannot lock the chunk index"):
        files.make_below(folder.parent.parent, folder)  # STORE/views/chunks
        fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            files.unlock_and_close(fd)
